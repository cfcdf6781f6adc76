"""The inspect stage: what is in a prepared data set, and what a network will see of it."""

import dataclasses
import io
from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds
from matplotlib.figure import Figure
from PIL import Image

from pipelines import atomic
from pipelines.config import InspectConfig, TrainConfig
from pipelines.data.streams import (
    class_names,
    evaluation_stream,
    num_images,
    open_dataset,
    training_stream,
)
from pipelines.reporting.page import page, picture, png, sections, table
from pipelines.reporting.text import aligned, first_name

_COLUMNS = 8
_CELL_IN = 1.35
_LABEL_CHARACTERS = 20
_BLUE, _GREY = "#2b6cb0", "#4a5568"


@dataclass(frozen=True)
class Measured:
    """Sizes and labels of a split's sample, one number an image.

    Args:
        images: in the split.
        width_px, height_px, kib, label: `(N,)` of those measured.
    """

    images: int
    width_px: np.ndarray
    height_px: np.ndarray
    kib: np.ndarray
    label: np.ndarray

    @property
    def short_side_px(self) -> np.ndarray:
        return np.minimum(self.width_px, self.height_px)

    @property
    def aspect(self) -> np.ndarray:
        return self.width_px / self.height_px


@dataclass(frozen=True)
class SplitSummary:
    """A row of the report.

    Args:
        images: in the split.
        measured: of them, those that the other numbers are about.
        classes: that occur.
        median_width_px, median_height_px, median_kib: of an image.
        smallest_side_px: the shortest side of any.
        least, most: images in the rarest and the commonest class.
    """

    images: int
    measured: int
    classes: int
    median_width_px: int
    median_height_px: int
    smallest_side_px: int
    median_kib: float
    least: int
    most: int


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found, and where it can be seen."""

    data: str
    classes: int
    splits: dict[str, SplitSummary]
    page: str
    grid: str

    def __str__(self) -> str:
        heads = ("split", *(field.name for field in dataclasses.fields(SplitSummary)))
        rows = [heads, *((name, *dataclasses.astuple(row)) for name, row in self.splits.items())]
        return "\n".join(
            [
                f"{self.data}: {self.classes} classes",
                aligned([[_told(cell) for cell in row] for row in rows]),
                f"see {self.page}; the grid alone is {self.grid}",
            ]
        )


def inspect(config: InspectConfig) -> Inspection:
    """Measures a data set and writes a page about it.

    Raises:
        BadInput: no data set, or no such training or validation split.
    """
    dataset = open_dataset(config.data)
    names = class_names(dataset)
    measured = {split: measure(dataset, split, config.sample) for split in dataset.info.splits}
    summaries = {split: _summary(row) for split, row in measured.items()}
    trained, train_labels = training_views(dataset, config)
    evaluated, labels = evaluation_views(dataset, config.train)
    grid = _grid(
        {
            f"training, {config.train.network}, epoch 1": (trained, train_labels),
            f"evaluation, {config.train.validation_split}": (evaluated, labels),
        }
    )
    body = sections(
        [
            ("Splits", _table(summaries)),
            ("Sizes", picture(png(_sizes(measured)))),
            ("Classes", picture(png(_balance(measured, names)))),
            (
                "What the network sees",
                "<p>Images as the streams of training and evaluation give them, in pixels from 0 "
                "to 255: what the network's normalisation starts from.</p>" + picture(png(grid)),
            ),
        ]
    )
    grid_file = config.out.with_suffix(".png")
    with atomic.replacing(grid_file) as partial:
        partial.write_bytes(png(grid))
    atomic.write_text(config.out, page(f"Data set {config.data}", body))
    return Inspection(
        data=str(config.data),
        classes=len(names),
        splits=summaries,
        page=str(config.out),
        grid=str(grid_file),
    )


def measure(dataset: tfds.core.DatasetBuilder, split: str, sample: int) -> Measured:
    """Reads the headers of at most `sample` images of a split, the first on disk."""
    examples = dataset.as_dataset(
        split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
    )
    rows = []
    for example in examples.take(sample).as_numpy_iterator():
        with Image.open(io.BytesIO(example["image"])) as header:
            rows.append((*header.size, len(example["image"]) / 1024, example["label"]))
    width, height, kib, label = np.array(rows).T
    return Measured(
        num_images(dataset, split), width.astype(int), height.astype(int), kib, label.astype(int)
    )


def training_views(
    dataset: tfds.core.DatasetBuilder, config: InspectConfig
) -> tuple[np.ndarray, list[str]]:
    """The first images of the first epoch: uint8 `(N, S, S, C)`, and the class of each.

    Where images are mixed, the label names the two classes with the largest shares.
    """
    count = min(config.grid_images, num_images(dataset, config.train.train_split))
    train = dataclasses.replace(config.train, global_batch_size=count)
    images, targets = next(iter(training_stream(dataset, train, first_epoch=0)))
    names = class_names(dataset)
    labels = []
    for shares in targets.numpy():
        second, first = np.argsort(shares)[-2:] if len(shares) > 1 else (0, 0)
        mixed = second != first and shares[second] > 0
        labels.append(
            f"{shares[first]:.0%} {names[first]} + {names[second]}" if mixed else names[first]
        )
    return images.numpy(), labels


def evaluation_views(
    dataset: tfds.core.DatasetBuilder, train: TrainConfig
) -> tuple[np.ndarray, list[str]]:
    """One row of validation images: uint8 `(N, S, S, C)`, and the class of each."""
    stream = evaluation_stream(dataset, train.validation_split, train.input, _COLUMNS)
    images, labels, mask = (tensor.numpy() for tensor in next(iter(stream)))
    names = class_names(dataset)
    return images[mask], [names[label] for label in labels[mask]]


def _summary(measured: Measured) -> SplitSummary:
    counts = np.unique(measured.label, return_counts=True)[1]
    return SplitSummary(
        images=measured.images,
        measured=len(measured.label),
        classes=len(counts),
        median_width_px=int(np.median(measured.width_px)),
        median_height_px=int(np.median(measured.height_px)),
        smallest_side_px=int(measured.short_side_px.min()),
        median_kib=round(float(np.median(measured.kib)), 1),
        least=int(counts.min()),
        most=int(counts.max()),
    )


def _told(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value).replace("_", " ")


def _table(summaries: dict[str, SplitSummary]) -> str:
    heads = ["split", *(_told(field.name) for field in dataclasses.fields(SplitSummary))]
    rows = [[name, *map(_told, dataclasses.astuple(row))] for name, row in summaries.items()]
    return table(heads, rows)


def _sizes(measured: dict[str, Measured]) -> Figure:
    """Histograms of short side, aspect and file size, over all splits."""
    everything = measured.values()
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    panels = {
        "short side (px)": np.concatenate([m.short_side_px for m in everything]),
        "width / height": np.concatenate([m.aspect for m in everything]),
        "file size (KiB)": np.concatenate([m.kib for m in everything]),
    }
    for axes, (name, values) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        low, high = np.percentile(values, [0.5, 99.5])
        margin = max((high - low) * 0.05, abs(high) * 0.02, 1e-3)
        axes.hist(values, bins=40, range=(low - margin, high + margin), color=_BLUE)
        axes.axvline(np.median(values), color=_GREY, linestyle="--", linewidth=1)
        axes.set_title(f"{name}, median {np.median(values):,.4g}", fontsize=10)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _balance(measured: dict[str, Measured], names: list[str]) -> Figure:
    """Images a class in each split, from the commonest to the rarest."""
    figure = Figure(figsize=(11, 1.9 * len(measured)), layout="constrained")
    rows = figure.subplots(len(measured), 1, squeeze=False)[:, 0]
    for axes, (split, sizes) in zip(rows, measured.items(), strict=True):
        counts = np.bincount(sizes.label, minlength=len(names))
        order = np.argsort(-counts, kind="stable")
        few = len(names) <= 30
        axes.bar(range(len(names)), counts[order], width=0.85 if few else 1.0, color=_BLUE)
        axes.set(xlim=(-0.5, len(names) - 0.5), xticks=[])
        if few:
            axes.set_xticks(
                range(len(names)),
                [first_name(names[label], 14) for label in order],
                rotation=35,
                ha="right",
                fontsize=7,
            )
        most, least = (first_name(names[order[end]], _LABEL_CHARACTERS) for end in (0, -1))
        axes.set_title(
            f"{split}: from {counts[order[0]]:,} ({most}) to {counts[order[-1]]:,} ({least}) "
            "images a class",
            fontsize=10,
        )
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _grid(sections: dict[str, tuple[np.ndarray, list[str]]]) -> Figure:
    """Rows of images under a heading for each section, each with its label."""
    heights = [-(-len(images) // _COLUMNS) for images, _ in sections.values()]
    figure = Figure(
        figsize=(_COLUMNS * _CELL_IN, sum(heights) * (_CELL_IN + 0.22) + 0.4 * len(heights)),
        layout="constrained",
    )
    parts = figure.subfigures(len(sections), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, rows, (title, (images, labels)) in zip(parts, heights, sections.items(), strict=True):
        part.suptitle(title, fontsize=11, x=0.01, ha="left")
        cells = part.subplots(rows, _COLUMNS, squeeze=False).flat
        for axes in cells:
            axes.axis("off")
        for axes, image, label in zip(part.axes, images, labels, strict=False):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
            axes.set_title(first_name(label, _LABEL_CHARACTERS), fontsize=7, pad=2)
    return figure
