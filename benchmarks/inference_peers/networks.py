"""The zoo's networks as Keras users export them.

    python networks.py NETWORK FOLDER

writes fresh weights, `NETWORK.weights.h5`, and what `model.export` makes of them, `keras_export`.
"""

import sys
from pathlib import Path

import keras

import keras_zoo
from pipelines.training.model import image_classifier


def with_probabilities(network: str, weights: str | None = None) -> keras.Model:
    """uint8 images -> probabilities of 1000 classes."""
    logits = image_classifier(network, keras_zoo.card(network).input, 1000, weights)
    return keras.Model(logits.input, keras.layers.Softmax()(logits.output))


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    classifier = with_probabilities(name)
    classifier.save_weights(folder / f"{name}.weights.h5")
    classifier.export(folder / "keras_export", verbose=False)
