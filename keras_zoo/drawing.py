"""Draws the architecture of a network, so that its family is known at a glance."""

import math
from collections import Counter
from collections.abc import Iterable
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path

from keras_zoo.registry import Card
from keras_zoo.structure import Box, Chain, Fork

_INK = "#2b2f36"
_FAINT = "#7d848d"
_PAPER = "#eceff2"

# A colour and a label for each kind of layer; the two directions of a factored kernel share one.
_LAYERS = {
    "image": ("#f7f9fa", "image"),
    (1, 1): ("#9ecae1", "1x1"),
    (1, 3): ("#f9d38c", "1x3, 3x1"),
    (3, 3): ("#ee8f3a", "3x3"),
    (5, 5): ("#4cae7f", "5x5"),
    (1, 7): ("#cdb0db", "1x7, 7x1"),
    (7, 7): ("#8e5ea2", "7x7"),
    (11, 11): ("#c0392b", "11x11"),
    "pool": ("#b3bac2", "pooling"),
    "dense": ("#35557c", "dense"),
    "multiply": ("#d1495b", "gate (squeeze and excitation)"),
}
_OTHER = ("#d9d4c5", "other kernel")

# Widths of what has no channels to show, in units of the root of a channel.
_IMAGE_WIDTH, _POOL_WIDTH, _DENSE_WIDTH, _GATE_WIDTH, _GAP = 2.5, 2.5, 6.0, 2.0, 2.5

# The drawing is 100 units wide; a slab of the image's resolution is as high as this.
_HEIGHT = 20.0
_DEPTH = 0.14
_WIDEST_SCALE = 0.5


def architecture(chain: Chain, card: Card) -> Figure:
    """A network from left to right, by stages of one resolution.

    A slab is a layer: as high as its resolution and as wide as its channels (both as square
    roots), coloured by its kernel. Branches that are concatenated lie above one another in one
    slab, a shortcut is an arc over what it skips, groups are cut apart.
    """
    figure = Figure(figsize=(15, 6.1), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-2, 102), ylim=(-22.8, 19.4), aspect="equal")
    axes.axis("off")
    _Architecture(axes, card).draw(chain)
    return figure


def _width(element: Box | Fork) -> float:
    """In units of the root of a channel."""
    match element:
        case Box("conv"):
            return math.sqrt(element.channels)
        case Box(kind):
            return {"image": _IMAGE_WIDTH, "pool": _POOL_WIDTH, "dense": _DENSE_WIDTH}[kind]
        case Fork("multiply"):
            return _GATE_WIDTH
    return max(map(_chain_width, element.branches))


def _chain_width(chain: Chain) -> float:
    return sum(map(_width, chain))


def _key(element: Box | Fork):
    """The element's key in `_LAYERS`."""
    match element:
        case Box("conv"):
            return tuple(sorted(element.kernel_px))
        case Box(kind):
            return kind
    return element.merge


def _shade(color: str, light: float) -> tuple[float, ...]:
    """The colour mixed with white (`light` above 0) or black (below)."""
    towards = 1.0 if light > 0 else 0.0
    return tuple(part + (towards - part) * abs(light) for part in to_rgb(color))


class _Architecture:
    """Draws on axes of 100 units from left to right, the middle of every slab at height 0."""

    def __init__(self, axes: Axes, card: Card) -> None:
        self.axes = axes
        self.card = card
        self.drawn = Counter()

    def draw(self, chain: Chain) -> None:
        size_px, channels = self.card.input.size_px, self.card.input.num_channels
        chain = (Box("image", None, 1, size_px, channels), *chain)
        widths = [_width(element) + _GAP for element in chain]
        scale = min(_WIDEST_SCALE, 100 / sum(widths))
        self.line_pt = min(0.7, 2.2 * scale)
        x = (100 - scale * sum(widths)) / 2
        self.axes.plot((x, 100 - x), (0, 0), color=_FAINT, linewidth=0.8, zorder=0)
        spans = []
        for element, width in zip(chain, widths, strict=True):
            self._element(element, x, scale * (width - _GAP))
            spans.append((element, x, x + scale * (width - _GAP)))
            x += scale * width
        self._stages(spans[1:])
        self._title()
        self._legend()

    def _element(self, element: Box | Fork, x: float, width: float) -> None:
        match element:
            case Fork("add"):
                self._residual(element, x, width)
            case Fork("concatenate"):
                self._slab(element, x, width, _PAPER)
                height = self._height(element)
                self._stripes(element, x, -height / 2, width, height)
            case _:
                color, _ = _LAYERS.get(_key(element), _OTHER)
                self.drawn[_key(element)] += 1
                self._slab(element, x, width, color)

    def _height(self, element: Box | Fork) -> float:
        if isinstance(element, Box) and element.kind == "dense":
            return _HEIGHT * 0.55 * math.sqrt(element.channels / 4096)
        return max(1.2, _HEIGHT * math.sqrt(element.size_px / self.card.input.size_px))

    def _slab(self, element: Box | Fork, x: float, width: float, color: str) -> None:
        """A cuboid seen a little from above and from the right; one for each of a few groups."""
        height = self._height(element)
        groups = element.groups if isinstance(element, Box) else 1
        towers = groups if groups <= 4 else 1
        each = height / towers
        for tower in range(towers):
            y = -height / 2 + tower * each
            self._cuboid(x, y, width, each * (0.88 if towers > 1 else 1.0), color)
        if groups > towers:
            for cut in range(1, groups):
                y = -height / 2 + height * cut / groups
                self.axes.plot((x, x + width), (y, y), color="white", linewidth=0.35)

    def _cuboid(self, x: float, y: float, width: float, height: float, color: str) -> None:
        depth = _DEPTH * height
        right, top = x + width, y + height
        faces = (
            ([(x, y), (right, y), (right, top), (x, top)], color),
            (
                [(x, top), (right, top), (right + depth, top + depth), (x + depth, top + depth)],
                _shade(color, 0.45),
            ),
            (
                [
                    (right, y),
                    (right + depth, y + depth),
                    (right + depth, top + depth),
                    (right, top),
                ],
                _shade(color, -0.18),
            ),
        )
        for corners, face in faces:
            self.axes.add_patch(
                Polygon(corners, facecolor=face, edgecolor=_INK, linewidth=self.line_pt)
            )

    def _stripes(self, fork: Fork, x: float, y: float, width: float, height: float) -> None:
        """Concatenated branches above one another, as high as the roots of their channels."""
        shares = [math.sqrt(branch[-1].channels) for branch in fork.branches]
        top = y + height
        for branch, share in zip(fork.branches, shares, strict=True):
            stripe = height * share / sum(shares)
            top -= stripe
            left = x
            for element in branch:
                part = width * _width(element) / _chain_width(branch)
                self._cell(element, left, top, part, stripe)
                left += part

    def _cell(self, element: Box | Fork, x: float, y: float, width: float, height: float) -> None:
        if isinstance(element, Fork):
            self._stripes(element, x, y, width, height)
            return
        color, _ = _LAYERS.get(_key(element), _OTHER)
        self.drawn[_key(element)] += 1
        self.axes.add_patch(
            Rectangle((x, y), width, height, facecolor=color, edgecolor="white", linewidth=0.6)
        )

    def _residual(self, fork: Fork, x: float, width: float) -> None:
        """The layers side by side, and an arc over them that carries what the shortcut does."""
        main, shortcut = sorted(fork.branches, key=_chain_width, reverse=True)
        left = x
        for element in main:
            part = width * _width(element) / _chain_width(main)
            self._element(element, left, part)
            left += part
        start = self._top(main[0], x)
        end = self._top(main[-1], x + width)
        peak = max(start[1], end[1]) + 0.8 + 0.56 * width
        curve = Path(
            [start, (start[0], peak), (end[0], peak), end],
            [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
        )
        self.axes.add_patch(PathPatch(curve, fill=False, edgecolor=_INK, linewidth=1.1))
        self.drawn["add"] += 1
        if shortcut:
            color, _ = _LAYERS.get(_key(shortcut[0]), _OTHER)
            side = min(0.9, 0.35 * width)
            corner = (
                (start[0] + end[0] - side) / 2,
                (start[1] + 6 * peak + end[1]) / 8 - side / 2,
            )
            self.axes.add_patch(
                Rectangle(corner, side, side, facecolor=color, edgecolor=_INK, linewidth=0.7)
            )

    def _top(self, element: Box | Fork, x: float) -> tuple[float, float]:
        """Where an arc may stand: at `x`, halfway into the depth of the slab's upper face."""
        height = self._height(element)
        return x + _DEPTH * height / 2, (1 + _DEPTH) * height / 2

    def _stages(self, spans: list[tuple[Box | Fork, float, float]]) -> None:
        """A bracket and a few words beneath what has one resolution."""
        y, ends = -_HEIGHT / 2 - 1.2, [-math.inf, -math.inf]
        for size_px, group in groupby(spans, key=lambda span: span[0].size_px):
            elements, lefts, rights = zip(*group, strict=True)
            self.axes.plot((lefts[0], rights[-1]), (y, y), color=_FAINT, linewidth=1.2)
            title = f"{size_px}x{size_px}"
            words = [title, f"{elements[-1].channels:,} ch", *_contents(elements)]
            half = 0.32 * max(map(len, words))
            center = (lefts[0] + rights[-1]) / 2
            row = 0 if center - half > ends[0] else 1
            ends[row] = center + half
            below = y - 4.4 * row
            self.axes.plot((center, center), (y, below), color=_FAINT, linewidth=0.6)
            self.axes.text(
                center,
                below - 0.5,
                words[0],
                ha="center",
                va="top",
                size=9.5,
                weight="bold",
                color=_INK,
            )
            self.axes.text(
                center,
                below - 1.85,
                "\n".join(words[1:]),
                ha="center",
                va="top",
                size=8.5,
                color=_FAINT,
                linespacing=1.25,
            )

    def _title(self) -> None:
        card = self.card
        self.axes.text(0, 18.6, card.name, size=21, weight="bold", color=_INK, va="top")
        facts = [
            f"{card.parameters / 1e6:.3g} M parameters",
            f"{card.gmacs:.3g} GMACs at {card.input.size_px} px",
        ]
        if card.paper:
            facts.insert(0, f"{card.paper.title}, {card.year}")
        if card.published:
            facts.append(f"top-1 {card.published.top1:.1f}% (published)")
        self.axes.text(0, 15.9, "   ·   ".join(facts), size=10.5, color=_FAINT, va="top")

    def _legend(self) -> None:
        handles = [
            Patch(facecolor=color, edgecolor=_INK, linewidth=0.5, label=label)
            for key, (color, label) in _LAYERS.items()
            if self.drawn[key]
        ]
        if self.drawn["add"]:
            handles.append(Line2D([], [], color=_INK, linewidth=1.3, label="shortcut"))
        legend = self.axes.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.014, 0.005),
            ncols=len(handles),
            frameon=False,
            fontsize=9,
            handlelength=1.1,
            columnspacing=1.6,
        )
        for text in legend.get_texts():
            text.set_color(_INK)


_NOUNS = {"add": "blocks", "concatenate": "modules", "conv": "conv", "dense": "dense"}


def _contents(elements: Iterable[Box | Fork]) -> list[str]:
    """What a stage is made of, in words: `3 blocks`."""
    counts = Counter(
        element.merge if isinstance(element, Fork) else element.kind for element in elements
    )
    return [
        f"{counts[kind]} {noun.removesuffix('s') if counts[kind] == 1 else noun}"
        for kind, noun in _NOUNS.items()
        if counts[kind]
    ]
