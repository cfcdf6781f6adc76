"""Published weight sets: where each file lies, how to know it, and what its network saw.

One row per set; a network may have several, and `imagenet` is its default. The pixels are part of
the weights: two sets of one network may differ in channel order, mean, scale and crop, so each row
carries its own `InputSpec`. Standard library only, so that a command can answer at once.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from keras_zoo.input_spec import InputSpec
from keras_zoo.registry import Published, card

# Longest first: a `.weights.h5` also ends in `.h5`.
SUFFIXES = (".weights.h5", ".keras", ".pth", ".safetensors", ".h5")

_TORCHVISION = "https://download.pytorch.org/models/"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"

_TORCH = InputSpec()
_CAFFE = InputSpec(channels="BGR", mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0))
# torchvision's GoogLeNet and Inception v3 rescale their normalised input to [-1, 1] inside the
# network (`transform_input`); here the InputSpec says so, and the network does not.
_GOOGLE_224 = InputSpec(mean=(127.5,) * 3, std=(127.5,) * 3)
_GOOGLE_299 = replace(_GOOGLE_224, size_px=299)


@dataclass(frozen=True)
class WeightSet:
    """One published file of weights for one network.

    Args:
        network: name of the network.
        name: name of the set, unique within the network.
        url: where it is published.
        digest: "algorithm:hexadecimal"; the digits may be the first few of the hash, as where the
            publisher states it only in the file's name.
        input: what the network saw of an image when these weights were trained and evaluated.
        published: accuracy that the publisher reports for them.
    """

    network: str
    name: str
    url: str
    digest: str
    input: InputSpec
    published: Published

    @property
    def file(self) -> str:
        """The file's name, in the publisher's URL and in the cache."""
        return self.url.rpartition("/")[2]


def _torchvision(
    file: str,
    network: str,
    top1: float,
    top5: float,
    *,
    name: str = "imagenet",
    spec: InputSpec = _TORCH,
) -> WeightSet:
    """A torchvision file, whose name ends in the first eight digits of its SHA-256."""
    version = "IMAGENET1K_V2" if name == "imagenet-v2" else "IMAGENET1K_V1"
    return WeightSet(
        network,
        name,
        _TORCHVISION + file,
        "sha256:" + file.removesuffix(".pth").rpartition("-")[2],
        spec,
        Published(top1, top5, f"torchvision {version}, single centre crop"),
    )


def _torchvision_v2(file: str, network: str, top1: float, top5: float) -> WeightSet:
    """torchvision's second recipe, evaluated on a 224 px crop of a 232 px short side."""
    spec = InputSpec(crop_fraction=224 / 232)
    return _torchvision(file, network, top1, top5, name="imagenet-v2", spec=spec)


def _keras(
    path: str, md5: str, network: str, name: str, spec: InputSpec, top1: float, top5: float
) -> WeightSet:
    """A file of keras.applications; its source states the MD5, its site the accuracy.

    The MD5 is all that Keras publishes to know these files by: proof against accidents, though not
    against somebody who makes a file of the same MD5.
    The site does not say how it resized; the customary short side of size / 0.875 is assumed.
    """
    return WeightSet(
        network,
        name,
        f"{_KERAS}{path}_weights_tf_dim_ordering_tf_kernels.h5",
        f"md5:{md5}",
        spec,
        Published(top1, top5, "keras.applications, single centre crop"),
    )


_ROWS = (
    _torchvision("alexnet-owt-7be5be79.pth", "alexnet_owt", 56.522, 79.066),
    _torchvision("vgg11-8a719046.pth", "vgg11", 69.020, 88.628),
    _torchvision("vgg13-19584684.pth", "vgg13", 69.928, 89.246),
    _torchvision("vgg16-397923af.pth", "vgg16", 71.592, 90.382),
    _torchvision("vgg19-dcbb9e9d.pth", "vgg19", 72.376, 90.876),
    _torchvision("vgg11_bn-6002323d.pth", "vgg11_bn", 70.370, 89.810),
    _torchvision("vgg13_bn-abd245e5.pth", "vgg13_bn", 71.586, 90.374),
    _torchvision("vgg16_bn-6c64b313.pth", "vgg16_bn", 73.360, 91.516),
    _torchvision("vgg19_bn-c79401a0.pth", "vgg19_bn", 74.218, 91.842),
    _torchvision("googlenet-1378be20.pth", "googlenet_bn", 69.778, 89.530, spec=_GOOGLE_224),
    _torchvision(
        "inception_v3_google-0cc3c7bd.pth", "inception_v3", 77.294, 93.450, spec=_GOOGLE_299
    ),
    _torchvision("resnet18-f37072fd.pth", "resnet18", 69.758, 89.078),
    _torchvision("resnet34-b627a593.pth", "resnet34", 73.314, 91.420),
    _torchvision("resnet50-0676ba61.pth", "resnet50", 76.130, 92.862),
    _torchvision("resnet101-63fe2227.pth", "resnet101", 77.374, 93.546),
    _torchvision("resnet152-394f9c45.pth", "resnet152", 78.312, 94.046),
    _torchvision("resnext50_32x4d-7cdf4587.pth", "resnext50_32x4d", 77.618, 93.698),
    _torchvision("resnext101_32x8d-8ba56ff5.pth", "resnext101_32x8d", 79.312, 94.526),
    _torchvision("wide_resnet50_2-95faca4d.pth", "wide_resnet50_2", 78.468, 94.086),
    _torchvision_v2("resnet50-11ad3fa6.pth", "resnet50", 80.858, 95.434),
    _torchvision_v2("resnet101-cd907fc2.pth", "resnet101", 81.886, 95.780),
    _torchvision_v2("resnet152-f82ba261.pth", "resnet152", 82.284, 96.002),
    _torchvision_v2("resnext50_32x4d-1a0047aa.pth", "resnext50_32x4d", 81.198, 95.340),
    _torchvision_v2("resnext101_32x8d-110c445d.pth", "resnext101_32x8d", 82.834, 96.228),
    _torchvision_v2("wide_resnet50_2-9ba9bcbe.pth", "wide_resnet50_2", 81.602, 95.758),
    WeightSet(
        "seresnet50",
        "imagenet",
        _TIMM + "seresnet50_ra_224-8efdb4bb.pth",
        "sha256:8efdb4bb",
        InputSpec(interpolation="bicubic"),
        Published(80.26, 95.08, "timm ra2_in1k, single centre crop"),
    ),
    _keras(
        "vgg16/vgg16", "64373286793e3c8b2b4e3219cbf3544b",
        "vgg16", "imagenet-keras", _CAFFE, 71.3, 90.1,
    ),
    _keras(
        "vgg19/vgg19", "cbe5617147190e668d6c5d5026f83318",
        "vgg19", "imagenet-keras", _CAFFE, 71.3, 90.0,
    ),
    _keras(
        "inception_v3/inception_v3", "9a0d58056eeedaa3f26cb7ebd46da564",
        "inception_v3", "imagenet-keras", _GOOGLE_299, 77.9, 93.7,
    ),
    _keras(
        "resnet/resnet50", "2cb95161c43110f7111970584f804107",
        "resnet50_v1", "imagenet", _CAFFE, 74.9, 92.1,
    ),
    _keras(
        "resnet/resnet101", "f1aeb4b969a6efcfb50fad2f0c20cfc5",
        "resnet101_v1", "imagenet", _CAFFE, 76.4, 92.8,
    ),
    _keras(
        "resnet/resnet152", "100835be76be38e30d865e96f2aaae62",
        "resnet152_v1", "imagenet", _CAFFE, 76.6, 93.1,
    ),
    _keras(
        "resnet/resnet50v2", "3ef43a0b657b3be2300d5770ece849e0",
        "resnet50_v2", "imagenet", _GOOGLE_224, 76.0, 93.0,
    ),
    _keras(
        "resnet/resnet101v2", "6343647c601c52e1368623803854d971",
        "resnet101_v2", "imagenet", _GOOGLE_224, 77.2, 93.8,
    ),
    _keras(
        "resnet/resnet152v2", "a49b44d1979771252814e80f8ec446f9",
        "resnet152_v2", "imagenet", _GOOGLE_224, 78.0, 94.2,
    ),
)  # fmt: skip

WEIGHT_SETS: dict[tuple[str, str], WeightSet] = {(row.network, row.name): row for row in _ROWS}


def published_sets(network: str) -> list[WeightSet]:
    """The published sets of a network, its default first.

    Raises:
        ValueError: no network has this name.
    """
    known = card(network).name
    return [row for row in WEIGHT_SETS.values() if row.network == known]


def suffix(path: Path) -> str | None:
    """The one of `SUFFIXES` that a file's name ends in, if any."""
    return next((ending for ending in SUFFIXES if path.name.endswith(ending)), None)


def find(network: str, weights: str | os.PathLike[str]) -> WeightSet | Path:
    """What `weights` stands for: a published set of the network, or the path of a file.

    Raises:
        ValueError: an unknown network, or neither the name of one of its sets nor a file's suffix
            that can be read; the message lists both.
    """
    sets = {row.name: row for row in published_sets(network)}
    if weights in sets:
        return sets[weights]
    path = Path(weights)
    if suffix(path):
        return path
    names = ", ".join(repr(name) for name in sets) or "none published"
    raise ValueError(
        f"unknown weights {str(weights)!r} for {network}; its sets: {names}; "
        f"or give the path of a file that ends in one of {', '.join(SUFFIXES)}"
    )


def check_width(network: str, weights: str | os.PathLike[str] | None, width: float) -> None:
    """That a network can have this width with these weights.

    Raises:
        ValueError: it is not above 0, or it is another than that of a published set.
    """
    if not 0 < width < math.inf:
        raise ValueError(f"width is {width}; it is above 0, and 1 as published")
    if width != 1 and weights in [row.name for row in published_sets(network)]:
        raise ValueError(
            f"width is {width}, and {weights!r} of {network} was trained at 1; leave out one"
        )


def input_spec(network: str, weights: str | os.PathLike[str] | None = None) -> InputSpec:
    """What a network with these weights sees of an image.

    A file is taken for the published set that bears its name, else for the network's first set of
    the same format; weights of our own formats, or none, see what the network's card says.

    Raises:
        ValueError: as `find`.
    """
    if weights is None:
        return card(network).input
    found = find(network, weights)
    if isinstance(found, WeightSet):
        return found.input
    sets = published_sets(network)
    alike = [row for row in sets if row.file == found.name] or [
        row for row in sets if suffix(Path(row.file)) == suffix(found)
    ]
    return (alike[0] if alike else card(network)).input
