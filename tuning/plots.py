"""Two pictures of a search: what was chosen, and how the best came about."""

import itertools
import math
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tuning.records import Field, Records, Trial

# Each is seen on a white page and on a black one.
_WORST, _BEST, _OTHER = "#4299e1", "#dd6b20", "#718096"
_COLOURS = LinearSegmentedColormap.from_list("top1", [_WORST, _BEST])
_LEGEND = "whole lines: all {} epochs, the best of them thick; dashed: fewer"
# Where a line goes, below an axis from 0 to 1, for a field that was not in play.
_ABSENT = -0.12


def parallel_coordinates(records: Records) -> Figure:
    """A line for each completed trial across an axis for each field, coloured by its top-1.

    Trials that were given fewer epochs than others are dashed.
    """
    names = records.varying
    figure = Figure(figsize=(max(7, 1.7 * (len(names) + 1)), 4.6), layout="constrained")
    axes = figure.subplots()
    worst_first = sorted(records.ranking, key=attrgetter("top1"))
    low, high = worst_first[0].top1, worst_first[-1].top1
    top1 = Field(log=False, low=low, high=high if high > low else low + 1, choices=())
    for trial in worst_first:
        places = [_place(records.fields[name], trial.values.get(name)) for name in names]
        height = _place(top1, trial.top1)
        axes.plot(
            [*places, height],
            color=_COLOURS(height),
            linestyle="-" if records.is_full(trial) else (0, (4, 3)),
            linewidth=3 if trial is records.best else 1.4,
            alpha=1 if records.is_full(trial) else 0.7,
        )
    for place, name in enumerate(names):
        _axis(axes, place, _ticks(records.fields[name]))
    _axis(axes, len(names), _ticks(top1))
    heads = [*(name.replace(".", ".\n") for name in names), "top-1"]
    axes.set_xticks(range(len(heads)), heads)
    axes.tick_params(length=0)
    axes.set(yticks=[], ylim=(_ABSENT - 0.02, 1.08), xlim=(-0.3, len(names) + 0.3))
    axes.spines[:].set_visible(False)
    axes.set_title(_LEGEND.format(records.config.train.epochs), fontsize=9, loc="right")
    return figure


def top1_over_epochs(records: Records) -> Figure:
    """Each trial where it ended on the way of all epochs trained; the best so far as steps."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots()
    spent = list(itertools.accumulate(trial.own_epochs for trial in records.trials))
    ended = [(at, trial) for at, trial in zip(spent, records.trials, strict=True)]
    completed = [(at, trial) for at, trial in ended if trial.status == "completed"]
    full = [(at, trial) for at, trial in completed if records.is_full(trial)]
    fewer = [(at, trial) for at, trial in completed if not records.is_full(trial)]
    _points(axes, fewer, f"fewer than {records.config.train.epochs} epochs", "none")
    _points(axes, full, f"{records.config.train.epochs} epochs", _OTHER)
    if full:
        at, trials = zip(*full, strict=True)
        best = np.maximum.accumulate([trial.top1 for trial in trials])
        axes.step(
            [*at, spent[-1]], [*best, best[-1]], where="post", color=_BEST, label="best of those"
        )
    if failed := [at for at, trial in ended if trial.status == "failed"]:
        axes.plot(
            failed,
            np.full(len(failed), 0.02),
            "x",
            color=_OTHER,
            transform=axes.get_xaxis_transform(),
            label="failed",
        )
    axes.set(xlabel="epochs trained in total", ylabel="top-1")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper right", ncols=4)
    return figure


def _points(axes: Axes, points: list[tuple[int, Trial]], label: str, inside: str) -> None:
    axes.plot(
        [at for at, _ in points],
        [trial.top1 for _, trial in points],
        "o",
        color=_OTHER,
        markerfacecolor=inside,
        label=label if points else None,
    )


def _place(field: Field, value: Any) -> float:
    """Where a value stands on the field's axis, which goes from 0 to 1 over all that may be."""
    if value is None:
        return _ABSENT
    if field.choices:
        return field.choices.index(value) / max(1, len(field.choices) - 1)
    scale = math.log if field.log else float
    return (scale(value) - scale(field.low)) / (scale(field.high) - scale(field.low))


def _ticks(field: Field) -> dict[str, float]:
    """The labels along a field's axis, and where they stand: every choice, or both ends."""
    marked = field.choices or (field.low, field.high)
    texts = map(str, marked) if field.choices else (f"{value:.3g}" for value in marked)
    return {text: _place(field, value) for text, value in zip(texts, marked, strict=True)}


def _axis(axes: Axes, place: int, ticks: dict[str, float]) -> None:
    """An axis of its own at a place; its ends are told beyond them, where no line passes."""
    axes.vlines(place, 0, 1, color=_OTHER, linewidth=0.8, zorder=0)
    for text, at in ticks.items():
        beyond = {0: (0, -9), 1: (0, 9)}.get(at, (18, 0))
        axes.annotate(
            text,
            (place, at),
            xytext=beyond,
            textcoords="offset points",
            fontsize=8,
            ha="center",
            va="center",
        )
