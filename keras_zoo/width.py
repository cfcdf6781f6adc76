"""Any network in other widths: Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam,
"MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017
(arXiv:1704.04861), section 3.3, whose alpha it is.

Every layer has alpha times as many filters or units, all but the classifiers; parameters and
multiply-accumulates go with about alpha squared.

Deviations:
- The paper does not round. Here a layer has a whole multiple of 8, the nearest, and at least 8;
  where convolutions are grouped, of 8 and of their groups.
"""

import math

import keras
from keras import layers


def of_width(model: keras.Model, width: float) -> keras.Model:
    """The same network, its layers `width` times as wide, with fresh weights."""
    groups = (layer.groups for layer in model.layers if isinstance(layer, layers.Conv2D))
    multiple = math.lcm(8, *groups)

    def resized(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        for size in {"filters", "units"} & config.keys():
            if not layer.name.endswith("logits"):
                config[size] = scaled(config[size], width, multiple)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=resized)


def scaled(size: int, width: float, multiple: int) -> int:
    """The multiple nearest to `width * size`, the larger one of two, and never 0."""
    return max(1, math.floor(width * size / multiple + 0.5)) * multiple
