"""The shape of a built network: what computes in it, in a chain that forks and joins.

Found in the model's own graph, not in a table: whatever a builder makes can be drawn. What carries
no kernel and no window (normalisation, activations, padding) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers


@dataclass(frozen=True)
class Box:
    """One layer that computes.

    Args:
        kind: `conv`, `pool` or `dense`.
        kernel_px: height and width of a convolution's kernel, else none.
        groups: of a convolution, else 1.
        size_px: side of its output, 1 for a dense layer.
        channels: channels or units of its output.
    """

    kind: str
    kernel_px: tuple[int, int] | None
    groups: int
    size_px: int
    channels: int


@dataclass(frozen=True)
class Fork:
    """Branches that leave one tensor and meet again.

    Args:
        merge: how: `add`, `multiply` or `concatenate`.
        branches: one chain each; an empty one is a shortcut.
        size_px: side of the output.
        channels: channels of the output.
    """

    merge: str
    branches: tuple[Chain, ...]
    size_px: int
    channels: int


Chain = tuple[Box | Fork, ...]


def chain(model: keras.Model) -> Chain:
    """What computes in a functional model of one input and one output, from end to end."""
    graph = _Graph(model)
    return graph.chain(graph.source, None)


class _Graph:
    """The operations of a functional model, what follows each, and where what follows it meets."""

    def __init__(self, model: keras.Model) -> None:
        makers = {id(operation.output): operation for operation in model.operations}
        self.source = makers[id(model.inputs[0])]
        self.inputs = {
            operation: [makers[id(tensor)] for tensor in keras.tree.flatten(operation.input)]
            for operation in model.operations
        }
        self.followers = {operation: [] for operation in model.operations}
        for operation in model.operations:
            if operation is not self.source:
                for maker in self.inputs[operation]:
                    self.followers[maker].append(operation)
        # Operations are in the order of their depth, so that what follows one is known before it.
        self.joins = {}
        for operation in reversed(model.operations):
            self.joins[operation] = self._join(operation)

    def _join(self, operation: keras.Operation) -> keras.Operation | None:
        """The nearest operation that every path from this one leads through; none at the end."""
        if not self.followers[operation]:
            return None
        first, *others = (self._way(follower) for follower in self.followers[operation])
        return next(step for step in first if all(step in way for way in others))

    def _way(self, operation: keras.Operation | None) -> list[keras.Operation]:
        """The operation and the joins after it, to the end."""
        way = []
        while operation is not None:
            way.append(operation)
            operation = self.joins[operation]
        return way

    def chain(self, operation: keras.Operation, stop: keras.Operation | None) -> Chain:
        """What computes from `operation` on, before `stop`."""
        elements = []
        while operation is not stop:
            elements += _boxes(operation)
            join = self.joins[operation]
            if len(self.followers[operation]) > 1:
                elements.append(self._fork(operation, join))
            operation = join
        return tuple(elements)

    def _fork(self, operation: keras.Operation, join: keras.Operation) -> Fork:
        """What lies between an operation and where its followers meet, in the order they meet."""

        def place(follower: keras.Operation) -> int:
            way = [operation, *self._way(follower)]
            return self.inputs[join].index(way[way.index(join) - 1])

        followers = sorted(self.followers[operation], key=place)
        branches = tuple(self.chain(follower, join) for follower in followers)
        return Fork(type(join).__name__.lower(), branches, *_extent(join))


def _boxes(operation: keras.Operation) -> list[Box]:
    """The operation as a chain: of one box, or of none if it computes nothing to speak of."""
    if isinstance(operation, layers.Conv2D):
        return [Box("conv", operation.kernel_size, operation.groups, *_extent(operation))]
    if isinstance(operation, layers.Dense):
        return [Box("dense", None, 1, *_extent(operation))]
    if "Pooling" in type(operation).__name__:
        return [Box("pool", None, 1, *_extent(operation))]
    return []


def _extent(operation: keras.Operation) -> tuple[int, int]:
    """Side and channels of the output: `(H, W, C) -> (H, C)`, `(F,) -> (1, F)`."""
    _, *sides, channels = operation.output.shape
    return (sides[0] if sides else 1), channels
