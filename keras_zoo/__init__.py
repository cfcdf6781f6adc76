"""The classic ImageNet networks as Keras 3 functional models."""

from keras_zoo import weight_sets
from keras_zoo.input_spec import InputSpec
from keras_zoo.registry import build, card, list_models

__all__ = ["InputSpec", "build", "card", "list_models", "weight_sets"]
