"""Charts: the zoo in time, its accuracy against its compute, what a first layer looks for.

Each function gives a matplotlib figure; nothing is shown on a screen and no global state is kept.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter
from matplotlib.transforms import Bbox

from keras_zoo.registry import Card

SUFFIXES = (".svg", ".png")

_INK = "#2b2f36"
_FAINT = "#7d848d"
_GRID = "#e4e7ea"

# Parameters for a square point of a bubble's area.
_PARAMETERS_PT2 = 1e5

# Told apart by people who see colours differently, too.
_FAMILY_COLORS = {
    "simple_cnn": "#7d848d",
    "alexnet": "#c0392b",
    "zfnet": "#d98880",
    "vgg": "#ee8f3a",
    "googlenet": "#2e8b63",
    "inception_v3": "#8fc93a",
    "resnet": "#2f6fb0",
    "resnet_v1": "#7fb2dd",
    "resnet_v2": "#8e5ea2",
}


def check_path(path: Path) -> None:
    """Raises a ValueError unless `save` can write there: an SVG or PNG in a folder there is."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} does not end in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} for {path.name}; make it first")


def save(figure: Figure, path: Path) -> None:
    """Writes the figure whole, as SVG or PNG by the suffix of `path`; equal figures, equal bytes.

    Raises:
        ValueError: another suffix, or no such folder.
    """
    check_path(path)
    part = path.with_name(f".{path.name}.part")
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "keras_zoo"}):
        figure.savefig(part, format=path.suffix[1:], dpi=150, metadata=metadata)
    part.replace(path)


def timeline(cards: Sequence[Card]) -> Figure:
    """Published top-1 accuracy over the year of the paper, and the best so far.

    Raises:
        ValueError: none of the cards has a published accuracy; those that have none are left out.
    """
    rows = sorted(_published(cards), key=lambda card: (card.year, card.published.top1))
    figure, axes = _axes("The zoo in time", rows)
    best = -math.inf
    for year, group in groupby(rows, key=lambda card: card.year):
        of_year = list(group)
        labels = _spread([card.published.top1 for card in of_year], 0.72)
        for card, label in zip(of_year, labels, strict=True):
            color = _FAMILY_COLORS[card.family]
            axes.plot((year, year + 0.09), (card.published.top1, label), color=color, linewidth=0.7)
            axes.plot(year, card.published.top1, "o", color=color, markersize=7, zorder=3)
            name = axes.text(year + 0.1, label, card.name, size=8.5, color=_INK, va="center")
            name.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        if of_year[-1].published.top1 > best:
            best = of_year[-1].published.top1
            axes.plot((year, year + 1), (best, best), color=_FAINT, linewidth=1, linestyle=":")
    first, last = rows[0].year, rows[-1].year
    axes.xaxis.set_major_locator(FixedLocator(range(first, last + 1)))
    axes.set_xlim(first - 0.4, last + 1)
    return figure


def quadrant(cards: Sequence[Card]) -> Figure:
    """Published top-1 accuracy against compute; the area of a bubble is the parameters.

    Raises:
        ValueError: as `timeline`.
    """
    rows = _published(cards)
    figure, axes = _axes("Accuracy against compute", rows)
    axes.set_xscale("log")
    axes.set_xlabel("GMACs for one image (logarithmic); area of a bubble: parameters", color=_FAINT)
    for axis_format in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis_format(FuncFormatter(lambda value, _: f"{value:g}"))
    for card in sorted(rows, key=lambda card: -card.parameters):
        axes.scatter(
            card.gmacs,
            card.published.top1,
            s=card.parameters / _PARAMETERS_PT2,
            color=_FAMILY_COLORS[card.family],
            alpha=0.55,
            edgecolor="white",
        )
    axes.margins(0.14, 0.1)
    _label(axes, rows)
    return figure


def filters(kernel: np.ndarray, title: str) -> Figure:
    """The filters of a first convolution as pictures of what each answers most to.

    Args:
        kernel: float32 `(h, w, C, F)`; C is 1 or 3, red first.
        title: above them.
    """
    picture = mosaic(kernel)
    height, width = picture.shape[:2]
    figure = Figure(figsize=(9, 0.7 + 8.6 * height / width), facecolor="white")
    figure.suptitle(title, x=0.02, y=0.99, ha="left", va="top", size=12, color=_INK)
    inches = figure.get_figheight()
    axes = figure.add_axes((0.02, 0.1 / inches, 0.96, 1 - 0.6 / inches))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    return figure


def mosaic(kernel: np.ndarray) -> np.ndarray:
    """`(h, w, C, F)` -> `(H, W, C)` in [0, 1]: the filters side by side, row after row.

    Grey, 0.5, is a weight of zero, and each filter is as bright as its largest weight allows. White
    lines of one pixel stand between them.
    """
    height, width, channels, count = kernel.shape
    columns = math.ceil(math.sqrt(2 * count))
    rows = math.ceil(count / columns)
    picture = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, channels))
    largest = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)), np.finfo(np.float32).tiny)
    for number, tile in enumerate(np.moveaxis(0.5 + kernel / (2 * largest), -1, 0)):
        top, left = (number // columns) * (height + 1), (number % columns) * (width + 1)
        picture[top : top + height, left : left + width] = tile
    return picture


def _published(cards: Sequence[Card]) -> list[Card]:
    rows = [card for card in cards if card.published]
    if not rows:
        raise ValueError("nothing to draw: no published accuracy for any of these networks")
    return rows


def _axes(title: str, cards: Sequence[Card]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(12, 7), facecolor="white")
    axes = figure.add_axes((0.06, 0.09, 0.92, 0.78))
    figure.text(0.06, 0.945, title, size=18, weight="bold", color=_INK)
    figure.text(0.06, 0.905, "top-1 of ImageNet, %, as published", size=10.5, color=_FAINT)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(which="both", length=0, labelcolor=_FAINT)
    families = dict.fromkeys(card.family for card in cards)
    for family in families:
        axes.plot([], [], "o", color=_FAMILY_COLORS[family], markersize=7, label=family)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.015),
        ncols=len(families),
        frameon=False,
        fontsize=9,
        handletextpad=0.1,
        columnspacing=1.2,
        labelcolor=_INK,
    )
    return figure, axes


def _spread(values: list[float], gap: float) -> list[float]:
    """The ascending values moved apart to at least `gap`, around where they were."""
    heaps: list[list[float]] = []
    for value in values:
        heaps.append([value])
        while len(heaps) > 1 and _edge(heaps[-2], gap, 1) + gap > _edge(heaps[-1], gap, -1):
            last = heaps.pop()
            heaps[-1] += last
    return [
        sum(heap) / len(heap) + gap * (index - (len(heap) - 1) / 2)
        for heap in heaps
        for index in range(len(heap))
    ]


def _edge(heap: list[float], gap: float, side: int) -> float:
    """The highest (`side` 1) or lowest (-1) place of a heap of values spread around its mean."""
    return sum(heap) / len(heap) + side * gap * (len(heap) - 1) / 2


def _label(axes: Axes, cards: Sequence[Card]) -> None:
    """Names each bubble at the first place around it where no other name or bubble is."""
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    frame = axes.get_window_extent(renderer)
    taken = [_core(axes, card) for card in cards]
    for card in sorted(cards, key=lambda card: card.parameters):
        radius_pt = _radius_pt(card)
        name = axes.annotate(
            card.name,
            (card.gmacs, card.published.top1),
            xytext=(0, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
            color=_INK,
            arrowprops={
                "arrowstyle": "-",
                "color": _FAINT,
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": radius_pt,
            },
            zorder=4,
        )
        for x, y in _places(radius_pt):
            name.set(position=(x, y), ha="left" if x > 0 else "right")
            name.update_positions(renderer)
            # Of the words alone: an annotation's own extent holds its line, too.
            box = Text.get_window_extent(name, renderer)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _radius_pt(card: Card) -> float:
    return math.sqrt(card.parameters / _PARAMETERS_PT2 / math.pi)


def _core(axes: Axes, card: Card) -> Bbox:
    """The square within a bubble, in pixels of the figure."""
    x, y = axes.transData.transform((card.gmacs, card.published.top1))
    half = _radius_pt(card) * math.sqrt(0.5) * axes.figure.dpi / 72
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _places(radius_pt: float) -> Iterator[tuple[float, float]]:
    """Offsets from the middle of a bubble: right and left of it, aslant, ever farther."""
    for distance_pt in range(3, 80, 6):
        for degrees in (0, 180, 25, -25, 155, -155, 50, -50, 130, -130, 75, -75, 105, -105):
            angle, reach = math.radians(degrees), radius_pt + distance_pt
            yield reach * math.cos(angle), reach * math.sin(angle)
