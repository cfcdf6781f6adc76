"""One card per network, and the way from a name to a model.

Standard library only: listing the zoo must not import a deep-learning framework. A card names its
builder as "module:function"; `build` imports it.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
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
class AuxHeads:
    """Auxiliary classifiers, which some networks have while they train.

    Args:
        attach: "module:function" that adds them to the network.
        parameters: trainable parameters with them, at the card's `num_classes`.
        min_size_px: smallest side of an image that leaves a pixel to each of them.
    """

    attach: str
    parameters: int
    min_size_px: int


@dataclass(frozen=True)
class Card:
    """What is known of a network before it is built.

    Args:
        name: the network's name.
        builder: "module:function".
        paper: where it was published; none for a network of no paper.
        input: what it sees of an image.
        parameters: trainable parameters at `num_classes`.
        gmacs: 10^9 multiply-accumulates of its convolutions and dense layers, for one image of its
            own input size.
        min_size_px: smallest side of an image that `build` takes. Below it nothing would be left of
            the image; or, in ResNets, whose padding always leaves a pixel, less than the 32 pixels
            of the image that one of their features stands for.
        num_classes: classes as published.
        dropout: dropout rate before the classifier, as published.
        published: ImageNet accuracy of one network as its source reports it, if any; single
            crop unless the source says otherwise.
        aux_heads: its auxiliary classifiers, if any.
    """

    name: str
    builder: str
    paper: Paper | None
    input: InputSpec
    parameters: int
    gmacs: float
    min_size_px: int
    num_classes: int = 1000
    dropout: float = 0.0
    published: Published | None = None
    aux_heads: AuxHeads | None = None

    @property
    def family(self) -> str:
        return self.builder.partition(":")[0].rpartition(".")[2]

    @property
    def year(self) -> int | None:
        """Of the paper, if there is one."""
        return self.paper and self.paper.year


_MINUS_ONE_TO_ONE = InputSpec(mean=(127.5,) * 3, std=(127.5,) * 3)

_ALEXNET = Paper(
    "Alex Krizhevsky, Ilya Sutskever, Geoffrey E. Hinton",
    "ImageNet Classification with Deep Convolutional Neural Networks",
    2012,
    "NIPS 2012",
)
_ONE_WEIRD_TRICK = Paper(
    "Alex Krizhevsky",
    "One weird trick for parallelizing convolutional neural networks",
    2014,
    "arXiv:1404.5997",
)
_ZFNET = Paper(
    "Matthew D. Zeiler, Rob Fergus",
    "Visualizing and Understanding Convolutional Networks",
    2013,
    "ECCV 2014, arXiv:1311.2901",
)
_VGG = Paper(
    "Karen Simonyan, Andrew Zisserman",
    "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    2014,
    "ICLR 2015, arXiv:1409.1556",
)
_GOOGLENET = Paper(
    "Christian Szegedy, Wei Liu, Yangqing Jia, Pierre Sermanet, Scott Reed, Dragomir Anguelov, "
    "Dumitru Erhan, Vincent Vanhoucke, Andrew Rabinovich",
    "Going Deeper with Convolutions",
    2014,
    "CVPR 2015, arXiv:1409.4842",
)
_INCEPTION_V3 = Paper(
    "Christian Szegedy, Vincent Vanhoucke, Sergey Ioffe, Jonathon Shlens, Zbigniew Wojna",
    "Rethinking the Inception Architecture for Computer Vision",
    2015,
    "CVPR 2016, arXiv:1512.00567",
)
_RESNET = Paper(
    "Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    "Deep Residual Learning for Image Recognition",
    2015,
    "CVPR 2016, arXiv:1512.03385",
)
_RESNET_V2 = Paper(
    "Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    "Identity Mappings in Deep Residual Networks",
    2016,
    "ECCV 2016, arXiv:1603.05027",
)
_RESNEXT = Paper(
    "Saining Xie, Ross Girshick, Piotr Dollar, Zhuowen Tu, Kaiming He",
    "Aggregated Residual Transformations for Deep Neural Networks",
    2016,
    "CVPR 2017, arXiv:1611.05431",
)
_WIDE_RESNET = Paper(
    "Sergey Zagoruyko, Nikos Komodakis",
    "Wide Residual Networks",
    2016,
    "BMVC 2016, arXiv:1605.07146",
)
_SENET = Paper(
    "Jie Hu, Li Shen, Gang Sun",
    "Squeeze-and-Excitation Networks",
    2017,
    "CVPR 2018, arXiv:1709.01507",
)

_TORCHVISION = "torchvision IMAGENET1K_V1, single centre crop"
_KERAS = "keras.applications, single centre crop"
_CAFFE = "Caffe's {}, single centre crop"


def _vgg(name: str, parameters: int, gmacs: float, top1: float, top5: float) -> Card:
    return Card(
        name=name,
        builder="keras_zoo.vgg:vgg",
        paper=_VGG,
        input=InputSpec(),
        parameters=parameters,
        gmacs=gmacs,
        min_size_px=32,
        dropout=0.5,
        published=Published(top1, top5, _TORCHVISION),
    )


def _resnet(
    name: str,
    parameters: int,
    gmacs: float,
    top1: float,
    top5: float,
    *,
    paper: Paper = _RESNET,
    builder: str = "keras_zoo.resnet:resnet",
    source: str = _TORCHVISION,
) -> Card:
    return Card(
        name=name,
        builder=builder,
        paper=paper,
        input=InputSpec(),
        parameters=parameters,
        gmacs=gmacs,
        min_size_px=32,
        published=Published(top1, top5, source),
    )


_resnet_v1 = partial(_resnet, builder="keras_zoo.resnet_v1:resnet_v1", source=_KERAS)
_resnet_v2 = partial(
    _resnet, paper=_RESNET_V2, builder="keras_zoo.resnet_v2:resnet_v2", source=_KERAS
)

CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card(
            name="simple_cnn",
            builder="keras_zoo.simple_cnn:simple_cnn",
            paper=None,
            input=InputSpec(32, crop_fraction=1.0, channels="L", mean=(127.5,), std=(127.5,)),
            parameters=315_146,
            gmacs=0.00367,
            min_size_px=10,
            num_classes=10,
        ),
        Card(
            name="alexnet",
            builder="keras_zoo.alexnet:alexnet",
            paper=_ALEXNET,
            input=InputSpec(227, crop_fraction=227 / 256),
            parameters=60_965_224,
            gmacs=0.724,
            min_size_px=67,
            dropout=0.5,
            published=Published(57.1, 80.2, _CAFFE.format("bvlc_alexnet")),
        ),
        Card(
            name="alexnet_owt",
            builder="keras_zoo.alexnet:alexnet",
            paper=_ONE_WEIRD_TRICK,
            input=InputSpec(),
            parameters=61_100_840,
            gmacs=0.714,
            min_size_px=63,
            dropout=0.5,
            published=Published(56.522, 79.066, _TORCHVISION),
        ),
        Card(
            name="zfnet",
            builder="keras_zoo.zfnet:zfnet",
            paper=_ZFNET,
            input=InputSpec(),
            parameters=62_357_608,
            gmacs=1.168,
            min_size_px=47,
            dropout=0.5,
            published=Published(61.6, 83.5, "the paper's Table 2, one network, ten crops"),
        ),
        _vgg("vgg11", 132_863_336, 7.609, 69.020, 88.628),
        _vgg("vgg11_bn", 132_868_840, 7.609, 70.370, 89.810),
        _vgg("vgg13", 133_047_848, 11.308, 69.928, 89.246),
        _vgg("vgg13_bn", 133_053_736, 11.308, 71.586, 90.374),
        _vgg("vgg16", 138_357_544, 15.470, 71.592, 90.382),
        _vgg("vgg16_bn", 138_365_992, 15.470, 73.360, 91.516),
        _vgg("vgg19", 143_667_240, 19.632, 72.376, 90.876),
        _vgg("vgg19_bn", 143_678_248, 19.632, 74.218, 91.842),
        Card(
            name="googlenet",
            builder="keras_zoo.googlenet:googlenet",
            paper=_GOOGLENET,
            input=InputSpec(),
            parameters=6_998_552,
            gmacs=1.583,
            min_size_px=31,
            dropout=0.4,
            published=Published(68.7, 88.9, _CAFFE.format("bvlc_googlenet")),
            aux_heads=AuxHeads("keras_zoo.googlenet:with_aux_heads", 13_378_280, 79),
        ),
        Card(
            name="googlenet_bn",
            builder="keras_zoo.googlenet:googlenet",
            paper=_GOOGLENET,
            input=_MINUS_ONE_TO_ONE,
            parameters=6_624_904,
            gmacs=1.498,
            min_size_px=15,
            dropout=0.2,
            published=Published(69.778, 89.530, _TORCHVISION),
            aux_heads=AuxHeads("keras_zoo.googlenet:with_aux_heads", 13_004_888, 31),
        ),
        Card(
            name="inception_v3",
            builder="keras_zoo.inception_v3:inception_v3",
            paper=_INCEPTION_V3,
            input=replace(_MINUS_ONE_TO_ONE, size_px=299),
            parameters=23_834_568,
            gmacs=5.713,
            min_size_px=75,
            dropout=0.2,
            published=Published(77.294, 93.450, _TORCHVISION),
            aux_heads=AuxHeads("keras_zoo.inception_v3:with_aux_heads", 27_161_264, 299),
        ),
        _resnet("resnet18", 11_689_512, 1.814, 69.758, 89.078),
        _resnet("resnet34", 21_797_672, 3.664, 73.314, 91.420),
        _resnet("resnet50", 25_557_032, 4.089, 76.130, 92.862),
        _resnet("resnet101", 44_549_160, 7.801, 77.374, 93.546),
        _resnet("resnet152", 60_192_808, 11.514, 78.312, 94.046),
        _resnet_v1("resnet50_v1", 25_583_592, 3.858, 74.9, 92.1),
        _resnet_v1("resnet101_v1", 44_601_832, 7.570, 76.4, 92.8),
        _resnet_v1("resnet152_v1", 60_268_520, 11.282, 76.6, 93.1),
        _resnet_v2("resnet50_v2", 25_568_360, 3.482, 76.0, 93.0),
        _resnet_v2("resnet101_v2", 44_577_896, 7.195, 77.2, 93.8),
        _resnet_v2("resnet152_v2", 60_236_904, 10.907, 78.0, 94.2),
        _resnet("resnext50_32x4d", 25_028_904, 4.230, 77.618, 93.698, paper=_RESNEXT),
        _resnet("resnext101_32x8d", 88_791_336, 16.414, 79.312, 94.526, paper=_RESNEXT),
        _resnet("wide_resnet50_2", 68_883_240, 11.398, 78.468, 94.086, paper=_WIDE_RESNET),
        _resnet(
            "seresnet50",
            28_088_024,
            4.092,
            80.26,
            95.08,
            paper=_SENET,
            source="timm ra2_in1k, single centre crop",
        ),
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
    width: float = 1.0,
    dropout: float | None = None,
    aux_heads: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """Builds a network, with fresh weights or with those of a published set or a file.

    Args:
        name: one of `list_models()`.
        num_classes: width of the classifier; the card's when not given.
        input_shape: `(height, width, channels)`; the card's when not given.
        include_top: without it the model ends with its last feature map.
        width: filters and units of every layer but the classifiers, as a multiple of those
            published, above 0; `keras_zoo.width` says how they are rounded.
        dropout: rate before the classifier, in [0, 1); the card's when not given.
        aux_heads: with the auxiliary classifiers of GoogLeNet or Inception v3, for training: the
            output is then a dict of logits, `logits`, `aux1`, ...; `blocks.without_aux_heads`
            gives the network alone.
        weights: name of a published set (`imagenet` is the default one), fetched once and kept, or
            the path of a `.weights.h5`, `.keras`, `.pth`, `.safetensors` or legacy `.h5` file; one
            of ours may hold the network within a model that prepares its input, as training
            saves it.
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
    if len(shape) != 3 or not all(isinstance(size, Integral) and size > 0 for size in shape):
        raise ValueError(
            f"input_shape is {shape}; give (height, width, channels), all whole numbers above 0"
        )
    if min(shape[:2]) < row.min_size_px:
        raise ValueError(
            f"input_shape is {shape}; {name} needs at least {row.min_size_px} pixels a side"
        )
    if classes < 1:
        raise ValueError(f"num_classes is {classes}; a classifier has at least 1 class")
    if not 0 <= rate < 1:
        raise ValueError(f"dropout is {rate}; it lies in [0, 1)")
    _resolve("keras_zoo.weight_sets:check_width")(name, weights, width)
    if aux_heads:
        _check_aux_heads(row, shape, include_top)
    model = _resolve(row.builder)(
        name, num_classes=classes, input_shape=shape, include_top=include_top, dropout=rate
    )
    if aux_heads:
        model = _resolve(row.aux_heads.attach)(model)
    if width != 1:
        model = _resolve("keras_zoo.width:of_width")(model, width)
    if weights is not None:
        _resolve("keras_zoo.weights:load")(model, name, weights)
    return model


def _check_aux_heads(row: Card, shape: tuple[int, ...], include_top: bool) -> None:
    if row.aux_heads is None:
        having = ", ".join(name for name, other in CARDS.items() if other.aux_heads)
        raise ValueError(f"{row.name} has no auxiliary heads; {having} have; leave out aux_heads")
    if not include_top:
        raise ValueError("aux_heads are classifiers; they come with include_top=True only")
    if min(shape[:2]) < row.aux_heads.min_size_px:
        raise ValueError(
            f"input_shape is {shape}; the auxiliary heads of {row.name} need at least "
            f"{row.aux_heads.min_size_px} pixels a side; leave out aux_heads for less"
        )


def _resolve(reference: str) -> Callable:
    """Imports what "module:function" names."""
    module, _, function = reference.partition(":")
    return getattr(importlib.import_module(module), function)
