"""The folder that an evaluation leaves: figures, predictions, tables and charts.

metrics.json         the figures
predictions.parquet  a row an image, for each way of looking at them; the same as predictions.csv
per_class.csv        images and accuracy of each class
confusion.csv        label, answer and images of each pair of classes that has some, most first
*.svg, mistakes.png  charts

But for the predictions, all of it is of the first way of looking at the images.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from keras_zoo.charts import save
from pipelines.evaluation.charts import accuracy_by_class, confusion_matrix, mistakes, reliability
from pipelines.evaluation.metrics import Figures, Mistake, calibration, class_accuracies, confusion
from pipelines.evaluation.predictions import Answers


def write_files(
    folder: Path,
    metrics: dict[str, Any],
    predictions: pa.Table,
    of_first: Answers,
    names: list[str],
) -> None:
    """Writes all but the pictures of mistakes.

    Args:
        folder: is there.
        metrics: of `metrics.json`.
        predictions: their table.
        of_first: what the network said, seen the first way.
        names: of the classes.
    """
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
    parquet.write_table(predictions, folder / "predictions.parquet")
    csv.write_csv(predictions, folder / "predictions.csv")

    classes = class_accuracies(of_first, names)
    rows = [asdict(each) for each in classes]
    for row in rows:
        row["low"], row["high"] = row.pop("interval") or (None, None)
    csv.write_csv(pa.Table.from_pylist(rows), folder / "per_class.csv")

    matrix = confusion(of_first, len(names))
    csv.write_csv(_pairs(matrix, names), folder / "confusion.csv")

    figures = Figures.of(of_first)
    bins = calibration(of_first)
    save(reliability(bins, figures.calibration_error), folder / "reliability.svg")
    save(accuracy_by_class(classes, figures.top1), folder / "per_class.svg")
    save(confusion_matrix(matrix, names), folder / "confusion.svg")


def write_mistakes(folder: Path, pairs: list[Mistake], pictures: dict[str, np.ndarray]) -> None:
    """Writes the pictures of what is confused, if anything is."""
    if pairs:
        save(mistakes(pairs, pictures), folder / "mistakes.png")


def _pairs(matrix: np.ndarray, names: list[str]) -> pa.Table:
    """The cells of a confusion matrix that are not empty, the fullest first."""
    fullest = np.argsort(-matrix, axis=None, kind="stable")[: np.count_nonzero(matrix)]
    labels, answers = np.unravel_index(fullest, matrix.shape)
    classes = np.array(names)
    return pa.table(
        {
            "label": labels,
            "class": classes[labels],
            "answer": answers,
            "answer_class": classes[answers],
            "images": matrix[labels, answers],
        }
    )
