"""The evaluation stage: every image of a split once, and how well a network does on them."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds

from keras_zoo import InputSpec
from pipelines import atomic
from pipelines.config import EvaluateConfig
from pipelines.data.images import evaluation_image
from pipelines.data.streams import (
    class_names,
    encoded_images,
    evaluation_stream,
    names_and_labels,
    num_images,
    open_dataset,
)
from pipelines.errors import BadInput
from pipelines.evaluation.classifiers import Classifier, open_classifier
from pipelines.evaluation.files import write_files, write_mistakes
from pipelines.evaluation.metrics import (
    Bin,
    Figures,
    Interval,
    Mistake,
    calibration,
    most_confused,
)
from pipelines.evaluation.predictions import Answers, answers
from pipelines.evaluation.real_labels import RealAccuracy, measure_real, real_labels
from pipelines.reporting.text import aligned, first_name
from pipelines.stage_log import logged
from pipelines.training.run import require_same_classes

CONFUSED_PAIRS = 10
_SHOWN_PAIRS = 3


@dataclass(frozen=True)
class Result(Figures):
    """How well a network did with one way of looking at the images.

    Args:
        views: one of `VIEWS`.
        size_px: side of the images.
        real: accuracy against ReaL labels, where they were given.
    """

    views: str
    size_px: int
    real: RealAccuracy | None

    def cells(self) -> list[str]:
        """What a person reads of it, as a row below `_HEADS`."""
        return [
            self.views,
            str(self.size_px),
            _with_interval(self.top1, self.top1_interval),
            _with_interval(self.top5, self.top5_interval),
            _with_interval(self.loss, self.loss_interval),
            f"{self.calibration_error:.4f}",
        ] + ([_with_interval(self.real.top1, self.real.top1_interval)] if self.real else [])


_HEADS = ["views", "px", "top-1", "top-5", "loss", "calibration error", "ReaL top-1"]


@dataclass(frozen=True)
class Evaluation(Result):
    """What `evaluate` measured, and on what: the first result, and the others.

    Args:
        model: as it was given.
        title: what it was in particular.
        data: the prepared data set.
        split: its split.
        calibration: of the first result, as are the pairs of classes that were most confused.
        others: the results of further views and sizes.
        out: the folder with the rest, where one was to be written.
        next: the next command.
    """

    model: str
    title: str
    data: str
    split: str
    calibration: list[Bin]
    most_confused: list[Mistake]
    others: list[Result]
    out: str | None
    next: str

    def __str__(self) -> str:
        rows = [result.cells() for result in (self, *self.others)]
        lines = [
            f"{self.title}, on {self.split} of {self.data}: n = {self.n:,}; "
            "95% confidence intervals in brackets",
            aligned([_HEADS[: len(rows[0])], *rows]),
        ]
        if self.real:
            lines.append(f"images with ReaL labels: n = {self.real.n:,}")
        if self.most_confused:
            pairs = (
                f"{first_name(pair.label)} taken for {first_name(pair.answer)} "
                f"({pair.images} of {pair.of})"
                for pair in self.most_confused[:_SHOWN_PAIRS]
            )
            lines.append(f"most confused: {'; '.join(pairs)}")
        if self.out:
            lines.append(f"predictions, tables and charts: {self.out}")
        return "\n".join([*lines, f"next: {self.next}"])


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Measures a trained network over every image of a split.

    Raises:
        BadInput: no such model, no data, no such split, data of other classes, a size that the
            network does not take, views that would all be the same, ReaL labels that are none or
            are for other images, or an `out` that is there.
        Failed: the network's answers are no numbers.
    """
    classifier = open_classifier(config)
    dataset, split = _data(config, classifier)
    with logged(classifier.run, "evaluate", config.out):
        return _evaluate(config, classifier, dataset, split)


def _evaluate(
    config: EvaluateConfig, classifier: Classifier, dataset: tfds.core.DatasetBuilder, split: str
) -> Evaluation:
    names = class_names(dataset)
    images, labels = names_and_labels(dataset, split)
    right = config.real_labels and real_labels(
        config.real_labels, images, labels, f"{split!r} of {dataset.data_dir}", len(names)
    )
    results: list[Result] = []
    given: list[Answers] = []
    for size_px in config.sizes_px or (classifier.input.size_px,):
        spec = replace(classifier.input, size_px=size_px)
        network = classifier.network(spec)
        for views in config.views:
            stream = evaluation_stream(dataset, split, spec, config.batch_size, views)
            given.append(answers(network, stream.as_numpy_iterator()))
            results.append(
                Result(
                    **vars(Figures.of(given[-1])),
                    views=views,
                    size_px=size_px,
                    real=right and measure_real(given[-1], right),
                )
            )
    evaluation = Evaluation(
        **vars(results[0]),
        model=str(config.model),
        title=classifier.title,
        data=str(dataset.data_dir),
        split=split,
        calibration=calibration(given[0]),
        most_confused=most_confused(given[0], names, images, CONFUSED_PAIRS),
        others=results[1:],
        out=str(config.out) if config.out else None,
        next=classifier.next,
    )
    if config.out:
        with atomic.replacing(config.out) as folder:
            folder.mkdir()
            tables = [
                each.table(images, names)
                .append_column("views", pa.repeat(result.views, len(each)))
                .append_column("size_px", pa.repeat(result.size_px, len(each)))
                for result, each in zip(results, given, strict=True)
            ]
            write_files(folder, asdict(evaluation), pa.concat_tables(tables), given[0], names)
            shown = {name for pair in evaluation.most_confused for name in pair.examples}
            pictures = _pictures(dataset, split, images, shown, classifier.input)
            write_mistakes(folder, evaluation.most_confused, pictures)
    return evaluation


def _pictures(
    dataset: tfds.core.DatasetBuilder,
    split: str,
    images: list[str],
    shown: set[str],
    spec: InputSpec,
) -> dict[str, np.ndarray]:
    """Some images of a split as a network sees them, by their names."""
    encoded = zip(images, encoded_images(dataset, split), strict=True)
    return {name: evaluation_image(file, spec).numpy() for name, file in encoded if name in shown}


def _data(config: EvaluateConfig, classifier: Classifier) -> tuple[tfds.core.DatasetBuilder, str]:
    """The data set and the split to measure on, refused where they or the rest do not fit."""
    if config.out and config.out.exists():
        raise BadInput(f"out is {str(config.out)!r}, which is there; choose another --out")
    if "ten_crops" in config.views and classifier.input.crop_fraction == 1:
        raise BadInput(
            "views has 'ten_crops' and the model's input.crop_fraction is 1: all of them would be "
            "the same; leave it out"
        )
    if config.data is None and classifier.data is None:
        raise BadInput(f"{config.model!r} does not tell what it was trained with; give --data DIR")
    dataset = open_dataset(config.data or classifier.data)
    split = config.split or classifier.split
    num_images(dataset, split)
    given = class_names(dataset)
    own = classifier.class_names
    if classifier.named:
        require_same_classes(given, str(dataset.data_dir), own, str(config.model))
    elif len(given) != len(own):
        raise BadInput(
            f"{dataset.data_dir} has {len(given):,} classes and {config.model!r} tells "
            f"{len(own):,} apart; give a data set with as many"
        )
    return dataset, split


def _with_interval(value: float, interval: Interval | None) -> str:
    return f"{value:.4f}" + (f" ({interval[0]:.4f}-{interval[1]:.4f})" if interval else "")
