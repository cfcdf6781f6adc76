"""Running an exported network: the same pixels in, the same probabilities out, in each format."""

import importlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from keras_zoo.quiet import native_messages_held_back
from pipelines.data.parallel import available_cores
from pipelines.errors import BadInput
from pipelines.exporting.card import read_card

# uint8 pixels (B, S, S, C) -> float32 probabilities (B, num_classes); from any thread.
Engine = Callable[[np.ndarray], np.ndarray]


def open_engine(version: Path, name: str) -> Engine:
    """Opens one of the formats of an exported model.

    Args:
        version: `<models>/<name>/<version>`.
        name: `savedmodel`, `onnx`, `litert`, `openvino`, or one of these behind which stands how it
            is compressed: `openvino-int8`.

    Raises:
        BadInput: the model was not exported in this format, and verified, or what runs it is not
            installed.
    """
    formats = (read_card(version) or {}).get("formats", {})
    if name not in formats:
        raise BadInput(
            f"{str(version)!r} has no verified {name!r}; it has "
            f"{', '.join(formats) or 'none'}; python -m pipelines.export --format writes more"
        )
    return open_format(name, version / formats[name]["file"])


def open_format(name: str, file: Path) -> Engine:
    """Opens the file of a format, verified or not.

    Raises:
        BadInput: what runs it is not installed.
    """
    return RUNTIMES[name.partition("-")[0]](file)


def _open_saved_model(file: Path) -> Engine:
    loaded = tf.saved_model.load(file.parent)
    return lambda pixels: loaded.classify(pixels).numpy()


def _open_onnx(file: Path) -> Engine:
    onnxruntime = _import("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda pixels: session.run(None, {given.name: pixels})[0]


def _open_openvino(file: Path) -> Engine:
    openvino = _import("openvino")
    # Else it would compute in bfloat16 where the processor can.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = off_this_thread(openvino.compile_model, file, "CPU", settings)
    return lambda pixels: compiled.infer_new_request({0: pixels})[0]


def _open_litert(file: Path) -> Engine:
    # It tells how it computes.
    with native_messages_held_back():
        interpreter = _import("ai_edge_litert.interpreter").Interpreter(
            str(file), num_threads=available_cores()
        )
        interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    alone = threading.Lock()

    def run(pixels: np.ndarray) -> np.ndarray:
        with alone:
            interpreter.resize_tensor_input(taken["index"], pixels.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(taken["index"], pixels)
            interpreter.invoke()
            return interpreter.get_tensor(given["index"])

    return run


def off_this_thread(function: Callable, *arguments: Any) -> Any:
    """What a function that compiles with OpenVINO returns, called in a thread that then ends.

    OpenVINO gives the thread that compiles a model a stack for signals, and frees it with the
    model. A signal that the thread handles afterwards ends the process with a segmentation fault;
    Python handles them in the main thread, a server's SIGTERM for example.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *arguments).result()


def _import(module: str) -> ModuleType:
    """Imports what only some formats need."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"{error.name} is not installed: pip install 'imagenet-classics-zoo[formats]'"
        ) from error


RUNTIMES = {
    "savedmodel": _open_saved_model,
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "litert": _open_litert,
}
