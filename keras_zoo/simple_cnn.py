"""SimpleCNN: the network that convolution tutorials begin with.

Two unpadded 3x3 convolutions (32 and 64 filters), each followed by ReLU and 2x2 max pooling, then
a dense layer of 128 and the classifier. On 32x32x1 the flattened features are 64*6*6 = 2304 and
the trainable parameters exactly 315,146.

Deviations: none; there is no paper to deviate from.
"""

import keras
from keras import layers

from keras_zoo.blocks import classifier, conv_relu, dense_relu

FILTERS = (32, 64)


def simple_cnn(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    include_top: bool,
    dropout: float,
) -> keras.Model:
    """`(H, W, C)` float32, normalised -> `(num_classes,)` float32 logits.

    Without the top: the last pooled feature map, `((H-6)//4, (W-6)//4, 64)` for even sizes.
    """
    inputs = x = keras.Input(input_shape, name="image")
    for stage, filters in enumerate(FILTERS, start=1):
        x = conv_relu(x, filters, 3, padding="valid", name=f"stage{stage}")
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        x = dense_relu(x, 128, name="fc1")
        x = classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)
