"""What a person sees while a network trains."""

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Of what is shown anew while an epoch goes on.
STRETCH_S = 1.0


def rates(images: int, training_s: float, input_wait_s: float) -> dict[str, float]:
    """Images a second, and the share of the time in which the devices waited for images."""
    return {"images_per_s": images / training_s, "input_wait_share": input_wait_s / training_s}


class Pace:
    """How fast training is just now: over stretches of steps that take a second or more.

    Args:
        batch_size: images of a step.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._begin()

    def after(self, step_s: float, input_wait_s: float) -> dict[str, float]:
        """The rates of the stretch that this step ends; nothing inside of one."""
        self._images += self._batch_size
        self._training_s += step_s
        self._input_wait_s += input_wait_s
        if self._training_s < STRETCH_S:
            return {}
        ended = rates(self._images, self._training_s, self._input_wait_s)
        self._begin()
        return ended

    def _begin(self) -> None:
        self._images = 0
        self._training_s = 0.0
        self._input_wait_s = 0.0


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
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            # Short: all of it fits on the 80 columns of a small terminal.
            TextColumn("loss {task.fields[loss]:.3f} top-1 {task.fields[top1]:.3f}"),
            TextColumn("{task.fields[images_per_s]:.0f} img/s"),
            TextColumn("wait {task.fields[input_wait_share]:.0%}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task(
            "",
            total=self._steps_per_epoch,
            epoch=f"{epoch + 1}/{self.params['epochs']}",
            **dict.fromkeys(("loss", "top1", "images_per_s", "input_wait_share"), float("nan")),
        )
        self._progress.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self._progress.update(self._task, completed=batch + 1, **logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._progress.stop()
        self._console.print(
            f"epoch {epoch + 1}/{self.params['epochs']}: loss {logs['loss']:.4f}, "
            f"top-1 {logs['top1']:.4f}, validation top-1 {logs['val_top1']:.4f}, "
            f"top-5 {logs['val_top5']:.4f}, {logs['images_per_s']:.1f} images/s, "
            f"input wait {logs['input_wait_share']:.0%}",
            highlight=False,
            soft_wrap=True,
        )
