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
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator
from matplotlib.transforms import Bbox

from keras_zoo.ilsvrc import ENTRIES, Entry
from keras_zoo.registry import Card

SUFFIXES = (".svg", ".png")

_INK = "#2b2f36"
_FAINT = "#7d848d"
_GRID = "#e4e7ea"
_BAR = "#b9c1ca"

_SIZE_INCHES = (12.0, 7.0)
_PUBLISHED = "top-1 of ImageNet, %, as published"

# Parameters for a square point of a bubble's area.
_PARAMETERS_PT2 = 1e5

# Told apart by people who see colours differently, too.
FAMILY_COLORS = {
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
    figure, axes = _axes("The zoo in time", _PUBLISHED, rows, _SIZE_INCHES)
    best = -math.inf
    for year, group in groupby(rows, key=lambda card: card.year):
        of_year = list(group)
        labels = _spread([card.published.top1 for card in of_year], 0.72)
        for card, label in zip(of_year, labels, strict=True):
            color = FAMILY_COLORS[card.family]
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


def winners(cards: Sequence[Card]) -> Figure:
    """The top-5 error that won ILSVRC in each year, and those of networks beside it.

    Bars are entries of `keras_zoo.ilsvrc`, in the colour of a network's family where one is of
    theirs; points are the networks, as published, in the years of their papers.

    Args:
        cards: the networks; those without a paper or a published accuracy are left out.
    """
    rows = [card for card in cards if card.year and card.published]
    figure, axes = _axes(
        "ILSVRC, 2010 to 2017", "top-5 error of ImageNet, %, as published", rows, (11.0, 5.2)
    )
    axes.grid(False, axis="x")
    years = {
        year: list(entries) for year, entries in groupby(ENTRIES, key=lambda entry: entry.year)
    }
    for year, entries in years.items():
        for number, entry in enumerate(entries):
            family = next((card.family for card in rows if entry.has(card)), None)
            x = year + 0.24 * (number - (len(entries) - 1) / 2)
            axes.bar(x, entry.top5_error, 0.22, color=FAMILY_COLORS.get(family, _BAR))
            value = f"{entry.top5_error:.1f}"
            axes.text(x, entry.top5_error + 0.3, value, size=8.5, ha="center", color=_INK)
    for _, group in groupby(sorted(rows, key=_year_and_error), key=lambda card: card.year):
        of_year = list(group)
        errors = [100 - card.published.top5 for card in of_year]
        for card, error, label in zip(of_year, errors, _spread(errors, 1.05), strict=True):
            color, x = FAMILY_COLORS[card.family], card.year + 0.3
            axes.plot((x, x + 0.08), (error, label), color=color, linewidth=0.7)
            axes.plot(x, error, "o", color=color, markersize=7, zorder=3)
            axes.text(x + 0.09, label, card.name, size=8.5, color=_INK, va="center")
    names = ["\n".join([str(year), *map(_short, entries)]) for year, entries in years.items()]
    axes.set_xticks(list(years), names, size=8.5)
    axes.set(xlim=(min(years) - 0.5, max(years) + 0.9), ylim=(0, None))
    return figure


def _year_and_error(card: Card) -> tuple[int, float]:
    return card.year, 100 - card.published.top5


def _short(entry: Entry) -> str:
    """`AlexNet`, or the team where the method has no name of its own."""
    name = entry.team if entry.networks is None else entry.method
    return name if entry.place == 1 else f"{name}, place {entry.place}"


def quadrant(
    cards: Sequence[Card],
    measure: str = _PUBLISHED,
    size_inches: tuple[float, float] = _SIZE_INCHES,
) -> Figure:
    """Top-1 accuracy against compute; the area of a bubble is the parameters.

    Args:
        cards: the networks, their accuracy being that of `published`.
        measure: what the accuracy is.
        size_inches: width and height.

    Raises:
        ValueError: as `timeline`.
    """
    rows = _published(cards)
    figure, axes = _axes("Accuracy against compute", measure, rows, size_inches)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.set_xlabel("GMACs for one image (logarithmic); area of a bubble: parameters", color=_FAINT)
    for axis_format in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis_format(FuncFormatter(lambda value, _: f"{value:g}"))
    for card in sorted(rows, key=lambda card: -card.parameters):
        axes.scatter(
            card.gmacs,
            card.published.top1,
            s=card.parameters / _PARAMETERS_PT2,
            color=FAMILY_COLORS[card.family],
            alpha=0.55,
            edgecolor="white",
        )
        # Seen however small the network is.
        axes.plot(card.gmacs, card.published.top1, ".", color=FAMILY_COLORS[card.family], ms=3)
    axes.margins(0.14, 0.1)
    # Names go where bubbles are not, which is known once the axes are.
    axes.autoscale_view()
    axes.set_ylim(top=min(100, axes.get_ylim()[1]))
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


def _axes(
    title: str, measure: str, cards: Sequence[Card], size_inches: tuple[float, float]
) -> tuple[Figure, Axes]:
    """Empty axes under a title, what they measure, and a legend of the cards' families."""
    width, height = size_inches
    figure = Figure(figsize=size_inches, facecolor="white")
    axes = figure.add_axes((0.72 / width, 0.63 / height, 1 - 0.96 / width, 1 - 1.54 / height))
    left = 0.72 / width
    figure.text(left, 1 - 0.36 / height, title, size=18, weight="bold", color=_INK)
    # Names of folders may have dollar signs.
    figure.text(left, 1 - 0.6 / height, measure, size=10.5, color=_FAINT, parse_math=False)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(which="both", length=0, labelcolor=_FAINT)
    families = dict.fromkeys(card.family for card in cards)
    axes.legend(
        handles=[
            Line2D([], [], marker="o", ls="", color=FAMILY_COLORS[name], markersize=7, label=name)
            for name in families
        ],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=max(1, len(families)),
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
            parse_math=False,
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
