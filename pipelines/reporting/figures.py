"""Figures of a comparison: each of matplotlib's; nothing is shown on a screen."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_zoo import charts
from keras_zoo.drawing import architecture
from keras_zoo.registry import Published
from pipelines.reporting.known import Known

_SIZE_INCHES = (5.4, 3.5)
_QUADRANT_INCHES = (6.2, 4.7)
# A line of a second each would be drawn finer than a screen shows.
_POINTS = 120
# How many times as high as the lowest value the highest is, where an axis becomes logarithmic.
_NEARLY_ZERO = 0.5
_WIDE = 20


class Look(NamedTuple):
    """How a run is drawn wherever it is: the colour of its family, and a mark of its own.

    Args:
        color: as matplotlib and CSS write it.
        line: matplotlib's style.
        mark: matplotlib's marker.
        sign: the marker as a character.
    """

    color: str
    line: str
    mark: str
    sign: str


# For the first run of a family, its second, ...
_MARKS = (("-", "o", "●"), ("--", "s", "■"), (":", "^", "▲"), ("-.", "D", "◆"))


def looks(runs: Sequence[Known]) -> dict[str, Look]:
    """By the names of the runs."""
    seen: Counter[str] = Counter()
    chosen = {}
    for known in runs:
        family = known.card.family
        chosen[known.name] = Look(charts.FAMILY_COLORS[family], *_MARKS[seen[family] % len(_MARKS)])
        seen[family] += 1
    return chosen


def curve(runs: Sequence[Known], column: str, label: str) -> Figure:
    """A column of `history.csv` over the epochs."""
    figure, axes = _axes()
    for known, look in _with_looks(runs):
        epochs = [each["epoch"] for each in known.history]
        values = [each[column] for each in known.history]
        _line(axes, known.name, epochs, values, look, look.mark)
    if _is_wide(axes):
        axes.set_yscale("log")
        label = f"{label} (logarithmic)"
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def throughput(runs: Sequence[Known]) -> Figure:
    """Images a second while training, over the time that training took."""
    return _paces(runs, lambda pace: pace.images_per_s, "images/s")


def input_wait(runs: Sequence[Known]) -> Figure:
    """The share of the time in which training waited for images."""
    return _paces(runs, lambda pace: pace.input_wait_percent, "waiting for images, %")


class Pace(NamedTuple):
    """How fast a run was: means over up to `_POINTS` stretches of its training.

    Args:
        minutes: of training at the end of each stretch.
        images_per_s: in it.
        input_wait_percent: of it, in which the devices waited for images.
    """

    minutes: np.ndarray
    images_per_s: np.ndarray
    input_wait_percent: np.ndarray


def pace(known: Known) -> Pace:
    """From the lines of about a second each that `log.jsonl` has."""
    steps = np.array([line["step"] for line in known.steps])
    images = np.diff(steps, prepend=0) * known.config.global_batch_size
    seconds = images / np.array([line["images_per_s"] for line in known.steps])
    waited = seconds * np.array([line["input_wait_share"] for line in known.steps])
    starts = np.unique(np.linspace(0, len(steps), _POINTS, endpoint=False).astype(int))
    images, seconds, waited = (
        np.add.reduceat(column, starts) for column in (images, seconds, waited)
    )
    return Pace(np.cumsum(seconds) / 60, images / seconds, 100 * waited / seconds)


def measured_quadrant(runs: Sequence[Known], measure: str) -> Figure:
    """Accuracy as evaluated against multiply-accumulates as built, of runs that have both."""
    cards = [
        dataclasses.replace(
            known.card,
            name=known.name,
            parameters=known.blueprint.parameters,
            gmacs=known.blueprint.macs / 1e9,
            published=Published(100 * known.evaluated["top1"], 100 * known.evaluated["top5"], ""),
        )
        for known in runs
    ]
    return charts.quadrant(cards, measure, _QUADRANT_INCHES)


def published_quadrant(runs: Sequence[Known]) -> Figure:
    """The same as published, each network once."""
    cards = {known.card.name: known.card for known in runs if known.card.published}
    measure = "published: top-1 of ImageNet at the network's own size, %"
    return charts.quadrant(list(cards.values()), measure, _QUADRANT_INCHES)


def drawn(known: Known) -> Figure:
    """The network as the run built it."""
    card = dataclasses.replace(
        known.card,
        input=known.config.input,
        parameters=known.blueprint.parameters,
        gmacs=known.blueprint.macs / 1e9,
        published=None,
    )
    return architecture(known.blueprint.chain, card)


def _paces(runs: Sequence[Known], column: Callable[[Pace], np.ndarray], label: str) -> Figure:
    figure, axes = _axes()
    for known, look in _with_looks(runs):
        paced = pace(known)
        _line(
            axes,
            known.name,
            paced.minutes,
            column(paced),
            look,
            "o" if len(paced.minutes) == 1 else "",
        )
    axes.set(xlabel="minutes of training", ylabel=label, ylim=(0, None), xlim=(0, None))
    return figure


def _with_looks(runs: Sequence[Known]) -> list[tuple[Known, Look]]:
    chosen = looks(runs)
    return [(known, chosen[known.name]) for known in runs]


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e7ea", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _is_wide(axes: Axes) -> bool:
    """Whether the highest value drawn would flatten the others, and none is nearly zero."""
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    return drawn.min() > _NEARLY_ZERO and drawn.max() > _WIDE * drawn.min()


def _line(
    axes: Axes, name: str, x: Sequence[float], y: Sequence[float], look: Look, mark: str
) -> None:
    axes.plot(
        x, y, look.line, color=look.color, marker=mark, markersize=5, linewidth=1.8, label=name
    )
