"""ZFNet: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014
(arXiv:1311.2901), Figure 3; its authors' company won ILSVRC 2013.

AlexNet with smaller strides and kernels in the first two layers and without towers. The trainable
parameters follow from the figure: 62,357,608.

    conv1   7*7*3*96 + 96       =     14,208      fc1     6*6*256*4096 + 4096 = 37,752,832
    conv2   5*5*96*256 + 256    =    614,656      fc2     4096*4096 + 4096    = 16,781,312
    conv3   3*3*256*384 + 384   =    885,120      logits  4096*1000 + 1000    =  4,097,000
    conv4   3*3*384*384 + 384   =  1,327,488
    conv5   3*3*384*256 + 256   =    884,992

Deviations:
- Padding of 1 in the first convolution and pooling that rounds up: the figure gives sizes (110, 55,
  26, 13, 6), not padding, and these give them.
- "Contrast normalised across feature maps" is the local response normalisation of 2012.
- No renormalisation of filters of large norm while training.
- He initialisation in the place of 0.01 for all weights.
"""

import keras
from keras import layers

from keras_zoo.blocks import ceil_max_pool, conv_relu, dense_classifier, lrn


def zfnet(
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
    x = layers.ZeroPadding2D(1, name="conv1_pad")(inputs)
    x = conv_relu(x, 96, 7, stride=2, padding="valid", name="conv1")
    x = ceil_max_pool(x, 3, name="conv1_pool")
    x = lrn(x, name="conv1_lrn")
    x = conv_relu(x, 256, 5, stride=2, padding="valid", name="conv2")
    x = ceil_max_pool(x, 3, name="conv2_pool")
    x = lrn(x, name="conv2_lrn")
    x = conv_relu(x, 384, 3, name="conv3")
    x = conv_relu(x, 384, 3, name="conv4")
    x = conv_relu(x, 256, 3, name="conv5")
    x = ceil_max_pool(x, 3, name="conv5_pool")
    if include_top:
        x = dense_classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)
