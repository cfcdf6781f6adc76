"""Small images to test with, and what a prepared data set holds."""

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def photograph(path: Path, seed: int, size=(12, 10), mode="RGB", **options) -> bytes:
    """Writes an image of smooth noise; the same seed gives the same file. Gives its bytes."""
    encoded = encode(
        picture(seed, size, mode), Image.registered_extensions()[path.suffix.lower()], options
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded)
    return encoded


def picture(seed: int, size=(12, 10), mode="RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, channels), np.uint8)
    return Image.fromarray(noise.squeeze(), mode).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str, options: dict) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, form, **options)
    return encoded.getvalue()


def read(folder: Path, split: str) -> dict[str, tuple[bytes, str]]:
    """`{file_name: (bytes, class name)}` of a prepared split, in the order of its files."""
    builder = tfds.builder_from_directory(folder)
    label = builder.info.features["label"]
    stream = builder.as_dataset(
        split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return {
        example["file_name"].decode(): (example["image"], label.int2str(example["label"]))
        for example in stream.as_numpy_iterator()
    }
