"""VGG-11, 13, 16 and 19: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale
Image Recognition", ICLR 2015 (arXiv:1409.1556), configurations A, B, D and E of Table 1; `_bn` with
batch normalisation, as torchvision publishes them.

Deviations:
- He initialisation in the place of growing deeper networks from trained shallower ones.
- `_bn`: batch normalisation (momentum 0.9, epsilon 1e-5) between each convolution, which keeps its
  bias, and its ReLU; the paper predates it.
- No adaptive pooling before the dense layers (torchvision's changes nothing at 224 pixels): another
  input size means another first dense layer.
"""

from functools import partial

import keras
from keras import layers

from keras_zoo.blocks import conv_bn_relu, conv_relu, dense_classifier

FILTERS = (64, 128, 256, 512, 512)
DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
NETWORKS = {
    **{name: (conv_relu, depths) for name, depths in DEPTHS.items()},
    **{f"{name}_bn": (partial(conv_bn_relu, use_bias=True), d) for name, d in DEPTHS.items()},
}


def vgg(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    include_top: bool,
    dropout: float,
) -> keras.Model:
    """`(H, W, C)` float32, normalised -> `(num_classes,)` float32 logits.

    Without the top: the last pooled feature map, `(H//32, W//32, 512)`.
    """
    unit, depths = NETWORKS[name]
    inputs = x = keras.Input(input_shape, name="image")
    for stage, (filters, depth) in enumerate(zip(FILTERS, depths, strict=True), start=1):
        for index in range(1, depth + 1):
            x = unit(x, filters, 3, name=f"stage{stage}_{index}")
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    if include_top:
        x = dense_classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)
