"""The tf.data service: decoding and augmentation on other machines than the one that trains.

A dispatcher hands out pieces of the data set, workers prepare their images, and a training run
with `data_service: grpc://HOST:PORT` takes them. All of them read the data set under the same path.

What holds: while every worker lives, each image comes exactly once an epoch, its augmentation the
same as without the service, in no particular order. A worker that dies takes the pieces it had
begun with it (each image at most once that epoch), and training goes on with the others. A worker
that joins takes pieces from then on. A dispatcher that dies ends the run, which goes on from its
checkpoint.

TensorFlow's servers have no access control and listen on every interface: a trusted network only.
"""

import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

import tensorflow as tf

from pipelines.config import DataServiceConfig
from pipelines.errors import BadInput

HEARTBEAT_MS = 1_000


@dataclass(frozen=True)
class DataService:
    """What ran until it was stopped."""

    dispatcher: str
    workers: int

    def __str__(self) -> str:
        return f"stopped {self.workers} workers of the data service at {self.dispatcher}"


def serve_data(config: DataServiceConfig) -> DataService:
    """Runs a dispatcher, or joins one, with workers of its own until SIGINT or SIGTERM.

    Raises:
        BadInput: the port cannot be listened on.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    servers, address = [], config.join
    if address is None:
        servers.append(_dispatcher(config.port))
        address = f"grpc://{config.host}:{config.port}"
    servers += [_worker(address, config.host) for _ in range(config.workers)]
    print(f"{config.workers} workers at {address}; --data_service {address}", file=sys.stderr)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    return DataService(address, config.workers)


def _dispatcher(port: int) -> tf.data.experimental.service.DispatchServer:
    try:
        return tf.data.experimental.service.DispatchServer(
            tf.data.experimental.service.DispatcherConfig(port=port)
        )
    except tf.errors.OpError as error:
        reason = error.message.partition("\n")[0]
        raise BadInput(f"port {port} cannot be used ({reason}); give another --port") from error


def _worker(dispatcher: str, host: str) -> tf.data.experimental.service.WorkerServer:
    return tf.data.experimental.service.WorkerServer(
        tf.data.experimental.service.WorkerConfig(
            dispatcher_address=dispatcher.removeprefix("grpc://"),
            worker_address=f"{host}:%port%",
            heartbeat_interval_ms=HEARTBEAT_MS,
        )
    )
