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
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
        return next(reversed(self._all()), None)

    def _all(self) -> list[Path]:
        """As they follow each other, however many digits their numbers have."""
        return sorted(self.folder.glob("epoch_*"), key=lambda folder: _numbers(folder.name))

    def best(self) -> Path | None:
        """The one after the epoch with the best top-1; the newest before there is such an epoch."""
        newest = self.newest()
        epoch = _recorded(newest).progress.best_epoch() if newest else 0
        return self._after(epoch) if epoch else newest

    def _after(self, epoch: int) -> Path:
        return self.folder / f"epoch_{epoch:04d}"

    def save(self, state: State, progress: Progress, kept: int) -> None:
        """Writes a checkpoint, then removes all but the newest few and the best.

        Of one that exists, the weights are these already: only what else is told of the progress,
        such as its rollbacks, is written anew.

        Raises:
            OSError: it could not be written; those there were are as they were.
        """
        checkpoint = self.folder / _name(progress)
        if checkpoint.exists():
            _write_record(checkpoint, progress, _recorded(checkpoint).sha256)
            return
        # What was killed amid another checkpoint.
        for unfinished in self.folder.glob(atomic.neighbour(Path("epoch_*")).name):
            shutil.rmtree(unfinished)
        with atomic.replacing(checkpoint) as partial:
            partial.mkdir()
            arrays = state.arrays()
            weights = [weight.numpy() for weight in state.model.weights]
            _require_room(partial, [*arrays.values(), *weights])
            with state.evaluated() as model:
                model.save_weights(partial / MODEL)
            np.savez(partial / STATE, **arrays)
            sha256 = {name: _sha256(partial / name) for name in (MODEL, STATE)}
            _write_record(partial, progress, sha256)
        best = self._after(progress.best_epoch())
        for old in self._all()[:-kept]:
            if old != best:
                shutil.rmtree(old)

    def restore(self, state: State) -> Progress:
        """Takes a state back to the newest checkpoint, if there is one.

        A corrupt one is renamed, and the one before takes its place.

        Raises:
            BadInput: it is corrupt, and there is none before.
        """
        newest = self.newest()
        if not newest:
            return Progress()
        try:
            _verify(newest)
        except BadInput as corrupt:
            if self._all() == [newest]:
                raise
            print(f"{corrupt}; it is {_set_aside(newest).name!r} now", file=sys.stderr)
            return self.restore(state)
        state.model.load_weights(newest / MODEL)
        with np.load(newest / STATE) as arrays:
            state.restore(arrays)
        return _recorded(newest).progress


def model_file(checkpoint: Path) -> Path:
    """A checkpoint's weights, as they are evaluated.

    Raises:
        BadInput: a file is not the one that was written.
    """
    _verify(checkpoint)
    return checkpoint / MODEL


def model_sha256(checkpoint: Path) -> str:
    """What identifies a checkpoint's weights."""
    return _recorded(checkpoint).sha256[MODEL]


def recorded_progress(checkpoint: Path) -> Progress:
    """How far the run had come.

    Raises:
        BadInput: its record cannot be read.
    """
    return _recorded(checkpoint).progress


def _require_room(folder: Path, arrays: list[np.ndarray]) -> None:
    """On Linux, finds out that a disk is full before HDF5 does, which then crashes at the end.

    Raises:
        OSError: the arrays do not fit.
    """
    if sys.platform != "linux":
        return
    needed = sum(array.nbytes + FRAME_BYTES for array in arrays)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, needed)


def _name(progress: Progress) -> str:
    inside = f"_step_{progress.step:06d}" if progress.step else ""
    return f"epoch_{progress.epoch:04d}{inside}"


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


class _Record(NamedTuple):
    progress: Progress
    sha256: dict[str, str]


def _write_record(checkpoint: Path, progress: Progress, sha256: dict[str, str]) -> None:
    record = dataclasses.asdict(progress) | {"sha256": sha256}
    atomic.write_text(checkpoint / RECORD, json.dumps(record, indent=2))


def _recorded(checkpoint: Path) -> _Record:
    try:
        record = json.loads((checkpoint / RECORD).read_text())
        sha256 = {name: record["sha256"][name] for name in (MODEL, STATE)}
        progress = Progress(**{key: record[key] for key in record if key != "sha256"})
        progress.best_epoch()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _corrupt(checkpoint, "its record cannot be read") from error
    return _Record(progress, sha256)


def _set_aside(checkpoint: Path) -> Path:
    """Renames a corrupt checkpoint, unless another worker just did."""
    aside = checkpoint.with_name(f"corrupt-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):
        checkpoint.rename(aside)
    return aside


def _verify(checkpoint: Path) -> None:
    """Refuses a checkpoint whose files are not those that were written."""
    for name, sha256 in _recorded(checkpoint).sha256.items():
        if _sha256(checkpoint / name) != sha256:
            raise _corrupt(checkpoint, f"the SHA-256 of {name} is not the recorded one")


def _corrupt(checkpoint: Path, finding: str) -> BadInput:
    return BadInput(
        f"corrupt checkpoint {str(checkpoint)!r}: {finding}; "
        "training goes on from the one before; where there is none, delete the folder"
    )


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
