"""AlexNet, the winner of ILSVRC 2012, in its two published forms.

`alexnet`: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks", NIPS 2012: two towers that meet in the third convolution and in the dense layers, local
response normalisation, overlapping 3x3 pooling of stride 2.
`alexnet_owt`: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014
(arXiv:1404.5997), footnote 1: one tower, no normalisation.

Deviations of `alexnet`:
- The two towers are one graph whose convolutions 2, 4 and 5 have two groups: the same connections.
- 227 pixels where the text says 224: the size its 55x55 feature map implies.
- He initialisation in the place of Gaussians of 0.01 and biases of 1.

Deviations of `alexnet_owt`, all of them torchvision's too, whose weights it takes:
- 256 filters in the fourth convolution, where the paper has 384.
- Padding of 2 in the first convolution: 224 pixels give 55x55.
- No adaptive pooling before the dense layers (torchvision's changes nothing at 224 pixels): another
  input size means another first dense layer.
- Dropout after each hidden dense layer, as in 2012; torchvision has it before each.
"""

import keras
from keras import KerasTensor, layers

from keras_zoo.blocks import conv_relu, dense_classifier, lrn


def two_towers(x: KerasTensor) -> KerasTensor:
    """The convolutions of 2012: `(227, 227, 3) -> (6, 6, 256)`."""
    x = conv_relu(x, 96, 11, stride=4, padding="valid", name="conv1")
    x = lrn(x, name="conv1_lrn")
    x = layers.MaxPooling2D(3, strides=2, name="conv1_pool")(x)
    x = conv_relu(x, 256, 5, groups=2, name="conv2")
    x = lrn(x, name="conv2_lrn")
    x = layers.MaxPooling2D(3, strides=2, name="conv2_pool")(x)
    x = conv_relu(x, 384, 3, name="conv3")
    x = conv_relu(x, 384, 3, groups=2, name="conv4")
    x = conv_relu(x, 256, 3, groups=2, name="conv5")
    return layers.MaxPooling2D(3, strides=2, name="conv5_pool")(x)


def one_tower(x: KerasTensor) -> KerasTensor:
    """The convolutions of 2014: `(224, 224, 3) -> (6, 6, 256)`."""
    x = layers.ZeroPadding2D(2, name="conv1_pad")(x)
    x = conv_relu(x, 64, 11, stride=4, padding="valid", name="conv1")
    x = layers.MaxPooling2D(3, strides=2, name="conv1_pool")(x)
    x = conv_relu(x, 192, 5, name="conv2")
    x = layers.MaxPooling2D(3, strides=2, name="conv2_pool")(x)
    x = conv_relu(x, 384, 3, name="conv3")
    x = conv_relu(x, 256, 3, name="conv4")
    x = conv_relu(x, 256, 3, name="conv5")
    return layers.MaxPooling2D(3, strides=2, name="conv5_pool")(x)


NETWORKS = {"alexnet": two_towers, "alexnet_owt": one_tower}


def alexnet(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    include_top: bool,
    dropout: float,
) -> keras.Model:
    """`(H, W, C)` float32, normalised -> `(num_classes,)` float32 logits.

    Without the top: the last pooled feature map, `(6, 6, 256)` at the published size.
    """
    inputs = keras.Input(input_shape, name="image")
    x = NETWORKS[name](inputs)
    if include_top:
        x = dense_classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)
