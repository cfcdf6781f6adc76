"""Weights that other libraries publish, put into our networks.

A state is a mapping from names to arrays: the `state_dict` of a torchvision or timm network, or the
`layer/variable` names of a keras.applications one. For each of them a `Counterpart` says what our
layers are called there; arrays change layout on the way (torch keeps channels first). Everything is
checked before anything is assigned.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import layers

from keras_zoo import resnet, resnet_v1, resnet_v2, vgg

LayerNames = Callable[[keras.Model], Mapping[str, str]]


@dataclass(frozen=True)
class Counterpart:
    """A network as another library writes it.

    Args:
        layer_names: from a model of ours to the name that each of its layers has there.
        heads: prefixes of names there, and the layer of ours without which they have no place.
        constants: values of those variables of ours that are not stored there.
    """

    layer_names: LayerNames
    heads: Mapping[str, str]
    constants: Mapping[str, float] = field(default_factory=dict)


def load_torch_state(
    model: keras.Model, name: str, state: Mapping[str, np.ndarray], *, head: bool = True
) -> None:
    """Puts the state of torchvision's or timm's network into ours.

    Args:
        model: what `build(name)` gave, with or without its top or auxiliary heads.
        name: one of `list_models()` that torchvision or timm has.
        state: float32 arrays by their names in the `state_dict`.
        head: whether to load the classifiers; without it they stay fresh, of any width.

    Raises:
        ValueError: no counterpart by that name, or names or shapes of `state` that are not those
            of this network; the model is then as it was.
    """
    counterpart = _find(TORCH, name, "torchvision or timm")
    _load(model, counterpart, state, head, _torch_key, _from_torch)


def load_keras_state(
    model: keras.Model, name: str, state: Mapping[str, np.ndarray], *, head: bool = True
) -> None:
    """Puts the state of keras.applications' network into ours.

    Args:
        model: what `build(name)` gave, with or without its top.
        name: one of `list_models()` that keras.applications has.
        state: float32 arrays by `layer/variable`, as in `conv1_conv/kernel`. Layers numbered by
            Keras (`conv2d_7`) may begin at any number.
        head: whether to load the classifier; without it, it stays fresh, of any width.

    Raises:
        ValueError: as in `load_torch_state`.
    """
    counterpart = _find(KERAS, name, "keras.applications")
    _load(model, counterpart, _canonical(state), head, _keras_key, _from_keras)


def _find(counterparts: Mapping[str, Counterpart], name: str, library: str) -> Counterpart:
    if name not in counterparts:
        raise ValueError(f"{library} has no {name!r}; it has {', '.join(counterparts)}")
    return counterparts[name]


def _load(
    model: keras.Model,
    counterpart: Counterpart,
    state: Mapping[str, np.ndarray],
    head: bool,
    key_of: Callable[[str, str], str],
    array_of: Callable[[keras.Model, layers.Layer, np.ndarray], np.ndarray],
) -> None:
    names = counterpart.layer_names(model)
    assignments, fresh, missing = [], set(), []
    for layer in model.layers:
        for variable in layer.weights:
            key = key_of(names[layer.name], variable.name)
            if layer.name.endswith("logits") and not head:
                fresh.add(key)
            elif key in state:
                assignments.append((key, variable, array_of(model, layer, state[key])))
            elif variable.name in counterpart.constants:
                value = np.full(variable.shape, counterpart.constants[variable.name], "float32")
                assignments.append((key, variable, value))
            else:
                missing.append(key)
    ours = {layer.name for layer in model.layers}
    absent = tuple(prefix for prefix, owner in counterpart.heads.items() if owner not in ours)
    used = fresh | {key for key, _, _ in assignments}
    unexpected = [
        key
        for key in state
        if key not in used and not key.startswith(absent) and not key.endswith(_BOOKKEEPING)
    ]
    _check_names(model.name, missing, unexpected)
    for key, variable, array in assignments:
        if array.shape != tuple(variable.shape):
            raise ValueError(
                f"{key} gives {array.shape} for {variable.path} of {model.name}, which takes "
                f"{tuple(variable.shape)}; the state may be of another network, number of classes, "
                "input size or width: build as published, or with include_top=False"
            )
    for _, variable, array in assignments:
        variable.assign(array)


def _check_names(name: str, missing: list[str], unexpected: list[str]) -> None:
    complaints = [
        f"{what} {keys[0]!r}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
        for what, keys in (("lacks", missing), ("has the unknown", unexpected))
        if keys
    ]
    if complaints:
        raise ValueError(
            f"not the weights of {name}: the state {' and '.join(complaints)}; "
            "it may be of another network"
        )


# A count of batches that torch's batch normalisation keeps and evaluation does not use.
_BOOKKEEPING = "num_batches_tracked"
_TORCH_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _torch_key(layer_name: str, variable_name: str) -> str:
    return f"{layer_name}.{_TORCH_VARIABLES.get(variable_name, variable_name)}"


def _from_torch(model: keras.Model, layer: layers.Layer, array: np.ndarray) -> np.ndarray:
    """From torch's layout to ours: `(F, C, H, W)` to `(H, W, C, F)`, `(F, C)` to `(C, F)`."""
    if array.ndim == 2 and layer.name.endswith("fc1"):
        # This layer reads a flattened feature map, which torch flattens channels first.
        height, width, channels = model.get_layer(_flatten_before(layer)).input.shape[1:]
        if array.shape[1] == channels * height * width:
            array = array.reshape(-1, channels, height, width)
            return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _flatten_before(layer: layers.Layer) -> str:
    return layer.name.removesuffix("fc1") + "flatten"


def _keras_key(layer_name: str, variable_name: str) -> str:
    return f"{layer_name}/{variable_name}"


def _from_keras(model: keras.Model, layer: layers.Layer, array: np.ndarray) -> np.ndarray:
    return array


_NUMBERED = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?/")


def _canonical(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same state with numbered layers counted from 1 and the classifier under one name."""
    numbers: dict[str, set[int]] = {}
    for match in map(_NUMBERED.match, state):
        if match:
            numbers.setdefault(match[1], set()).add(int(match[2] or 0))
    ranks = {
        (kind, number): rank
        for kind, found in numbers.items()
        for rank, number in enumerate(sorted(found), start=1)
    }

    def renumber(match: re.Match) -> str:
        return f"{match[1]}_{ranks[match[1], int(match[2] or 0)]}/"

    # ResNet's published files call `predictions` what they were trained as, `probs`.
    return {
        re.sub("^probs/", "predictions/", _NUMBERED.sub(renumber, key)): array
        for key, array in state.items()
    }


def _renamed(*rules: tuple[str, str | Callable[[re.Match], str]]) -> LayerNames:
    """Layer names by substitutions, all of them, one after the other."""

    def layer_names(model: keras.Model) -> dict[str, str]:
        return {layer.name: _substitute(layer.name, rules) for layer in model.layers}

    return layer_names


def _substitute(name: str, rules: Iterable) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _sequential(classifier: Mapping[str, str]) -> LayerNames:
    """Layer names of a torch `Sequential`, which numbers every layer of the features."""

    def layer_names(model: keras.Model) -> dict[str, str]:
        numbered = (
            layer.name
            for layer in model.layers
            if isinstance(
                layer,
                layers.Conv2D | layers.BatchNormalization | layers.ReLU | layers.MaxPooling2D,
            )
        )
        return {
            **{layer.name: layer.name for layer in model.layers},
            **{name: f"features.{index}" for index, name in enumerate(numbered)},
            **classifier,
        }

    return layer_names


def _in_order_of_creation(model: keras.Model) -> dict[str, str]:
    """Inception v3 in Keras: layers without names, numbered; ours in alphabetical order."""
    names = {layer.name: layer.name for layer in model.layers} | {"logits": "predictions"}
    for suffix, kind in (("_conv", "conv2d"), ("_bn", "batch_normalization")):
        ours = sorted(n for n in names if n.endswith(suffix) and not n.startswith("aux"))
        names |= {name: f"{kind}_{rank}" for rank, name in enumerate(ours, start=1)}
    return names


_TORCH_RESNET = Counterpart(
    _renamed(
        (r"^stem_(conv|bn)$", r"\g<1>1"),
        (r"^stage(\d)_block(\d+)_", lambda match: f"layer{match[1]}.{int(match[2]) - 1}."),
        (r"(\d)_(conv|bn)$", r"\2\1"),
        (r"shortcut_conv$", "downsample.0"),
        (r"shortcut_bn$", "downsample.1"),
        (r"se_reduce_conv$", "se.fc1"),
        (r"se_expand_conv$", "se.fc2"),
        (r"^logits$", "fc"),
    ),
    heads={"fc.": "logits"},
)
_TORCH_GOOGLENET = Counterpart(
    _renamed(
        (r"_(conv|bn)$", r".\1"),
        (r"^conv2\.", "conv3."),
        (r"^conv2_reduce\.", "conv2."),
        (r"_1x1\.", ".branch1."),
        (r"_3x3_reduce\.", ".branch2.0."),
        (r"_3x3\.", ".branch2.1."),
        (r"_5x5_reduce\.", ".branch3.0."),
        (r"_5x5\.", ".branch3.1."),
        (r"_projection\.", ".branch4.1."),
        (r"^(aux\d)_conv1\.", r"\1.conv."),
        (r"^(aux\d)_fc1$", r"\1.fc1"),
        (r"^(aux\d)_logits$", r"\1.fc2"),
        (r"^logits$", "fc"),
    ),
    heads={"fc.": "logits", "aux1.": "aux1_logits", "aux2.": "aux2_logits"},
)
_TORCH_INCEPTION_V3 = Counterpart(
    _renamed(
        (r"_(conv|bn)$", r".\1"),
        (r"^conv(1a|2a|2b|4a)\.", r"Conv2d_\1_3x3."),
        (r"^conv3b\.", "Conv2d_3b_1x1."),
        (r"^mixed(\d\w)_", r"Mixed_\1.branch"),
        (r"branchdouble(\dx\d)", r"branch\1dbl"),
        (r"branchpool", "branch_pool"),
        (r"^aux1_conv1\.", "AuxLogits.conv0."),
        (r"^aux1_conv2\.", "AuxLogits.conv1."),
        (r"^aux1_logits$", "AuxLogits.fc"),
        (r"^logits$", "fc"),
    ),
    heads={"fc.": "logits", "AuxLogits.": "aux1_logits"},
    constants={"counts_padding": 1.0},
)
_TORCH_ALEXNET = Counterpart(
    _sequential({"fc1": "classifier.1", "fc2": "classifier.4", "logits": "classifier.6"}),
    heads={"classifier.": "logits"},
)
_TORCH_VGG = Counterpart(
    _sequential({"fc1": "classifier.0", "fc2": "classifier.3", "logits": "classifier.6"}),
    heads={"classifier.": "logits"},
)
TORCH: Mapping[str, Counterpart] = {
    "alexnet_owt": _TORCH_ALEXNET,
    **dict.fromkeys(vgg.NETWORKS, _TORCH_VGG),
    "googlenet_bn": _TORCH_GOOGLENET,
    "inception_v3": _TORCH_INCEPTION_V3,
    **dict.fromkeys(resnet.NETWORKS, _TORCH_RESNET),
}

_KERAS_VGG = Counterpart(
    _renamed((r"^stage(\d)_(\d)_conv$", r"block\1_conv\2"), (r"^logits$", "predictions")),
    heads={"fc1/": "logits", "fc2/": "logits", "predictions/": "logits"},
)
_KERAS_INCEPTION_V3 = Counterpart(
    _in_order_of_creation,
    heads={"predictions/": "logits"},
    # Keras's batch normalisation has no scale there.
    constants={"counts_padding": 0.0, "gamma": 1.0},
)
_KERAS_RESNET = Counterpart(
    _renamed(
        (r"^stem_", "conv1_"),
        (r"^stage(\d)_", lambda match: f"conv{int(match[1]) + 1}_"),
        (r"shortcut_", "0_"),
        (r"^logits$", "predictions"),
    ),
    heads={"predictions/": "logits"},
)
KERAS: Mapping[str, Counterpart] = {
    **dict.fromkeys(("vgg16", "vgg19"), _KERAS_VGG),
    "inception_v3": _KERAS_INCEPTION_V3,
    **dict.fromkeys([*resnet_v1.NETWORKS, *resnet_v2.NETWORKS], _KERAS_RESNET),
}
