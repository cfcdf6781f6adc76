"""The tables of a report: networks side by side, who won ILSVRC, what took how long, recipes."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC
from functools import cache
from typing import Any

from keras_zoo.ilsvrc import ENTRIES
from keras_zoo.registry import Card
from pipelines.command import flat, parse
from pipelines.config import TrainConfig
from pipelines.exporting.export import SAVED_MODEL
from pipelines.reporting.known import Known
from pipelines.reporting.tables import NOT_RUN, Cell, Table, of_texts
from pipelines.stage_log import StageRecord

# What is no part of a recipe: where things are, and which machine does what.
_PLACES = {"data", "run", "network", "workers", "worker_index", "local_workers", "data_service"}


@dataclass(frozen=True)
class Row:
    """A run in plain numbers, in the units of their names; None is what was not run.

    What ends in `published` is what the network's card has, of ImageNet at the network's own size;
    `gmacs_own_size` are counted from the layers at that size. `state` is `finished`, early or not,
    or `unfinished`. The times of `train_killed` trainings, which left none, are missing from
    `train_wall_s` and `train_cpu_s`.
    """

    run: str
    network: str
    year: int | None
    data: str
    size_px: int
    size_px_published: int | None
    parameters: int
    parameters_published: int | None
    gmacs: float
    gmacs_own_size: float | None
    split: str | None
    n: int | None
    top1: float | None
    top1_low: float | None
    top1_high: float | None
    top1_published: float | None
    top5: float | None
    top5_low: float | None
    top5_high: float | None
    top5_published: float | None
    source_published: str | None
    epochs: int
    epochs_planned: int
    state: str
    training_s: float | None
    train_wall_s: float | None
    train_cpu_s: float | None
    train_killed: int
    train_images_per_s: float | None
    images_per_s: float | None
    images_per_s_noise: float | None
    p50_ms: float | None
    p99_ms: float | None
    saved_model_bytes: int | None


# What a network does not have, rather than what was not run.
_MAY_LACK = {
    "year",
    "size_px_published",
    "parameters_published",
    "gmacs_own_size",
    "top1_published",
    "top5_published",
    "source_published",
}


def row(known: Known) -> Row:
    """What is known of a run, as numbers."""
    card, blueprint = known.card, known.blueprint
    figures, export, measured = known.evaluated, known.model_card, known.inference
    accuracy = card.published if card.paper else None
    wall_s, cpu_s = known.seconds("train") or (None, None)
    intervals = {
        f"{name}_{end}": figures and figures[f"{name}_interval"][place]
        for name in ("top1", "top5")
        for place, end in enumerate(("low", "high"))
    }
    return Row(
        run=known.name,
        network=known.config.network,
        year=card.year,
        data=str(known.config.data),
        size_px=known.config.input.size_px,
        size_px_published=card.input.size_px if card.paper else None,
        parameters=blueprint.parameters,
        parameters_published=card.parameters if card.paper else None,
        gmacs=blueprint.macs / 1e9,
        gmacs_own_size=card.gmacs if card.paper else None,
        split=figures and figures["split"],
        n=figures and figures["n"],
        top1=figures and figures["top1"],
        top5=figures and figures["top5"],
        **intervals,
        top1_published=accuracy and accuracy.top1 / 100,
        top5_published=accuracy and accuracy.top5 / 100,
        source_published=accuracy and accuracy.source,
        epochs=len(known.history),
        epochs_planned=known.config.epochs,
        state="finished" if known.metrics else "unfinished",
        training_s=sum(each["training_s"] for each in known.history) or None,
        train_wall_s=wall_s,
        train_cpu_s=cpu_s,
        train_killed=known.killed("train"),
        train_images_per_s=_median([each["images_per_s"] for each in known.history]),
        images_per_s=measured and float(measured["images_per_s"]),
        images_per_s_noise=measured and float(measured["noise"]),
        p50_ms=measured and float(measured["p50_ms"]),
        p99_ms=measured and float(measured["p99_ms"]),
        saved_model_bytes=export and export["formats"][SAVED_MODEL]["bytes"],
    )


def comparison(runs: Sequence[Known]) -> Table:
    """The networks side by side, published beside measured."""
    rows = [row(known) for known in runs]
    sources = list(dict.fromkeys(each.source_published for each in rows if each.source_published))
    notes = [f"{source}: accuracy on ImageNet's validation images" for source in sources]
    notes.append(
        "of the network's card, at its own size and 1,000 classes, its GMACs counted from its "
        "layers: python -m keras_zoo show NETWORK"
    )
    return Table(
        name="comparison",
        caption="Networks side by side: measured here, and below in italics as published",
        heads=list(_COLUMNS),
        rows=[[column(each, sources) for column in _COLUMNS.values()] for each in rows],
        notes=notes,
        plain=[
            {
                key: NOT_RUN if value is None and key not in _MAY_LACK else value
                for key, value in asdict(each).items()
            }
            for each in rows
        ],
    )


def _name(each: Row, sources: list[str]) -> Cell:
    year = str(each.year) if each.year else "no paper"
    return Cell(each.run, year if each.run == each.network else f"{each.network}, {year}")


def _size(each: Row, sources: list[str]) -> Cell:
    published = f"{each.size_px_published} px" if each.size_px_published else ""
    return Cell(f"{each.size_px} px", published=published)


def _parameters(each: Row, sources: list[str]) -> Cell:
    published = each.parameters_published
    if published is None:
        return Cell(f"{each.parameters:,}")
    return Cell(f"{each.parameters:,}", published=f"{published:,}", note=len(sources) + 1)


def _gmacs(each: Row, sources: list[str]) -> Cell:
    own = each.gmacs_own_size
    at_own_size = f"{own:#.3g} at {each.size_px_published} px" if own else ""
    return Cell(f"{each.gmacs:#.3g}", at_own_size)


def _top1(each: Row, sources: list[str]) -> Cell:
    interval = (each.top1_low, each.top1_high)
    return _accuracy(each, each.top1, interval, each.top1_published, sources)


def _top5(each: Row, sources: list[str]) -> Cell:
    interval = (each.top5_low, each.top5_high)
    return _accuracy(each, each.top5, interval, each.top5_published, sources)


def _accuracy(
    each: Row,
    measured: float | None,
    interval: tuple[float | None, float | None],
    published: float | None,
    sources: list[str],
) -> Cell:
    given = measured is not None
    return Cell(
        percent(measured) if given else NOT_RUN,
        f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if given else "",
        f"{100 * published:.2f}%" if published else "",
        sources.index(each.source_published) + 1 if published else None,
    )


def _images(each: Row, sources: list[str]) -> Cell:
    return Cell(NOT_RUN) if each.n is None else Cell(f"{each.n:,}", each.split)


def _epochs(each: Row, sources: list[str]) -> Cell:
    if each.state == "finished" and each.epochs == each.epochs_planned:
        return Cell(str(each.epochs))
    ended = {"finished": "ended early", "unfinished": "unfinished"}[each.state]
    return Cell(f"{each.epochs} of {each.epochs_planned}", ended)


def _training(each: Row, sources: list[str]) -> Cell:
    if each.training_s is None:
        return Cell(NOT_RUN)
    cpu = "" if each.train_cpu_s is None else f"{each.train_cpu_s / 60:.1f} CPU min"
    bound = "at least " if cpu and each.train_killed else ""
    return Cell(f"{each.training_s / 60:.1f} min", bound + cpu)


def _train_speed(each: Row, sources: list[str]) -> Cell:
    speed = each.train_images_per_s
    return Cell(NOT_RUN if speed is None else f"{speed:.1f}")


def _speed(each: Row, sources: list[str]) -> Cell:
    if each.images_per_s is None:
        return Cell(NOT_RUN)
    return Cell(f"{each.images_per_s:.1f}", f"± {each.images_per_s_noise:.0%}")


def _latency(each: Row, sources: list[str]) -> Cell:
    return Cell(NOT_RUN if each.p50_ms is None else f"{each.p50_ms:.1f} / {each.p99_ms:.1f} ms")


def _saved_model(each: Row, sources: list[str]) -> Cell:
    size = each.saved_model_bytes
    return Cell(NOT_RUN if size is None else f"{size / 1e6:.1f} MB")


_COLUMNS = {
    "network": _name,
    "image": _size,
    "parameters": _parameters,
    "GMACs": _gmacs,
    "top-1": _top1,
    "top-5": _top5,
    "images": _images,
    "epochs": _epochs,
    "training": _training,
    "training images/s": _train_speed,
    "inference images/s": _speed,
    "latency p50 / p99": _latency,
    "SavedModel": _saved_model,
}


def winners(cards: Sequence[Card]) -> Table:
    """Who won ILSVRC, and which of the networks are of that family."""
    return of_texts(
        "winners",
        "ILSVRC's classification task: top-5 error over the test images, as its organisers "
        "published it",
        [
            "year",
            "place",
            "team",
            "method",
            "top-5 error",
            "with more images",
            "of its family",
            "source",
        ],
        [
            [
                str(entry.year),
                str(entry.place),
                entry.team,
                entry.method,
                f"{entry.top5_error:.1f}%",
                f"{entry.top5_error_with_more:.1f}%" if entry.top5_error_with_more else "-",
                ", ".join(dict.fromkeys(card.name for card in cards if entry.has(card))) or "-",
                entry.source,
            ]
            for entry in ENTRIES
        ],
    )


def stages(done: Sequence[tuple[str, StageRecord]]) -> Table:
    """What was done to which folder, when, how long, and by which command."""
    return of_texts(
        "stages",
        "Where the time went, as the stages themselves logged it",
        ["folder", "stage", "began (UTC)", "wall s", "CPU s", "ended", "command"],
        [
            [
                name,
                each.stage,
                each.began.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
                "-" if each.wall_s is None else f"{each.wall_s:.1f}",
                "-" if each.cpu_s is None else f"{each.cpu_s:.1f}",
                each.ended or "killed or under way",
                each.command,
            ]
            for name, each in done
        ],
    )


def recipes(runs: Sequence[Known]) -> Table:
    """The fields in which a run differs from the defaults, and those of all runs there."""
    given = [_recipe(known.config) for known in runs]
    usual = [_recipe(_default(known.config.network)) for known in runs]
    fields = [
        field
        for field in given[0]
        if any(one[field] != other[field] for one, other in zip(given, usual, strict=True))
    ]
    return of_texts(
        "recipes",
        "Recipes: the fields in which a run differs from the defaults",
        ["field", *(known.name for known in runs)],
        [[field, *(told(of_run[field]) for of_run in given)] for field in fields],
    )


def shared(runs: Sequence[Known]) -> dict[str, Any]:
    """The fields of the recipe that are the same in all runs, by name."""
    first, *others = (_recipe(known.config) for known in runs)
    return {
        field: value
        for field, value in first.items()
        if all(other[field] == value for other in others)
    }


def differs(known: Known) -> list[tuple[str, str, str]]:
    """Fields of a run's recipe, their values, and the defaults that they differ from."""
    given, usual = _recipe(known.config), _recipe(_default(known.config.network))
    return [
        (field, told(value), told(usual[field]))
        for field, value in given.items()
        if value != usual[field]
    ]


def _recipe(config: TrainConfig) -> dict[str, Any]:
    return {field: value for field, value in flat(config).items() if field not in _PLACES}


@cache
def _default(network: str) -> TrainConfig:
    return parse(TrainConfig, ["--data", "data", "--network", network])


def told(value: Any) -> str:
    """A value of a config as a person writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
