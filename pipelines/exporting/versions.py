"""The folders of exported models, as TensorFlow Serving reads them: `<models>/<name>/<version>`."""

import os
from pathlib import Path

from google.protobuf.text_encoding import CEscape

from pipelines import atomic

# Where `docker run -v $PWD/saved_models:/models tensorflow/serving` sees the folder of models.
SERVING_FOLDER = "/models"
# A request of as many images as this project's server takes by default is one batch; one image
# waits 2 ms at most.
BATCHING = """\
max_batch_size { value: 32 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 64 }
"""


def versions(model_folder: Path) -> list[Path]:
    """The folders of a model's versions, the lowest number first."""
    folders = [path for path in model_folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name))


def latest_version(model_folder: Path) -> Path | None:
    """The folder of the highest version number, as TensorFlow Serving chooses; None without."""
    return next(reversed(versions(model_folder)), None)


def next_version(model_folder: Path) -> Path:
    """The folder, not there yet, of the version after the latest."""
    latest = latest_version(model_folder)
    return model_folder / str(int(latest.name) + 1 if latest else 1)


def write_serving_configs(models: Path) -> None:
    """Writes what `tensorflow/serving` is started with to serve every model in a folder.

    `models.config` (`--model_config_file`) and `batching.config` (`--batching_parameters_file`).
    """
    # Who writes last has seen what everyone before exported.
    with atomic.in_turn(models):
        names = sorted(path.name for path in models.glob("*") if latest_version(path))
        rows = "".join(_config(CEscape(os.fsencode(name), as_utf8=False)) for name in names)
        atomic.write_text(models / "models.config", f"model_config_list {{\n{rows}}}\n")
        atomic.write_text(models / "batching.config", BATCHING)


def _config(name: str) -> str:
    """A model's row, its name escaped as protobuf's text format asks."""
    base_path = f"{SERVING_FOLDER}/{name}"
    return f'  config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" }}\n'
