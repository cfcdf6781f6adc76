"""The serve stage: loads the models, takes the port, and answers until it is told to stop."""

import contextlib
import errno
import math
import signal
import socket
import warnings
from dataclasses import dataclass

import uvicorn
from PIL import Image

from pipelines.config import ServeConfig
from pipelines.data.images import hush_transposing
from pipelines.errors import BadInput
from pipelines.serving.app import create_app
from pipelines.serving.connections import PatientProtocol
from pipelines.serving.observing import LOG, Metrics, log_to_stderr
from pipelines.serving.repository import Repository
from pipelines.serving.versions import Loader


@dataclass(frozen=True)
class Served:
    """What was served until the server was stopped."""

    url: str
    models: list[str]

    def __str__(self) -> str:
        return f"stopped serving {', '.join(self.models)} at {self.url}"


def serve(config: ServeConfig) -> Served:
    """Serves the models of a folder until SIGINT or SIGTERM; requests under way are answered.

    Raises:
        BadInput: the folder holds no model that loads, or the address cannot be listened on.
    """
    with listen(config.host, config.port) as listener:
        log_to_stderr()
        # The limit is the config's, and told to who sent the image.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        metrics = Metrics()
        repository = open_models(config, metrics)
        url = url_of(listener)
        LOG.info("listening", extra={"facts": {"url": url, "models": repository.names()}})
        # What uvicorn hands its signals on to when it is done: SIGTERM would end the process.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            http_server(config, repository, metrics).run(sockets=[listener])
    return Served(url, repository.names())


def open_models(config: ServeConfig, metrics: Metrics) -> Repository:
    """The models of the config's folder, loaded.

    Raises:
        BadInput: there is none, or none that loads.
    """
    folder = config.models
    hush_transposing()
    repository = Repository(folder, Loader(config, metrics).load, config.versions, metrics)
    if folder.is_dir():
        if any(folder.glob("*/saved_model.pb")):
            raise BadInput(
                f"{str(folder)!r} is one model; give the folder above: {str(folder.parent)!r}"
            )
        repository.refresh()
    if not repository.names():
        raise BadInput(
            f"no exported model in {str(folder)!r}; "
            "python -m pipelines.export RUN --out saved_models/NAME writes one"
        )
    rows = [row for name in repository.names() for row in repository.status(name)]
    if not any(row["state"] == "AVAILABLE" for row in rows):
        raise BadInput(f"{rows[0]['status']['error_message']}; remove it, or export it again")
    return repository


def http_server(config: ServeConfig, repository: Repository, metrics: Metrics) -> uvicorn.Server:
    """uvicorn over the application; it finishes what is under way before it ends."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(config, repository, metrics),
            http=PatientProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            timeout_keep_alive=math.ceil(config.read_timeout_s),
            timeout_graceful_shutdown=math.ceil(config.read_timeout_s + config.deadline_s),
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on a name, or on an address of IPv4 or IPv6.

    Raises:
        BadInput: it cannot.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error})"
        raise BadInput(f"{host}:{port} {reason}; give another --port or --host") from error


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
