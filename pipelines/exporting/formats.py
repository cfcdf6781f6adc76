"""The network in other formats: what each is called, its file, and who writes it.

Each takes `pixels`, uint8 `(B, S, S, C)`, and gives probabilities, float32 `(B, num_classes)`: the
images are prepared outside. Keras's own exporters write the float32 files (through tf2onnx,
OpenVINO and TensorFlow Lite), and each runtime's own tools compress them.

`int8` quantises weights and activations, whose ranges come from training images; `dynamic` the
weights, and activations as they come; `float16` stores half the bits of the weights.
"""

import contextlib
import importlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_zoo.quiet import native_messages_held_back
from pipelines.errors import BadInput, Failed
from pipelines.exporting.engines import off_this_thread


class Network(NamedTuple):
    """What is written.

    Args:
        model: uint8 images -> logits, as `for_inference` gives it.
        calibration: uint8 `(N, S, S, C)`, training images; needed for `int8` alone.
    """

    model: keras.Model
    calibration: np.ndarray | None

    def probabilities(self) -> keras.Model:
        """uint8 images -> probabilities."""
        model = keras.Model(self.model.input, keras.layers.Softmax()(self.model.output))
        # Keras exports what has been called.
        model(np.zeros((1, *model.input.shape[1:]), np.uint8))
        return model

    def one_by_one(self) -> Iterator[np.ndarray]:
        """Each calibration image as a batch of its own."""
        return iter(self.calibration[:, np.newaxis])


class Format(NamedTuple):
    """A file that holds the network.

    Args:
        file: its path in the version's folder.
        write: (the network, the version's folder, the file) -> None.
        weights: the pattern of the paths of what belongs to it, where one file is not all.
    """

    file: str
    write: Callable[[Network, Path, Path], None]
    weights: str | None = None


def write_formats(network: Network, names: list[str], folder: Path) -> None:
    """Writes the network in some formats, in their order: a compressed one is made of its own.

    Raises:
        BadInput: a package that writes one is not installed.
        Failed: one cannot be written.
    """
    for name in names:
        file = folder / FORMATS[name].file
        file.parent.mkdir(exist_ok=True)
        try:
            with _quietly():
                FORMATS[name].write(network, folder, file)
        except ImportError as error:
            raise BadInput(
                f"{name} needs {error.name or error}: pip install 'imagenet-classics-zoo[formats]'"
            ) from error
        # Converters raise almost anything.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise Failed(f"{name} cannot be written ({reason}); leave it out") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Converters tell of their progress, and use what others deprecate."""
    with (
        native_messages_held_back(),
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _keras_export(kind: str, network: Network, _: Path, file: Path, **options: Any) -> None:
    network.probabilities().export(str(file), format=kind, verbose=False, **options)


def _litert(network: Network, folder: Path, file: Path, **options: Any) -> None:
    compress = [tf.lite.Optimize.DEFAULT]
    _keras_export("litert", network, folder, file, optimizations=compress, **options)


def _litert_int8(network: Network, folder: Path, file: Path) -> None:
    def ranges_of() -> Iterator[list[np.ndarray]]:
        return ([image] for image in network.one_by_one())

    _litert(network, folder, file, representative_dataset=ranges_of)


def _onnx_int8(network: Network, folder: Path, file: Path) -> None:
    quantization = _import("onnxruntime.quantization")

    class Calibration(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = network.one_by_one()

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"pixels": image}

    with _onnx_prepared(folder) as prepared:
        quantization.quantize_static(prepared, file, Calibration(), per_channel=True)


def _onnx_dynamic(_: Network, folder: Path, file: Path) -> None:
    with _onnx_prepared(folder) as prepared:
        _import("onnxruntime.quantization").quantize_dynamic(prepared, file)


@contextlib.contextmanager
def _onnx_prepared(folder: Path) -> Iterator[Path]:
    """The float32 file with shapes inferred and what is constant computed."""
    preparation = _import("onnxruntime.quantization.shape_inference")
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch, "prepared.onnx")
        preparation.quant_pre_process(
            folder / FORMATS["onnx"].file, prepared, skip_symbolic_shape=True
        )
        yield prepared


def _openvino_int8(network: Network, folder: Path, file: Path) -> None:
    openvino, nncf = _import("openvino"), _import("nncf")
    nncf.set_log_level(logging.ERROR)
    images = nncf.Dataset(network.one_by_one())
    model = openvino.Core().read_model(folder / FORMATS["openvino"].file)
    quantize = partial(nncf.quantize, model, images, subset_size=len(network.calibration))
    openvino.save_model(off_this_thread(quantize), file)


def _openvino_float16(_: Network, folder: Path, file: Path) -> None:
    openvino = _import("openvino")
    model = openvino.Core().read_model(folder / FORMATS["openvino"].file)
    openvino.save_model(model, file, compress_to_fp16=True)


def _import(module: str) -> ModuleType:
    """Imports what only some formats need."""
    return importlib.import_module(module)


FORMATS = {
    "onnx": Format("model.onnx", partial(_keras_export, "onnx")),
    "onnx-int8": Format("model.int8.onnx", _onnx_int8),
    "onnx-dynamic": Format("model.dynamic.onnx", _onnx_dynamic),
    "litert": Format("model.tflite", partial(_keras_export, "litert")),
    "litert-int8": Format("model.int8.tflite", _litert_int8),
    "litert-dynamic": Format("model.dynamic.tflite", _litert),
    "litert-float16": Format(
        "model.float16.tflite", partial(_litert, target_spec={"supported_types": [tf.float16]})
    ),
    "openvino": Format(
        "openvino/model.xml", partial(_keras_export, "openvino"), "openvino/model.bin"
    ),
    "openvino-int8": Format("openvino/model.int8.xml", _openvino_int8, "openvino/model.int8.bin"),
    "openvino-float16": Format(
        "openvino/model.float16.xml", _openvino_float16, "openvino/model.float16.bin"
    ),
}
