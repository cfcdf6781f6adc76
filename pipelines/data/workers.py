"""Who does the work of a preparation: processes of this machine, or an Apache Beam runner."""

import importlib
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipelines.config import PrepareConfig
from pipelines.data.cleaning import Facts
from pipelines.data.parallel import Map, Step, available_cores, process_map
from pipelines.data.pieces import Piece, examine_piece
from pipelines.data.shards import Shard, shards, write_metadata, write_shard
from pipelines.errors import BadInput

# Starting a process costs as much as examining about so many small images.
IMAGES_A_WORKER = 2048


class Workers(Protocol):
    """What a preparation leaves to others."""

    def examine(self, pieces: list[Piece]) -> None:
        """Leaves the pack and the facts of every piece."""

    def write(
        self,
        folder: Path,
        splits: dict[str, list[Facts]],
        class_names: list[str],
        description: str,
    ) -> Path:
        """Writes the images of each split as a TFDS data set.

        Args:
            folder: an empty one, or what an earlier call with the same arguments left of it;
                workers of another class have another.

        Returns:
            The data set: `folder` or a folder in it, and nothing else in there.
        """


@contextmanager
def workers_for(config: PrepareConfig, pieces: list[Piece]) -> Iterator[Workers]:
    """The workers that a config asks for.

    Raises:
        BadInput: Apache Beam is asked for and not installed, or has no such runner.
        Failed: a worker was killed, or the runner gave up.
    """
    if config.runner is not None:
        with _beam().beam_workers(config) as workers:
            yield workers
        return
    most = math.ceil(sum(map(len, pieces)) / IMAGES_A_WORKER)
    with process_map(min(config.workers or available_cores(), most)) as parallel:
        yield Processes(parallel)


def _beam() -> Any:
    """The module that imports Apache Beam, which is an extra."""
    # It remarks on Google's clients, which nobody asked for.
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        return importlib.import_module("pipelines.data.beam")
    except ModuleNotFoundError as error:
        raise BadInput(
            f"--runner needs Apache Beam ({error}); pip install -e '.[beam]', in an environment "
            "of its own: it takes an older protobuf"
        ) from error
    finally:
        logging.disable(disabled)


@dataclass(frozen=True)
class Processes:
    """Processes of this machine; every file of the data set is the same however many they are."""

    parallel: Map

    def examine(self, pieces: list[Piece]) -> None:
        _run(self.parallel, "examining", examine_piece, pieces)

    def write(
        self,
        folder: Path,
        splits: dict[str, list[Facts]],
        class_names: list[str],
        description: str,
    ) -> Path:
        listings = {split: shards(folder, split, images) for split, images in splits.items()}
        write = partial(write_shard, class_names=class_names)
        everything = [shard for listing in listings.values() for shard in listing]
        _run(self.parallel, "writing", write, everything)
        write_metadata(folder, class_names, listings, description)
        return folder


class _ImagesPerSecond(ProgressColumn):
    """The speed of this run, without what an earlier one had finished."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} images/s")


def _run(
    parallel: Map, title: str, function: Callable[[Any], Step], work: list[Piece] | list[Shard]
) -> None:
    """Does all the work and shows how far it is, where somebody is looking."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        _ImagesPerSecond(),
        TextColumn("{task.fields[bad]:,} bad"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        task = progress.add_task(title, total=sum(map(len, work)), bad=0)
        bad = 0
        for step in parallel(function, work):
            bad += step.bad
            progress.update(task, advance=step.images, bad=bad)
