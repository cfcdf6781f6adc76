"""The serve stage: loads the models, takes the port, and answers until it is told to stop."""

import contextlib
import errno
import socket
import sys
from dataclasses import dataclass

import uvicorn

from pipelines.config import ServeConfig
from pipelines.errors import BadInput
from pipelines.serving.app import create_app
from pipelines.serving.models import load_models


@dataclass(frozen=True)
class Served:
    """What was served until the server was stopped."""

    url: str
    models: list[str]

    def __str__(self) -> str:
        return f"stopped serving {', '.join(self.models)} at {self.url}"


def serve(config: ServeConfig) -> Served:
    """Serves the latest version of every model in a folder until SIGINT or SIGTERM.

    Raises:
        BadInput: the folder holds no model, or the address cannot be listened on.
    """
    with _listen(config.host, config.port) as listener:
        models = load_models(config.models)
        host, port = listener.getsockname()[:2]
        url = f"http://{host}:{port}"
        for name, model in models.items():
            print(f"serving version {model.version} at {url}/v1/models/{name}", file=sys.stderr)
        server = uvicorn.Server(uvicorn.Config(create_app(models), log_level="warning"))
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    return Served(url, list(models))


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error})"
        raise BadInput(f"{host}:{port} {reason}; give another --port or --host") from error
