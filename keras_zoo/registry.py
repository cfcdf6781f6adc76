"""One card per network, and the way from a name to a model.

Standard library only: listing the zoo must not import a deep-learning framework. A card names its
builder as "module:function"; `build` imports it.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_zoo.input_spec import InputSpec

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Paper:
    authors: str
    title: str
    year: int
    venue: str


@dataclass(frozen=True)
class Published:
    """Accuracy somebody else reports, in per cent, with the recipe it comes from."""

    top1: float
    top5: float
    source: str


@dataclass(frozen=True)
class Card:
    """What is known of a network before it is built.

    Args:
        name: the network's name.
        builder: "module:function".
        paper: where it was published.
        input: what it sees of an image.
        parameters: trainable parameters at `num_classes`.
        gmacs: 10^9 multiply-accumulates for one image at its own input size.
        min_size_px: smallest side of an image that its downsampling leaves a pixel of.
        num_classes: classes as published.
        dropout: dropout rate before the classifier, as published.
        published: single-crop ImageNet accuracy as its source reports it, if any.
    """

    name: str
    builder: str
    paper: Paper
    input: InputSpec
    parameters: int
    gmacs: float
    min_size_px: int
    num_classes: int = 1000
    dropout: float = 0.0
    published: Published | None = None

    @property
    def family(self) -> str:
        return self.builder.partition(":")[0].rpartition(".")[2]


_RESNET = Paper(
    "Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    "Deep Residual Learning for Image Recognition",
    2015,
    "CVPR 2016, arXiv:1512.03385",
)


def _resnet(name: str, parameters: int, gmacs: float, top1: float, top5: float) -> Card:
    return Card(
        name=name,
        builder="keras_zoo.resnet:resnet",
        paper=_RESNET,
        input=InputSpec(),
        parameters=parameters,
        gmacs=gmacs,
        min_size_px=32,
        published=Published(top1, top5, "torchvision IMAGENET1K_V1, single centre crop"),
    )


CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card(
            name="simple_cnn",
            builder="keras_zoo.simple_cnn:simple_cnn",
            paper=Paper("none", "The tutorial network", 1998, "unpublished, after LeNet-5"),
            input=InputSpec(32, crop_fraction=1.0, channels="L", mean=(127.5,), std=(127.5,)),
            parameters=315_146,
            gmacs=0.004,
            min_size_px=10,
            num_classes=10,
        ),
        _resnet("resnet18", 11_689_512, 1.814, 69.758, 89.078),
        _resnet("resnet34", 21_797_672, 3.664, 73.314, 91.420),
        _resnet("resnet50", 25_557_032, 4.089, 76.130, 92.862),
        _resnet("resnet101", 44_549_160, 7.801, 77.374, 93.546),
        _resnet("resnet152", 60_192_808, 11.514, 78.312, 94.046),
    )
}


def list_models() -> list[str]:
    """The names of all networks, in the order of their cards."""
    return list(CARDS)


def card(name: str) -> Card:
    """The card of a network.

    Raises:
        ValueError: no network has this name; the message offers the nearest one.
    """
    if name in CARDS:
        return CARDS[name]
    nearest = difflib.get_close_matches(name, CARDS, n=1, cutoff=0.0)
    raise ValueError(
        f"unknown network {name!r}; did you mean {nearest[0]!r}? python -m keras_zoo list"
    )


def build(
    name: str,
    *,
    num_classes: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
    include_top: bool = True,
    dropout: float | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """Builds a network, with fresh weights or with those of a published set or a file.

    Args:
        name: one of `list_models()`.
        num_classes: width of the classifier; the card's when not given.
        input_shape: `(height, width, channels)`; the card's when not given.
        include_top: without it the model ends with its last feature map.
        dropout: rate before the classifier, in [0, 1); the card's when not given.
        weights: name of a published set (`imagenet` is the default one), fetched once and kept, or
            the path of a `.weights.h5`, `.keras`, `.pth`, `.safetensors` or legacy `.h5` file.
            `keras_zoo.weight_sets.input_spec` says what they see of an image.

    Returns:
        A functional model from float32 images, normalised by the card's `InputSpec` (or that of
        the weights), `(batch, height, width, channels)`, to float32 logits `(batch, num_classes)`.

    Raises:
        ValueError: an unknown name, an argument out of its range, or weights that cannot be had or
            are not of this network.
    """
    row = card(name)
    shape = row.input.shape if input_shape is None else tuple(input_shape)
    classes = row.num_classes if num_classes is None else num_classes
    rate = row.dropout if dropout is None else dropout
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"input_shape is {shape}; give (height, width, channels), all above 0")
    if min(shape[:2]) < row.min_size_px:
        raise ValueError(
            f"input_shape is {shape}; {name} needs at least {row.min_size_px} pixels a side"
        )
    if classes < 1:
        raise ValueError(f"num_classes is {classes}; a classifier has at least 1 class")
    if not 0 <= rate < 1:
        raise ValueError(f"dropout is {rate}; it lies in [0, 1)")
    model = _resolve(row.builder)(
        name, num_classes=classes, input_shape=shape, include_top=include_top, dropout=rate
    )
    if weights is not None:
        _resolve(_LOADER)(model, name, weights)
    return model


_LOADER = "keras_zoo.weights:load"


def _resolve(reference: str) -> Callable:
    """Imports what "module:function" names."""
    module, _, function = reference.partition(":")
    return getattr(importlib.import_module(module), function)
