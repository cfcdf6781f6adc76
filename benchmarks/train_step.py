"""Training images a second of this project's loop, beside others on the same network in one run.

    python benchmarks/train_step.py [--python torch=PYTHON] [--data DIR]

On a machine without a GPU: the step of `pipelines.training` on a batch in memory against Keras's
`fit` and against eager torch, channels last; each in a process of its own, in turns, those whose
turn it is not stopped. Reported are medians, their spread and the ratio of ours to each, round by
round, and the memory at its peak. With `--data`, a folder that `pipelines.prepare` wrote, also the
whole of `python -m pipelines.train` against its bare step, and two workers of one core each against
one worker on one core.

On a machine with a GPU: the zoo under the JAX backend, which imports no TensorFlow, against
torchvision under torch.compile, both in bfloat16.
"""

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import turns

from pipelines.training.launcher import free_addresses, tf_config

PEERS = Path(__file__).parent / "train_peers"
SIZE_PX = 224
# Of a whole run's epoch: two workers' seven batches are 224 of the photographs.
EPOCH_STEPS = 7
Rates = dict[str, list[float]]


class Setting(NamedTuple):
    """What is measured on one kind of machine.

    Args:
        batch: images a step.
        ours: our script.
        peers: the others' scripts, the networks each is measured on, and the least ratio of ours.
        steps: steps a pass, where not 3.
    """

    batch: int
    ours: str
    peers: dict[str, tuple[tuple[str, ...], float]]
    steps: dict[str, int]


CPU = Setting(
    16,
    "zoo_loop.py",
    {
        "keras_fit.py": (("resnet18", "resnet50"), 1.0),
        "torch_eager.py": (
            ("resnet18", "resnet50", "vgg16", "alexnet_owt", "inception_v3"),
            0.85,
        ),
    },
    {"vgg16": 1},
)
GPU = Setting(
    256,
    "zoo_jax.py",
    {"torch_compiled.py": (("alexnet_owt", "vgg16", "inception_v3", "resnet50"), 1.0)},
    dict.fromkeys(("alexnet_owt", "vgg16", "inception_v3", "resnet50"), 20),
)


def main() -> None:
    arguments = parse_arguments()
    turns.end_children_with_this_process()
    setting = GPU if shutil.which("nvidia-smi") else CPU
    networks = dict.fromkeys(name for names, _ in setting.peers.values() for name in names)
    for network in arguments.network or networks:
        compare_steps(network, setting, arguments)
    if arguments.data:
        with tempfile.TemporaryDirectory() as scratch:
            compare_whole(arguments, Path(scratch))
            compare_workers(arguments, Path(scratch))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", action="append", help="only these; all unless given")
    parser.add_argument("--data", type=Path, help="prepared photographs")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PYTHON")
    arguments = parser.parse_args()
    arguments.python = dict(pair.split("=", 1) for pair in arguments.python)
    return arguments


def compare_steps(network: str, setting: Setting, arguments: argparse.Namespace) -> None:
    """Our step and the peers' on one network, in turns."""
    goals = {script: goal for script, (_, goal) in setting.peers.items()}
    scripts = [setting.ours]
    scripts += [script for script, (names, _) in setting.peers.items() if network in names]
    steps = setting.steps.get(network, 3)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as children:
        peers = {}
        for script in scripts:
            python = arguments.python.get(script.partition("_")[0], sys.executable)
            numbers = [setting.batch, steps, SIZE_PX]
            command = [python, PEERS / script, network, *numbers]
            try:
                peers[script], _ = turns.start(command, Path(scratch) / "log", children)
            except RuntimeError as error:
                print(f"skipped: {script} ({error})", flush=True)
        passes = {script: [] for script in peers}
        for _ in range(arguments.rounds):
            for script, peer in peers.items():
                passes[script].append(turns.turn(peer))
    images = setting.batch * steps
    rates = {
        script: [images / one["wall_s"] for one in measured] for script, measured in passes.items()
    }
    memory = {script: measured[-1]["peak_mib"] for script, measured in passes.items()}
    report(f"{network}, batch {setting.batch}", rates, memory, setting.ours, goals)


def compare_whole(arguments: argparse.Namespace, scratch: Path) -> None:
    """`pipelines.train` on files against the bare step, resnet18."""
    command = [sys.executable, PEERS / "zoo_loop.py", "resnet18", CPU.batch, EPOCH_STEPS, SIZE_PX]
    rates: Rates = {"pipelines.train": [], "bare step": []}
    with ExitStack() as children:
        bare, _ = turns.start(command, scratch / "log", children)
        for number in range(arguments.rounds):
            run = scratch / f"whole{number}"
            train(arguments.data, run, CPU.batch)
            rates["pipelines.train"].append(second_epoch_rate(run))
            rates["bare step"].append(EPOCH_STEPS * CPU.batch / turns.turn(bare)["wall_s"])
    report("resnet18, files to logs", rates, {}, "pipelines.train", {"bare step": 0.95})


def compare_workers(arguments: argparse.Namespace, scratch: Path) -> None:
    """Two workers of a core each, with twice the batch, against one on one core, resnet18."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    rates: Rates = {"two workers": [], "twice one worker": []}
    for number in range(arguments.rounds):
        one, two = scratch / f"one{number}", scratch / f"two{number}"
        train(arguments.data, one, CPU.batch, pinned(cores[:1]))
        addresses = free_addresses(len(cores))
        workers = [
            subprocess.Popen(
                train_command(arguments.data, two, CPU.batch * len(cores), pinned([core])),
                env=os.environ | {"TF_CONFIG": tf_config(addresses, index)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for index, core in enumerate(cores)
        ]
        if max(worker.wait() for worker in workers):
            raise SystemExit("a worker failed")
        rates["two workers"].append(second_epoch_rate(two))
        rates["twice one worker"].append(2 * second_epoch_rate(one))
    report("resnet18, workers", rates, {}, "two workers", {"twice one worker": 0.85})


def train(data: Path, run: Path, batch: int, prefix: list[str] | None = None) -> None:
    subprocess.run(
        train_command(data, run, batch, prefix or []),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def train_command(data: Path, run: Path, batch: int, prefix: list[str]) -> list[str]:
    """Two epochs; the first one has the tracing in it."""
    images = EPOCH_STEPS * batch
    return [
        *(*prefix, sys.executable, "-m", "pipelines.train", str(data), "--network=resnet18"),
        *(f"--run={run}", "--epochs=2", f"--global_batch_size={batch}"),
        *(f"--train_split=train[:{images}]", "--validation_split=validation[:8]"),
        *("--schedule.warmup_epochs=0", "--optimizer.base_lr=0.01"),
    ]


def second_epoch_rate(run: Path) -> float:
    with (run / "history.csv").open() as file:
        return float(list(csv.DictReader(file))[1]["images_per_s"])


def pinned(cores: list[int]) -> list[str]:
    return ["taskset", "--cpu-list", ",".join(map(str, cores))]


def report(
    title: str, rates: Rates, memory: dict[str, float], ours: str, goals: dict[str, float]
) -> None:
    """The medians, and the ratio of ours to each of the others."""
    print(
        f"\n{title:34}{'images/s':>10}{'spread':>16}{'ratio':>8}{'spread':>14}{'goal':>6}"
        f"{'MiB':>8}{'ours/its':>10}"
    )
    for name, rate in rates.items():
        row = f"{name:34}{statistics.median(rate):>10.2f}{spread(rate):>16}"
        if name != ours and ours in rates:
            ratio = [a / b for a, b in zip(rates[ours], rate, strict=True)]
            row += f"{statistics.median(ratio):>8.2f}{spread(ratio):>14}{goals[name]:>6.2f}"
        else:
            row += " " * 28
        if name in memory:
            row += f"{memory[name]:>8,.0f}{memory[ours] / memory[name]:>10.2f}"
        print(row, flush=True)


def spread(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


if __name__ == "__main__":
    main()
