"""One loaded version of an exported model: each signature as what one item and what a batch needs.

A SavedModel's signature takes a batch of files, and one that cannot be decoded fails them all. Here
the same functions are called apart: the preprocessing for each item on its own, the network for as
many items as there are.
"""

import io
import struct
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from pipelines.config import ServeConfig
from pipelines.errors import BadInput, Failed
from pipelines.exporting.engines import open_engine
from pipelines.serving.batching import Batcher
from pipelines.serving.observing import Metrics

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
MEGAPIXEL = 1_000_000
# What the blocks of a GIF begin with.
EXTENSION, IMAGE = 0x21, 0x2C


class Signature(NamedTuple):
    """One of the questions that a model answers.

    Args:
        input_name: `image_bytes` or `images`.
        spec: the batch that the SavedModel takes: string `(None,)`, or uint8 `(None, None, None,
            3)`.
        preprocess: one item -> uint8 `(S, S, C)`; BadInput where it is no image.
        network: the pixels of one item -> its row, several at a time.
        outputs: rows `(B, ...)` -> the named outputs, `(B, ...)` each.
    """

    input_name: str
    spec: tf.TensorSpec
    preprocess: Callable[[Any], np.ndarray]
    network: Batcher
    outputs: Callable[[np.ndarray], dict[str, np.ndarray]]


class ServedVersion(NamedTuple):
    """A version that answers.

    Args:
        name: the model's.
        number: the version's.
        signatures: by their names in the SavedModel.
        definitions: what the SavedModel says of them, as JSON has it.
        labels: the classes' names, in the order of their numbers.
        explain: the pixels of one item and a class's number -> where the class was seen, float32
            `(h, w)` in [0, 1].
    """

    name: str
    number: int
    signatures: dict[str, Signature]
    definitions: dict[str, Any]
    labels: list[str]
    explain: Batcher

    def signature(self, name: str) -> Signature:
        """The signature of that name.

        Raises:
            BadInput: there is none.
        """
        if name not in self.signatures:
            raise BadInput(
                f"unknown signature {name[:80]!r}; {self.name} has {', '.join(self.signatures)}"
            )
        return self.signatures[name]


class Loader:
    """Opens versions, for one server.

    Args:
        config: the engine, and the sizes of images and batches.
        metrics: where the batches are counted.
    """

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        # One network at a time: each takes all cores.
        self._network: Executor = ThreadPoolExecutor(1, "network")

    def load(self, folder: Path) -> ServedVersion:
        """Loads `<models>/<name>/<number>` and runs it, so that the first request finds it warm.

        Raises:
            Exception: it does not load, or does not answer.
        """
        loaded = tf.saved_model.load(folder)
        _warm(_only(loaded.preprocess))
        graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        labels = _labels(loaded)
        top_k = loaded.signatures["serving_default"].structured_outputs["probabilities"].shape[1]
        classify = self._batcher(folder, loaded, "classify", self._classify(folder, loaded))
        signatures = {
            "serving_default": Signature(
                *_input(loaded, "serving_default"),
                self._from_bytes(_only(loaded.preprocess)),
                classify,
                _most_probable(labels, top_k),
            ),
            "image_tensor": Signature(
                *_input(loaded, "image_tensor"),
                self._from_array(_only(loaded.preprocess_image)),
                classify,
                _most_probable(labels, top_k),
            ),
            "features": Signature(
                *_input(loaded, "features"),
                self._from_bytes(_only(loaded.preprocess)),
                self._batcher(folder, loaded, "embed", _over_arrays(loaded.embed)),
                lambda features: {"features": features},
            ),
        }
        definitions = {
            name: MessageToDict(definition, preserving_proto_field_name=True)
            for name, definition in graph.meta_graphs[0].signature_def.items()
        }
        return ServedVersion(
            name=folder.parent.name,
            number=int(folder.name),
            signatures=signatures,
            definitions=definitions,
            labels=labels,
            explain=self._batcher(folder, loaded, "explain", _over_arrays(loaded.explain)),
        )

    def _classify(self, folder: Path, loaded: Any) -> Callable[[np.ndarray], np.ndarray]:
        """Pixels -> probabilities, by the engine of the config."""
        if self._config.engine == "savedmodel":
            return _over_arrays(loaded.classify)
        return open_engine(folder, self._config.engine)

    def _batcher(
        self, folder: Path, loaded: Any, name: str, function: Callable[..., np.ndarray]
    ) -> Batcher:
        """A function over batches of what the SavedModel's of that name takes, warmed up."""
        inputs = _only(getattr(loaded, name)).structured_input_signature[0]
        labels = (folder.parent.name, int(folder.name), name)
        images = self._metrics.images.labels(*labels)
        seconds = self._metrics.network_seconds.labels(*labels)

        def observe(size: int, network_s: float) -> None:
            images.inc(size)
            seconds.observe(network_s)

        for size in (1, self._config.max_batch):
            function(*(np.zeros((size, *i.shape[1:]), i.dtype.as_numpy_dtype) for i in inputs))
        return Batcher(
            function,
            self._config.max_batch,
            self._config.batch_delay_ms / 1e3,
            self._network,
            observe,
        )

    def _from_bytes(self, preprocess: Callable) -> Callable[[bytes], np.ndarray]:
        def pixels(encoded: bytes) -> np.ndarray:
            self._require_size(*_size(encoded))
            try:
                return preprocess(tf.constant(encoded)).numpy()
            except tf.errors.InvalidArgumentError as error:
                raise BadInput(f"is not a whole image ({_reason(error)})") from error

        return pixels

    def _from_array(self, preprocess: Callable) -> Callable[[np.ndarray], np.ndarray]:
        def pixels(image: np.ndarray) -> np.ndarray:
            self._require_size(image.shape[1], image.shape[0])
            return preprocess(tf.constant(image)).numpy()

        return pixels

    def _require_size(self, width_px: int, height_px: int, frames: int = 1) -> None:
        if not 0 < width_px * height_px * frames <= self._config.max_image_mpx * MEGAPIXEL:
            of = f"{frames} frames of " if frames > 1 else ""
            raise BadInput(
                f"has {of}{width_px} x {height_px} px; "
                f"at most {self._config.max_image_mpx} megapixels"
            )


def _size(encoded: bytes) -> tuple[int, int, int]:
    """`(width, height, frames)` as a file declares them; nothing is decoded.

    TensorFlow decodes all frames of an animation, to give the first, and makes room for each as if
    it were as large as the largest.

    Raises:
        BadInput: no head of an image.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        if image.format == "GIF":
            return _gif_size(encoded)
        return *image.size, getattr(image, "n_frames", 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(f"has too many pixels ({error})") from error
    # Pillow raises whatever a broken file leads it to.
    except Exception as error:
        raise BadInput(f"is not an image ({', '.join(FORMATS)})") from error


def _gif_size(encoded: bytes) -> tuple[int, int, int]:
    """`(width, height, frames)` of a GIF: the largest of its screen and its frames, that may be
    larger than the screen (GIF89a specification, sections 18 to 24).
    """
    width, height = struct.unpack_from("<HH", encoded, 6)
    frames, at = 0, 13 + _colour_table_bytes(encoded[10])
    while at < len(encoded) and encoded[at] in (EXTENSION, IMAGE):
        if encoded[at] == IMAGE:
            x, y, across, down, flags = struct.unpack_from("<HHHHB", encoded, at + 1)
            width, height = max(width, x + across), max(height, y + down)
            frames += 1
            at += 11 + _colour_table_bytes(flags)
        else:
            at += 2
        while at < len(encoded) and encoded[at]:
            at += 1 + encoded[at]
        at += 1
    return width, height, frames


def _colour_table_bytes(flags: int) -> int:
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _warm(preprocess: Callable) -> None:
    """Decodes a picture of each kind that is decoded in its own way."""
    picture = tf.zeros((64, 64, 3), tf.uint8)
    for encode in (tf.io.encode_jpeg, tf.io.encode_png):
        preprocess(encode(picture))


def _input(loaded: Any, name: str) -> tuple[str, tf.TensorSpec]:
    ((input_name, spec),) = loaded.signatures[name].structured_input_signature[1].items()
    return input_name, spec


def _only(function: Any) -> Callable:
    """The one graph of a SavedModel's function, without the search for it at every call."""
    (concrete,) = function.concrete_functions
    return concrete


def _labels(loaded: Any) -> list[str]:
    """The classes' names.

    Raises:
        Failed: there are not as many as probabilities.
    """
    names = [name.decode() for name in _only(loaded.labels)().numpy()]
    classes = _only(loaded.classify).structured_outputs.shape[1]
    if len(names) != classes:
        raise Failed(f"{len(names)} names of classes and {classes} probabilities; export it anew")
    return names


def _over_arrays(function: Any) -> Callable[..., np.ndarray]:
    concrete = _only(function)
    return lambda *arrays: concrete(*map(tf.constant, arrays)).numpy()


def _most_probable(labels: list[str], top_k: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Probabilities `(B, num_classes)` -> the `top_k` most probable, as `tf.math.top_k` does."""
    names = np.array(labels, dtype=object)

    def outputs(probabilities: np.ndarray) -> dict[str, np.ndarray]:
        ids = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        return {
            "class_ids": ids.astype(np.int32),
            "classes": names[ids],
            "probabilities": np.take_along_axis(probabilities, ids, axis=1),
        }

    return outputs


def _reason(error: tf.errors.OpError) -> str:
    """What the decoder said, without where in the graph it stands."""
    lines = [line for line in error.message.splitlines() if not line.startswith("\t [[")]
    return lines[-1][:200]
