"""Pictures of an evaluation: each a figure of matplotlib's; nothing is shown on a screen."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from pipelines.evaluation.metrics import Bin, ClassAccuracy, Mistake
from pipelines.reporting.text import first_name

_INK, _FAINT, _BLUE, _ORANGE = "#2b2f36", "#7d848d", "#2f6fb0", "#dd6b20"
# From nothing at all, which is right on any page.
_SHARES = LinearSegmentedColormap.from_list("shares", ["#2f6fb000", "#2f6fb0ff"])
# More names than these cannot be read beside one another.
_NAMED_CLASSES = 60
_NAME_CHARACTERS = 28
_THUMBNAIL_INCHES = 1.25
_CAPTION_INCHES = 2.8


def reliability(bins: Sequence[Bin], calibration_error: float) -> Figure:
    """Accuracy over confidence, and below how many images are of each confidence.

    Niculescu-Mizil and Caruana, "Predicting Good Probabilities with Supervised Learning", ICML
    2005. On the diagonal, an answer given with 70% is right 70 times of a hundred.
    """
    figure = Figure(figsize=(5.4, 6.2), layout="constrained")
    accuracy, images = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [each for each in bins if each.n]
    for each in filled:
        accuracy.bar(
            each.low, each.accuracy, each.high - each.low, align="edge", color=_BLUE, edgecolor="w"
        )
    accuracy.plot((0, 1), (0, 1), color=_FAINT, linestyle="--", linewidth=1)
    accuracy.plot(
        [each.confidence for each in filled],
        [each.accuracy for each in filled],
        "o",
        color=_ORANGE,
        clip_on=False,
        label="mean confidence",
    )
    accuracy.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    accuracy.set_title(f"expected calibration error {calibration_error:.4f}", loc="left", size=11)
    accuracy.legend(loc="upper left", frameon=False)
    widths = [each.high - each.low for each in bins]
    images.bar(
        [each.low for each in bins],
        [each.n for each in bins],
        widths,
        align="edge",
        color=_FAINT,
        edgecolor="w",
    )
    images.set(xlabel="confidence: probability of the answer", ylabel="images")
    _plain(accuracy, images)
    return figure


def accuracy_by_class(classes: Sequence[ClassAccuracy], top1: float) -> Figure:
    """A bar for each class that has images, the best first, with 95% confidence intervals."""
    ranked = sorted((each for each in classes if each.n), key=lambda each: -each.accuracy)
    named = len(ranked) <= _NAMED_CLASSES
    figure = Figure(figsize=(8, 1.2 + (0.24 * len(ranked) if named else 8)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(ranked))
    values = np.array([each.accuracy for each in ranked])
    axes.barh(places, values, height=0.72 if named else 1, color=_BLUE)
    if named:
        reach = np.abs(np.array([each.interval for each in ranked]) - values[:, np.newaxis]).T
        axes.errorbar(values, places, xerr=reach, fmt="none", ecolor=_INK, elinewidth=0.8)
        axes.set_yticks(places, [_short(each.name) for each in ranked])
    else:
        axes.set(ylabel="classes", yticks=[])
    axes.axvline(top1, color=_ORANGE, linewidth=1.2, label=f"top-1 of all, {top1:.4f}")
    axes.set(xlabel="accuracy", xlim=(0, 1), ylim=(len(ranked) - 0.5, -0.5))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    _plain(axes)
    return figure


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Images by label (row) and answer (column), each row as shares of its images."""
    named = len(class_names) <= _NAMED_CLASSES
    side = 3.2 + (0.24 * len(class_names) if named else 6)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap=_SHARES, vmin=0, vmax=1, interpolation="nearest")
    if named:
        names = [_short(name) for name in class_names]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="label")
    axes.tick_params(length=0, labelsize=8)
    figure.colorbar(picture, shrink=0.6, label="share of the label's images")
    return figure


def mistakes(pairs: Sequence[Mistake], pictures: dict[str, np.ndarray]) -> Figure:
    """Examples of each pair of classes that are confused, as the network saw them.

    Args:
        pairs: at least one.
        pictures: uint8 `(S, S, C)` by the name of the image.
    """
    columns = max(len(pair.examples) for pair in pairs)
    figure = Figure(
        figsize=(_CAPTION_INCHES + columns * _THUMBNAIL_INCHES, len(pairs) * _THUMBNAIL_INCHES),
        layout="constrained",
    )
    grid = figure.subplots(
        len(pairs),
        columns + 1,
        squeeze=False,
        width_ratios=[_CAPTION_INCHES / _THUMBNAIL_INCHES, *[1] * columns],
    )
    for row, pair in zip(grid, pairs, strict=True):
        told = f"{_short(pair.label)}\ntaken for {_short(pair.answer)}\n{pair.images} of {pair.of}"
        row[0].text(0, 0.5, told, va="center", size=10, color=_INK)
        for axes, name in zip(row[1:], pair.examples, strict=False):
            axes.imshow(pictures[name], cmap="gray", vmin=0, vmax=255)
        for axes in row:
            axes.set_axis_off()
    return figure


def _plain(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)


def _short(name: str) -> str:
    """The first of a class's names, on a short line that is no formula to matplotlib."""
    return first_name(name, _NAME_CHARACTERS).replace("$", r"\$")
