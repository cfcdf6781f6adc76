"""A dispatcher, two workers and a training stream, each a process; run by test_data_service.py.

Prints how the images of two epochs compare with those of the stream without the service (noise in
each makes every image of every epoch another), how many came after a worker was killed, and what
training with one worker left came to.
"""

import contextlib
import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path

import keras

from pipelines.data.streams import open_dataset, training_stream
from pipelines.training.train import train
from tests.conftest import numbered_config


@contextlib.contextmanager
def service(*arguments):
    """The command in a process of its own, once it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.data_service", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert any("workers at" in line for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def scenario(data, run):
    """What the module's docstring says, as JSON has it."""
    port = str(free_port())
    address = f"grpc://127.0.0.1:{port}"
    local = numbered_config(data, "--global_batch_size", "1", "--augment.erasing_probability=1")
    served = dataclasses.replace(local, data_service=address)
    dataset = open_dataset(data)
    # As training does.
    keras.utils.set_random_seed(local.seed)
    join = ("--join", address)
    with (
        service("--port", port, "--workers", "0"),
        service(*join) as doomed,
        service(*join),
    ):
        images, first, second = (
            {image.tobytes() for image, _ in stream.as_numpy_iterator()}
            for stream in (
                training_stream(dataset, served, first_epoch=1),
                training_stream(dataset, local, first_epoch=1).take(257),
                training_stream(dataset, local, first_epoch=2),
            )
        )
        after_kill = 0
        for step, _ in enumerate(training_stream(dataset, served, first_epoch=0)):
            if step == 20:
                doomed.kill()
            after_kill += step > 20
        trained = train(
            dataclasses.replace(served, run=run, global_batch_size=32, stop_after_epochs=1)
        )
    return {
        "trained_epochs": trained.epochs,
        "different": len(images),
        "of_first_epoch": len(images & first),
        "of_second_epoch": len(images & second),
        "after_kill": after_kill,
    }


if __name__ == "__main__":
    print(json.dumps(scenario(Path(sys.argv[1]), Path(sys.argv[2]))))
