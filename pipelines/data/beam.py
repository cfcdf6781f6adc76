"""Preparation on Apache Beam: a runner's workers examine, TFDS's own Beam support writes.

Its workers have this package installed, and see the source and the output under the paths that
the command was given: on one machine, or on a file system they share. The images stay there; the
runner is handed the name of a file for 256 images. What was examined travels through the workspace
too, and is compared by the process that started all: it holds about half a kilobyte of facts for
each image meanwhile.

The examination, the decisions and the reports are those of the local preparation. So are the
records, and their order in a split. TFDS's Beam writer cuts shards by hash rather than by count,
and writes the fields of a record in any order, so the files are not the same byte for byte.
"""

import dataclasses
import io
import json
import pickle
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import create_runner

from pipelines import atomic
from pipelines.config import PrepareConfig
from pipelines.data.cleaning import Facts
from pipelines.data.parallel import native_code_silenced
from pipelines.data.pieces import Piece, examine_piece
from pipelines.data.shards import NAME, features
from pipelines.errors import BadInput, Failed

# Pillow's settings hold for a whole process, and a runner may have several threads in one.
_examining = threading.Lock()


@contextmanager
def beam_workers(config: PrepareConfig) -> Iterator["BeamWorkers"]:
    """Gives the workers of `config.runner`.

    Raises:
        BadInput: there is no such runner.
        Failed: it gave up.
    """
    try:
        create_runner(config.runner)
    except (ValueError, ImportError) as error:
        raise BadInput(f"runner is {config.runner!r}: {error}") from error
    with native_code_silenced():
        yield BeamWorkers(config.runner, config.beam_options)


@dataclasses.dataclass(frozen=True)
class BeamWorkers:
    """The workers of an Apache Beam runner, and the options it is started with."""

    runner: str
    beam_options: dict[str, Any]

    def examine(self, pieces: list[Piece]) -> None:
        names = [_pickled(piece) for piece in pieces if not piece.facts_file.exists()]
        if not names:
            return
        with (
            self._naming_what_it_raises(),
            beam.Pipeline(self.runner, options=self._options()) as pipeline,
        ):
            _ = pipeline | beam.Create(names) | beam.Reshuffle() | beam.Map(_examine)

    def write(
        self,
        folder: Path,
        splits: dict[str, list[Facts]],
        class_names: list[str],
        description: str,
    ) -> Path:
        # TFDS would find what a runner that gave up left here.
        shutil.rmtree(folder)
        folder.mkdir()
        # TFDS reports on standard output, which is this command's result.
        with self._naming_what_it_raises(), redirect_stdout(io.StringIO()):
            builder = tfds.dataset_builders.store_as_tfds_dataset(
                name=NAME,
                version="1.0.0",
                data_dir=folder,
                features=features(class_names),
                split_datasets={
                    split: _records(folder / f"{split}.jsonl", images)
                    for split, images in splits.items()
                },
                description=description,
                download_config=tfds.download.DownloadConfig(
                    beam_runner=self.runner, beam_options=self._options()
                ),
            )
        return builder.data_path

    def _options(self) -> PipelineOptions:
        return PipelineOptions.from_dictionary(self.beam_options)

    @contextmanager
    def _naming_what_it_raises(self) -> Iterator[None]:
        """Each runner raises errors of its own; the last line is the worker's."""
        try:
            yield
        except Exception as error:
            last_line = str(error).strip().rpartition("\n")[2]
            raise Failed(
                f"{self.runner} gave up ({type(error).__name__}: {last_line}); the same command "
                "goes on from here"
            ) from error


def _pickled(piece: Piece) -> str:
    """Leaves a piece where the workers find it."""
    path = piece.stem.with_suffix(".piece")
    path.write_bytes(pickle.dumps(piece))
    return str(path)


def _examine(name: str) -> None:
    """Examines a piece, where another worker may be at the same one: a runner tries again."""
    piece = pickle.loads(Path(name).read_bytes())
    with _examining, tempfile.TemporaryDirectory(dir=piece.workspace) as own:
        attempt = dataclasses.replace(piece, workspace=Path(own))
        examine_piece(attempt)
        attempt.pack.replace(piece.pack)
        attempt.facts_file.replace(piece.facts_file)


def _records(listing: Path, images: list[Facts]) -> beam.PTransform:
    """A split as TFDS wants it: `(key, example)` of each image."""
    atomic.write_text(listing, "".join(json.dumps(image) + "\n" for image in images))
    return beam.io.ReadFromText(str(listing)) | beam.Reshuffle() | beam.Map(_record)


def _record(line: str) -> tuple[str, dict[str, Any]]:
    image = Facts(*json.loads(line))
    return image.key, {"image": image.encoded(), "label": image.label, "file_name": image.key}
