"""The checkpoints of a run: each a folder that appears whole.

model.weights.h5   the model as it is evaluated: with averaged weights, where the run has them
state.npz          the optimizer, the seeds and, where they are averaged, the weights themselves
record.json        how far the run had come, and the SHA-256 of both files

`epoch_0007` is after seven epochs, `epoch_0007_step_000120` inside the eighth.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import atomic
from pipelines.errors import BadInput
from pipelines.training.state import Progress, State

MODEL = "model.weights.h5"
STATE = "state.npz"
RECORD = "record.json"
# More than HDF5 and NPZ write around an array.
FRAME_BYTES = 8192


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a run's checkpoints.

    Args:
        folder: where they are.
    """

    folder: Path

    def newest(self) -> Path | None:
        """The one that was written last, None if there is none."""
        return max(self.folder.glob("epoch_*"), default=None)

    def best(self) -> Path | None:
        """The one after the epoch with the best top-1; the newest before there is such an epoch."""
        newest = self.newest()
        epoch = _progress(newest).best_epoch() if newest else 0
        return self._after(epoch) if epoch else newest

    def _after(self, epoch: int) -> Path:
        return self.folder / f"epoch_{epoch:04d}"

    def save(self, state: State, progress: Progress, kept: int) -> None:
        """Writes a checkpoint, then removes all but the newest few and the best.

        Raises:
            OSError: it could not be written; those there were are as they were.
        """
        checkpoint = self.folder / _name(progress)
        if checkpoint.exists():
            return
        with atomic.replacing(checkpoint) as partial:
            partial.mkdir()
            arrays = state.arrays()
            weights = [weight.numpy() for weight in state.model.weights]
            _require_room(partial, [*arrays.values(), *weights])
            with state.evaluated() as model:
                model.save_weights(partial / MODEL)
            np.savez(partial / STATE, **arrays)
            record = dataclasses.asdict(progress) | {
                "sha256": {name: _sha256(partial / name) for name in (MODEL, STATE)}
            }
            (partial / RECORD).write_text(json.dumps(record, indent=2))
        best = self._after(progress.best_epoch())
        for old in sorted(self.folder.glob("epoch_*"))[:-kept]:
            if old != best:
                shutil.rmtree(old)

    def restore(self, state: State) -> Progress:
        """Takes a state back to the newest checkpoint, if there is one.

        Raises:
            BadInput: a file is not the one that was written.
        """
        newest = self.newest()
        if not newest:
            return Progress()
        _verify(newest)
        state.model.load_weights(newest / MODEL)
        with np.load(newest / STATE) as arrays:
            state.restore(arrays)
        return _progress(newest)


def model_file(checkpoint: Path) -> Path:
    """A checkpoint's weights, as they are evaluated.

    Raises:
        BadInput: a file is not the one that was written.
    """
    _verify(checkpoint)
    return checkpoint / MODEL


def model_sha256(checkpoint: Path) -> str:
    """What identifies a checkpoint's weights."""
    return _record(checkpoint)["sha256"][MODEL]


def _require_room(folder: Path, arrays: list[np.ndarray]) -> None:
    """Finds out that a disk is full before HDF5 does, which then crashes as the process ends.

    Raises:
        OSError: the arrays do not fit.
    """
    needed = sum(array.nbytes + FRAME_BYTES for array in arrays)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, needed)


def _name(progress: Progress) -> str:
    """Such that names sort as they follow each other."""
    inside = f"_step_{progress.step:06d}" if progress.step else ""
    return f"epoch_{progress.epoch:04d}{inside}"


def _record(checkpoint: Path) -> dict[str, Any]:
    try:
        record = json.loads((checkpoint / RECORD).read_text())
        record["sha256"][MODEL], record["sha256"][STATE]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _corrupt(checkpoint, "its record cannot be read") from error
    return record


def _progress(checkpoint: Path) -> Progress:
    return Progress(**{key: v for key, v in _record(checkpoint).items() if key != "sha256"})


def _verify(checkpoint: Path) -> None:
    """Refuses a checkpoint whose files are not those that were written."""
    for name, sha256 in _record(checkpoint)["sha256"].items():
        if _sha256(checkpoint / name) != sha256:
            raise _corrupt(checkpoint, f"the SHA-256 of {name} is not the recorded one")


def _corrupt(checkpoint: Path, finding: str) -> BadInput:
    return BadInput(
        f"corrupt checkpoint {str(checkpoint)!r}: {finding}; "
        "delete the folder to go on from the one before"
    )


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
