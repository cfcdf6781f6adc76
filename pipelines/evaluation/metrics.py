"""Figures of a table of answers, each with how far to believe it."""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipelines.evaluation.predictions import TOP, Answers

CONFIDENCE = 0.95
CALIBRATION_BINS = 15
EXAMPLES = 4

Interval = tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """How well a network did.

    Intervals hold the true value with 95% confidence, the images being a random sample.

    Args:
        n: images.
        top1: share of the images whose label comes first; classes as probable come before it.
        top1_interval: E. B. Wilson's score interval (JASA 22, 1927).
        top5: share of the images whose label is among the first five.
        top5_interval: Wilson's.
        loss: mean cross-entropy, without smoothing.
        loss_interval: Student's; None for a single image.
        calibration_error: the expected one: how far confidence and accuracy lie apart, on average
            (see `calibration_error`).
    """

    n: int
    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval
    loss: float
    loss_interval: Interval | None
    calibration_error: float

    @classmethod
    def of(cls, answers: Answers) -> "Figures":
        n = len(answers)
        top1, top5 = (int((answers.rank <= place).sum()) for place in (1, TOP))
        return cls(
            n=n,
            top1=top1 / n,
            top1_interval=wilson_interval(top1, n),
            top5=top5 / n,
            top5_interval=wilson_interval(top5, n),
            loss=float(answers.loss.mean()),
            loss_interval=mean_interval(answers.loss),
            calibration_error=calibration_error(calibration(answers)),
        )


def wilson_interval(correct: int, n: int) -> Interval:
    """What share of all images may be right where `correct` of `n` are."""
    low, high = stats.binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def mean_interval(values: np.ndarray) -> Interval | None:
    """Where the mean of all may lie that these values, `(N,)`, are a sample of."""
    if len(values) == 1:
        return None
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - reach), float(values.mean() + reach)


@dataclass(frozen=True)
class Bin:
    """The images whose answer has a probability in `(low, high]`.

    `confidence` is the mean of these probabilities, `accuracy` the share of them that are right;
    None without images.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def calibration(answers: Answers) -> list[Bin]:
    """Confidence and accuracy in fifteen bins of equal width.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017
    (arXiv:1706.04599), section 2.
    """
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    number = np.clip(np.searchsorted(edges, answers.confidence) - 1, 0, CALIBRATION_BINS - 1)
    bins = []
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = number == index
        confidence, accuracy = (
            float(column[inside].mean()) if inside.any() else None
            for column in (answers.confidence, answers.correct)
        )
        bins.append(Bin(float(low), float(high), int(inside.sum()), confidence, accuracy))
    return bins


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error: `|accuracy - confidence|`, weighted by images."""
    gaps = [each.n * abs(each.accuracy - each.confidence) for each in bins if each.n]
    return sum(gaps) / sum(each.n for each in bins)


@dataclass(frozen=True)
class ClassAccuracy:
    """How many images of a class are recognised; no accuracy without images."""

    label: int
    name: str
    n: int
    correct: int
    accuracy: float | None
    interval: Interval | None


def class_accuracies(answers: Answers, class_names: list[str]) -> list[ClassAccuracy]:
    """In the order of the classes."""
    of_class = np.bincount(answers.label, minlength=len(class_names)).tolist()
    right = answers.label[answers.correct]
    of_right = np.bincount(right, minlength=len(class_names)).tolist()
    counts = zip(class_names, of_class, of_right, strict=True)
    return [
        ClassAccuracy(label, name, n, correct, correct / n, wilson_interval(correct, n))
        if n
        else ClassAccuracy(label, name, 0, 0, None, None)
        for label, (name, n, correct) in enumerate(counts)
    ]


def confusion(answers: Answers, num_classes: int) -> np.ndarray:
    """Images by their label (row) and answer (column): int64 `(num_classes, num_classes)`."""
    cells = np.bincount(answers.label * num_classes + answers.answer, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Mistake:
    """Images of one class that were taken for another.

    Args:
        label: the class they are of.
        answer: the class they were taken for.
        images: how many.
        of: images of the class.
        examples: the names of some of them, the most confident mistakes first.
    """

    label: str
    answer: str
    images: int
    of: int
    examples: list[str]


def most_confused(
    answers: Answers, class_names: list[str], images: list[str], pairs: int
) -> list[Mistake]:
    """The pairs of classes that most images were mistaken between, the worst first."""
    matrix = confusion(answers, len(class_names))
    totals = matrix.sum(axis=1)
    np.fill_diagonal(matrix, 0)
    worst = np.argsort(-matrix, axis=None, kind="stable")[: min(pairs, np.count_nonzero(matrix))]
    mistakes = []
    for label, answer in zip(*np.unravel_index(worst, matrix.shape), strict=True):
        rows = np.flatnonzero((answers.label == label) & (answers.answer == answer))
        surest = rows[np.argsort(-answers.confidence[rows], kind="stable")][:EXAMPLES]
        mistakes.append(
            Mistake(
                label=class_names[label],
                answer=class_names[answer],
                images=len(rows),
                of=int(totals[label]),
                examples=[images[row] for row in surest],
            )
        )
    return mistakes
