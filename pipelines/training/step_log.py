"""`log.jsonl`: what a program reads of a run while it trains.

Each line is an object. Of the kind `step`, one for about a second of training: `loss` and `top1`
over the epoch's steps so far, `images_per_s` and `input_wait_share` over the steps since the line
before. Of the kind `epoch`: a row of `history.csv`. `step` counts the run's steps that are done.
"""

import json
import os
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

import keras

from pipelines import atomic

Line = dict[str, str | float]


class StepLog(keras.callbacks.Callback):
    """Appends to the file as training goes on.

    Args:
        file: `log.jsonl`.
        steps_per_epoch: batches in an epoch.
    """

    def __init__(self, file: Path, steps_per_epoch: int) -> None:
        super().__init__()
        self._file = file
        self._steps_per_epoch = steps_per_epoch

    def go_on(self, history: list[dict[str, float]], step: int) -> None:
        """Makes the file what it was when the run had come this far.

        The steps after that are done again, so their lines go, as does one that a killed process
        wrote in part; an epoch's line that it had not written yet is added.

        Args:
            history: a row for each epoch that is finished.
            step: steps of the next epoch that are done.
        """
        done = len(history) * self._steps_per_epoch + step
        steps = [line for line in self._step_lines() if line["step"] <= done]
        lines = sorted([*steps, *map(self._epoch_line, history)], key=itemgetter("step"))
        atomic.write_text(self._file, "".join(map(_text, lines)))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        if "images_per_s" in logs:
            step = self._epoch * self._steps_per_epoch + batch + 1
            self._append({"kind": "step", "step": step, "epoch": self._epoch + 1, **logs})

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._append(self._epoch_line({"epoch": epoch + 1, **logs}))

    def _epoch_line(self, row: dict[str, float]) -> Line:
        step = row["epoch"] * self._steps_per_epoch
        return {"kind": "epoch", "step": step, **row}

    def _append(self, line: Line) -> None:
        """Whole or not at all; that a disk is full, the next checkpoint says."""
        end = self._file.stat().st_size
        try:
            with self._file.open("a") as file:
                file.write(_text(line))
        except OSError:
            os.truncate(self._file, end)

    def _step_lines(self) -> list[Line]:
        """Those of the kind `step` that were written whole."""
        lines = []
        for text in self._file.read_text().splitlines() if self._file.is_file() else ():
            with suppress(ValueError):
                lines.append(json.loads(text))
        return [
            line
            for line in lines
            if isinstance(line, dict) and line.get("kind") == "step" and "step" in line
        ]


def _text(line: Line) -> str:
    return json.dumps(line) + "\n"
