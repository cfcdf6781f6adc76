"""Computes logits under one Keras backend: `KERAS_BACKEND=... python backend_logits.py FOLDER`.

Reads FOLDER/NAME.weights.h5 for each network below, writes FOLDER/BACKEND.npz.
"""

import sys
from pathlib import Path

import formula
import keras
import numpy as np

from keras_zoo import build, card

# One network of each family, and SE-ResNet, at a small size that leaves its pooling remainders.
SIZES_PX = {
    "simple_cnn": 32,
    "alexnet": 79,
    "zfnet": 64,
    "vgg11_bn": 32,
    "googlenet": 50,
    "inception_v3": 77,
    "resnext50_32x4d": 49,
    "seresnet50": 50,
    "resnet50_v1": 50,
    "resnet50_v2": 50,
}


def small(name: str) -> keras.Model:
    px, channels = SIZES_PX[name], card(name).input.num_channels
    return build(name, num_classes=10, input_shape=(px, px, channels))


def logits(name: str, model: keras.Model) -> np.ndarray:
    images = 2 * formula.uniform("images", (2, *model.input.shape[1:]))
    return keras.ops.convert_to_numpy(model(images, training=False))


def main(folder: Path) -> None:
    answers = {}
    for name in SIZES_PX:
        model = small(name)
        model.load_weights(folder / f"{name}.weights.h5")
        answers[name] = logits(name, model)
        keras.utils.clear_session()
    np.savez(folder / f"{keras.backend.backend()}.npz", **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
