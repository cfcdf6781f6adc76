"""What a person sees while a network trains."""

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar(keras.callbacks.Callback):
    """A bar over the steps of each epoch on a terminal, and a line after it everywhere.

    A context around the training. Written to standard error: standard output is the command's
    result.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        super().__init__()
        self._steps_per_epoch = steps_per_epoch
        self._console = Console(stderr=True)
        self._progress: Progress | None = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the terminal back, also when training ends with an exception."""
        if self._progress:
            self._progress.stop()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # An epoch that is begun anew did not come to its end.
        self.__exit__()
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  top-1 {task.fields[top1]:.4f}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task(
            "",
            total=self._steps_per_epoch,
            epoch=f"{epoch + 1}/{self.params['epochs']}",
            loss=float("nan"),
            top1=float("nan"),
        )
        self._progress.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self._progress.update(
            self._task, completed=batch + 1, loss=float(logs["loss"]), top1=float(logs["top1"])
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._progress.stop()
        self._console.print(
            f"epoch {epoch + 1}/{self.params['epochs']}: loss {logs['loss']:.4f}, "
            f"top-1 {logs['top1']:.4f}, validation top-1 {logs['val_top1']:.4f}, "
            f"top-5 {logs['val_top5']:.4f}, {logs['images_per_s']:.1f} images/s",
            highlight=False,
            soft_wrap=True,
        )
