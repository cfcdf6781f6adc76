"""The folder of models, and which of their versions are served at a time.

`<models>/<name>/<version>/` is a version, `<models>/<name>/version_labels.yaml` may name some of
them (`stable: 3`). Served are the newest versions that load, as many of each model as the config
says, and those that have a label. The folder is looked at again and again; a version takes its
place when it has loaded, and the one before stays until then, or for good.
"""

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
import yaml
from starlette.exceptions import HTTPException

from pipelines.errors import BadInput
from pipelines.serving.observing import LOG, Metrics
from pipelines.serving.versions import ServedVersion

LABELS = "version_labels.yaml"


class Failure(NamedTuple):
    """A version that did not load.

    Args:
        code: the name of the canonical error code.
        message: one line.
    """

    code: str
    message: str


class Model(NamedTuple):
    """The versions of one model.

    Args:
        available: those that are served, by number.
        failed: those that should be and do not load, as their files are now.
        labels: numbers by label.
        stamps: the files of both as they were; a version is loaded again when they change.
    """

    available: dict[int, ServedVersion]
    failed: dict[int, Failure]
    labels: dict[str, int]
    stamps: dict[int, tuple]


NONE = Model({}, {}, {}, {})


class Repository:
    """The models of a folder.

    Args:
        folder: `<models>`.
        load: opens a version.
        newest: how many versions of each model are served.
        metrics: where loads are counted.
    """

    def __init__(
        self, folder: Path, load: Callable[[Path], ServedVersion], newest: int, metrics: Metrics
    ) -> None:
        self._folder = folder
        self._load = load
        self._newest = newest
        self._metrics = metrics
        self._models: dict[str, Model] = {}
        self._released = threading.Event()

    def refresh(self) -> None:
        """Looks at the folder and loads what is new; takes as long as that takes."""
        if self._released.is_set():
            self._released.clear()
            # A SavedModel's functions and variables refer to each other.
            gc.collect()
        found = {path.name for path in self._folder.iterdir() if _versions(path)}
        for name in sorted(self._models.keys() - found):
            self._publish(name, NONE)
        for name in sorted(found):
            before = self._models.get(name, NONE)
            try:
                model = self._model(self._folder / name, before)
            except OSError as error:
                LOG.error("models folder", extra={"facts": {"model": name, "error": str(error)}})
                continue
            if model != before:
                self._publish(name, model)

    def _model(self, path: Path, before: Model) -> Model:
        versions, labels = _versions(path), _labels(path, before.labels)
        available: dict[int, ServedVersion] = {}
        failed: dict[int, Failure] = {}
        stamps: dict[int, tuple] = {}
        for number in sorted(versions, reverse=True):
            if len(available) >= self._newest and number not in labels.values():
                continue
            loaded, failure = before.available.get(number), before.failed.get(number)
            stamps[number] = _stamp(versions[number])
            if stamps[number] != before.stamps.get(number):
                loaded, failure = self._opened(versions[number], loaded)
            if loaded:
                available[number] = loaded
            if failure:
                failed[number] = failure
        return Model(available, failed, labels, stamps)

    def _opened(
        self, version: Path, before: ServedVersion | None
    ) -> tuple[ServedVersion | None, Failure | None]:
        """The version as its files are now, or what it was before and why."""
        try:
            return self._load(version), None
        # Whatever is in the folder, the versions that are served stay.
        except Exception as error:
            code = getattr(error, "error_code", tf.errors.UNKNOWN)
            message = f"cannot load {version}: {' '.join(str(error).split())[:400]}"
            self._metrics.failed_loads.labels(version.parent.name).inc()
            LOG.error("not loaded", extra={"facts": {"error": message}})
            return before, Failure(_code_name(code), message)

    def _publish(self, name: str, model: Model) -> None:
        before = self._models.get(name, NONE)
        self._models = {**self._models, name: model}
        for number, version in model.available.items():
            if version is not before.available.get(number):
                LOG.info("serving", extra={"facts": {"model": name, "version": number}})
                self._metrics.versions.labels(name, number).set(1)
        for number, version in before.available.items():
            if version is not model.available.get(number):
                LOG.info("unloaded", extra={"facts": {"model": name, "version": number}})
                # Requests under way may hold it a little longer.
                weakref.finalize(version.explain, self._released.set)
        for number in before.available.keys() - model.available.keys():
            self._metrics.forget(name, number)
        if model == NONE:
            self._models = {key: value for key, value in self._models.items() if key != name}

    def names(self) -> list[str]:
        return sorted(self._models)

    @property
    def ready(self) -> bool:
        """Whether any model has a version that answers; each says so of its own too."""
        return any(model.available for model in self._models.values())

    def latest(self, name: str) -> ServedVersion:
        """The newest version of a model that loaded.

        Raises:
            HTTPException: 404, there is no such model, or none of its versions loads.
        """
        model = self._model_of(name)
        if not model.available:
            raise HTTPException(
                404, f"no version of {name!r} loads; GET /v1/models/{name} says why"
            )
        return model.available[max(model.available)]

    def numbered(self, name: str, version: str) -> ServedVersion:
        """A version of a model by its number.

        Raises:
            HTTPException: 404, it is not served.
        """
        available = self._model_of(name).available
        by_text = {str(number): served for number, served in available.items()}
        if version not in by_text:
            raise HTTPException(
                404,
                f"model {name!r} has no version {version[:80]!r} here; "
                f"served: {sorted(available, reverse=True)}",
            )
        return by_text[version]

    def labelled(self, name: str, label: str) -> ServedVersion:
        """A version of a model by its label.

        Raises:
            HTTPException: 404, there is no such label, or its version does not load.
        """
        labels = self._model_of(name).labels
        if label not in labels:
            raise HTTPException(
                404,
                f"model {name!r} has no label {label[:80]!r}; {LABELS} names {sorted(labels)}",
            )
        return self.numbered(name, str(labels[label]))

    def status(self, name: str) -> list[dict[str, Any]]:
        """What TensorFlow Serving says of every version, the newest first.

        A version that does not load is at its `END`, with the reason. One that was replaced and
        does not load any more is available as it was, and has the reason too.
        """
        model = self._model_of(name)
        states = dict.fromkeys(model.available, ("AVAILABLE", "OK", "")) | {
            number: ("AVAILABLE" if number in model.available else "END", *failure)
            for number, failure in model.failed.items()
        }
        return [
            {
                "version": str(number),
                "state": state,
                "status": {"error_code": code, "error_message": message},
            }
            for number, (state, code, message) in sorted(states.items(), reverse=True)
        ]

    def _model_of(self, name: str) -> Model:
        if name not in self._models:
            raise HTTPException(404, f"unknown model {name[:80]!r}; this server has {self.names()}")
        return self._models[name]


def _versions(path: Path) -> dict[int, Path]:
    """The version folders of a model, by number."""
    if not path.is_dir() or path.name.startswith("."):
        return {}
    return {int(child.name): child for child in path.iterdir() if _is_version(child)}


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal() and path.is_dir()


def _labels(path: Path, before: dict[str, int]) -> dict[str, int]:
    """Numbers by label; what they were before where the file cannot be read, which is logged."""
    try:
        return _read_labels(path / LABELS)
    except (OSError, BadInput) as error:
        facts = {"model": path.name, "error": str(error), "kept": before}
        LOG.error("version labels", extra={"facts": facts})
        return before


def _read_labels(file: Path) -> dict[str, int]:
    if not file.is_file():
        return {}
    try:
        labels = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(labels, dict) or not all(
        isinstance(label, str) and isinstance(number, int) for label, number in labels.items()
    ):
        raise BadInput(f"{file} is not a mapping of labels to version numbers, like `stable: 3`")
    return labels


def _stamp(version: Path) -> tuple:
    files = sorted(version.rglob("*"))
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def _code_name(code: int) -> str:
    """INVALID_ARGUMENT for 3, as the canonical codes are called."""
    names = {
        value: name
        for name, value in vars(tf.errors).items()
        if name.isupper() and isinstance(value, int)
    }
    return names.get(code, "UNKNOWN")
