"""What a network says of every image of a split: the table that all figures come from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipelines.errors import Failed

TOP = 5

Network = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Answers:
    """What a network says of some images, one row each.

    Args:
        label: int64 `(N,)`, the class that is right.
        rank: int64 `(N,)`, the label's place among all classes by their probability, from 1;
            classes as probable as the label stand before it.
        probability: float64 `(N,)`, of the label.
        top_ids: int64 `(N, k)`, the most probable classes, the first one first; k is 5, or the
            number of classes where they are fewer.
        top_probabilities: float64 `(N, k)`, theirs.
    """

    label: np.ndarray
    rank: np.ndarray
    probability: np.ndarray
    top_ids: np.ndarray
    top_probabilities: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, label: np.ndarray) -> "Answers":
        """From the probabilities of all classes, `(N, num_classes)`."""
        own = np.take_along_axis(probabilities, label[:, np.newaxis], axis=1)
        is_label = np.arange(probabilities.shape[1]) == label[:, np.newaxis]
        top_ids = np.lexsort((is_label, -probabilities), axis=1)[:, :TOP]
        return cls(
            label=label,
            rank=probabilities.shape[1] - (probabilities < own).sum(axis=1),
            probability=own[:, 0],
            top_ids=top_ids,
            top_probabilities=np.take_along_axis(probabilities, top_ids, axis=1),
        )

    @classmethod
    def joined(cls, parts: list["Answers"]) -> "Answers":
        """One after another."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def loss(self) -> np.ndarray:
        """float64 `(N,)`: the cross-entropy; high, and not infinite, where the probability is 0."""
        return -np.log(np.maximum(self.probability, np.finfo(np.float64).tiny))

    @property
    def answer(self) -> np.ndarray:
        """int64 `(N,)`: the most probable class, which is the label only where no other is as
        probable."""
        return self.top_ids[:, 0]

    @property
    def confidence(self) -> np.ndarray:
        """float64 `(N,)`: the probability of the answer."""
        return self.top_probabilities[:, 0]

    @property
    def correct(self) -> np.ndarray:
        """bool `(N,)`: whether the label is the answer."""
        return self.rank == 1

    def table(self, images: list[str], class_names: list[str]) -> pa.Table:
        """The columns to write: image, label, class, rank, probability, loss, and the first five.

        Args:
            images: what each is called.
            class_names: in the order of their numbers.
        """
        names = np.array(class_names)
        columns = {
            "image": images,
            "label": self.label,
            "class": names[self.label],
            "rank": self.rank,
            "probability": self.probability,
            "loss": self.loss,
        }
        for place in range(self.top_ids.shape[1]):
            columns |= {
                f"top{place + 1}_label": self.top_ids[:, place],
                f"top{place + 1}_class": names[self.top_ids[:, place]],
                f"top{place + 1}_probability": self.top_probabilities[:, place],
            }
        return pa.table(columns)


def answers(network: Network, batches: Iterable[tuple[np.ndarray, ...]]) -> Answers:
    """Asks a network about every image of an evaluation stream, in its order.

    Args:
        network: uint8 pixels `(B, S, S, C)` -> probabilities `(B, num_classes)`.
        batches: of an `evaluation_stream`: pixels, labels and mask; images whose mask is False are
            left out. Pixels may be several views of each image, `(B, V, S, S, C)`, whose
            probabilities are averaged.

    Raises:
        Failed: a probability is no number.
    """
    parts = []
    for pixels, labels, mask in batches:
        of_views = network(pixels.reshape(-1, *pixels.shape[-3:]))
        probabilities = of_views.reshape(len(pixels), -1, of_views.shape[-1]).mean(axis=1)[mask]
        if not np.isfinite(probabilities).all():
            raise Failed(
                "the network answers with probabilities that are no numbers; its weights are broken"
            )
        parts.append(Answers.of(probabilities, labels[mask]))
    return Answers.joined(parts)
