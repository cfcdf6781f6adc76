"""Weights into a model: published sets, files of ours, of torchvision and of keras.applications.

A file is read into a flat mapping of arrays, the mapping is checked against the model as a whole,
and only then is anything assigned. Reading executes nothing: `.pth` is unpickled under torch's
`weights_only`, of a `.keras` file only the arrays are read, never the model that it describes, and
HDF5 links out of the file are refused.
"""

import importlib
import logging
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from types import ModuleType

import h5py
import keras
import numpy as np

from keras_zoo.convert import load_keras_state, load_torch_state
from keras_zoo.download import cache_folder, fetch
from keras_zoo.weight_sets import SUFFIXES, WeightSet, find, suffix

State = Mapping[str, np.ndarray]

logger = logging.getLogger(__name__)

# What the classifier's bias is called: by torchvision and timm, by keras.applications, by us.
_HEAD_BIASES = ("fc.bias", "classifier.6.bias", "predictions/bias", "probs/bias", "logits/1")

# Layers that a smaller build of the same network leaves out: auxiliary heads, the classifier.
_OPTIONAL_LAYERS = ("aux", "fc", "logits")


def load(model: keras.Model, name: str, weights: str | os.PathLike[str]) -> None:
    """Loads weights into a model that `keras_zoo.build` made.

    Where the file's classifier has another number of classes than the model's, the model's is left
    fresh, all else is loaded, and a warning in the log says so.

    Args:
        model: the network, with fresh weights.
        name: its name.
        weights: name of a published set, or the path of a `.weights.h5`, `.keras`, `.pth`,
            `.safetensors` or legacy `.h5` file.

    Raises:
        ValueError: there is no such set or file, it cannot be fetched or read, or it is not of
            this network; the model is then as it was.
    """
    found = find(name, weights)
    path = fetch(found.url, found.digest, cache_folder()) if isinstance(found, WeightSet) else found
    state = read_state(path)
    classes, stored = _classes(model), _stored_classes(state, path)
    if _has_aux_heads(model) and not any(key.lower().startswith("aux") for key in state):
        raise ValueError(f"{path} has no auxiliary heads; leave out aux_heads")
    _, assign = _FORMATS[suffix(path)]
    assign(model, name, state, head=classes is not None and classes == stored)
    if classes not in (None, stored):
        logger.warning(
            "%s: the classifier of %d classes is fresh (%s has %s); all else is loaded",
            name,
            classes,
            path.name,
            stored or "none",
        )


def _classes(model: keras.Model) -> int | None:
    """The width of the model's classifier; none for a model of features."""
    return next((layer.units for layer in model.layers if layer.name == "logits"), None)


def _stored_classes(state: State, path: Path) -> int | None:
    """The width of the stored classifier; none if there is no classifier."""
    key = next((key for key in _HEAD_BIASES if key in state), None)
    if key is None:
        return None
    if state[key].ndim != 1:
        raise ValueError(
            f"{path}: {key!r} is {state[key].shape}; the bias of a classifier has one dimension"
        )
    return len(state[key])


def num_stored_classes(path: Path) -> int | None:
    """The width of the classifier in a weights file; none if there is no classifier.

    Raises:
        ValueError: as `read_state`.
    """
    return _stored_classes(read_state(path), path)


def _has_aux_heads(model: keras.Model) -> bool:
    return any(layer.name.startswith("aux") for layer in model.layers)


def read_state(path: Path) -> State:
    """The arrays of a weights file by name, in the names of the program that wrote it.

    Those of torchvision and timm are theirs; those of keras.applications are `layer/variable`;
    ours are `layer/index`, in the order of the layer's weights, whether the network stands alone or
    within a model that prepares its input.

    Raises:
        ValueError: another suffix, no such file, or it cannot be read as what its suffix says.
    """
    if suffix(path) is None:
        raise ValueError(f"{path} ends in none of {', '.join(SUFFIXES)}")
    read, _ = _FORMATS[suffix(path)]
    if not path.is_file():
        raise ValueError(f"no file at {path}")
    try:
        return read(path)
    # A damaged or hostile file makes its parser raise almost anything.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"cannot load {path}: {reason}") from error


def _optional(module: str) -> ModuleType:
    """Imports what only some files need."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ValueError(f"it needs {package}: pip install {package}") from error


def _read_pth(path: Path) -> State:
    torch = _optional("torch")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("not a plain state dict; nothing in it was executed") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and torch.is_tensor(value) for key, value in state.items()
    ):
        raise ValueError("not a state dict: names and tensors, nothing else")
    return {key: tensor.detach().float().numpy() for key, tensor in state.items()}


def _read_safetensors(path: Path) -> State:
    state = _optional("safetensors.numpy").load_file(path)
    return {key: array.astype(np.float32) for key, array in state.items()}


def _read_archive(path: Path) -> State:
    """The weights within a whole saved model, a zip archive, as `layer/index`."""
    with zipfile.ZipFile(path) as archive:
        return _read_weights(BytesIO(archive.read("model.weights.h5")))


def _read_weights(file: Path | BytesIO) -> State:
    """What `model.save_weights` writes, as `layer/index`."""
    state = {}
    with h5py.File(file) as opened:
        for key, array in _arrays(opened):
            if key in state:
                raise ValueError(f"it has two {key!r}")
            state[key] = array
    return state


def _arrays(model: h5py.Group) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a stored model's layers and of the models among its layers."""
    layers = _inside(model, "layers")
    for name in layers:
        layer = _inside(layers, name)
        if "layers" in layer:
            yield from _arrays(layer)
        variables = _inside(layer, "vars")
        for index in variables:
            yield f"{variables.attrs['name']}/{index}", _inside(variables, index)[()]


def _read_legacy(path: Path) -> State:
    """A weights file of Keras 1 or 2, as `layer/variable` with today's variable names.

    Such files hold the variables of a layer in its order, and name them in several ways.
    """
    with h5py.File(path) as file:
        layers = {
            layer: [_inside(_inside(file, layer), weight)[()] for weight in _names(file, layer)]
            for layer in map(_text, file.attrs["layer_names"])
        }
    return {
        f"{layer}/{variable}": array
        for layer, arrays in layers.items()
        if arrays
        for variable, array in zip(_variables(arrays), arrays, strict=True)
    }


def _names(file: h5py.File, layer: str) -> list[str]:
    return [_text(name) for name in _inside(file, layer).attrs["weight_names"]]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _variables(arrays: list[np.ndarray]) -> tuple[str, ...]:
    """The names of a layer's variables: a kernel and its bias, or a batch normalisation's."""
    if arrays[0].ndim > 1:
        return ("kernel", "bias")[: len(arrays)]
    return ("gamma", "beta", "moving_mean", "moving_variance")[-len(arrays) :]


def _inside(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset:
    """A member of an HDF5 file that lies in the file itself, not behind a link out of it."""
    for name in path.split("/"):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"it has no {path!r} of its own")
        group = group[name]
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise ValueError(f"its {path!r} lies outside the file")
    return group


def _load_own_state(model: keras.Model, name: str, state: State, *, head: bool = True) -> None:
    """Assigns `layer/index` arrays, name by name, to a model of ours.

    Raises:
        ValueError: a variable is missing, unknown or of another shape; nothing is assigned.
    """
    variables = {
        f"{layer.name}/{index}": variable
        for layer in model.layers
        for index, variable in enumerate(layer.weights)
        if head or not layer.name.endswith("logits")
    }
    missing = [key for key in variables if key not in state]
    unknown = [
        key for key in state if key not in variables and not key.startswith(_OPTIONAL_LAYERS)
    ]
    for fault, keys in (("lack", missing), ("have an unknown", unknown)):
        if keys:
            raise ValueError(f"the weights {fault} {keys[0]!r}; are they those of {name}?")
    for key, variable in variables.items():
        if state[key].shape != tuple(variable.shape):
            raise ValueError(
                f"{key!r} is {state[key].shape} in the weights and {tuple(variable.shape)} "
                f"in {name}; are they those of {name}, at this input_shape and width?"
            )
    for key, variable in variables.items():
        variable.assign(state[key])


_FORMATS = {
    ".weights.h5": (_read_weights, _load_own_state),
    ".keras": (_read_archive, _load_own_state),
    ".pth": (_read_pth, load_torch_state),
    ".safetensors": (_read_safetensors, load_torch_state),
    ".h5": (_read_legacy, load_keras_state),
}
