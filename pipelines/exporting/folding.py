"""Batch normalisation as part of the convolution before it."""

import keras
from keras import layers


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """The same function with fewer layers: for inference.

    In inference, batch normalisation multiplies each channel by a constant and adds another: where
    it follows a convolution that nobody else reads, both go into the kernel and the bias. Where it
    does not (before a pre-activation), it stays. Dropout, which does nothing in inference, goes.

    Args:
        model: a functional model without models in it.

    Returns:
        A new model with weights of its own; layers keep their names.
    """
    folded = _followed_by_batch_norm(model)
    gone = {norm.name for norm in folded.values()}
    gone |= {layer.name for layer in model.layers if isinstance(layer, layers.Dropout)}

    def clone(layer: layers.Layer) -> layers.Layer:
        bias = {"use_bias": True} if layer.name in folded else {}
        return type(layer).from_config(layer.get_config() | bias)

    def call(layer: layers.Layer, *inputs: keras.KerasTensor, **arguments) -> keras.KerasTensor:
        return inputs[0] if layer.name in gone else layer(*inputs, **arguments)

    lean = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in lean.layers:
        original = model.get_layer(layer.name)
        weights = original.get_weights()
        if layer.name in folded:
            weights = _fold(original, folded[layer.name])
        layer.set_weights(weights)
    return lean


def _followed_by_batch_norm(model: keras.Model) -> dict[str, layers.BatchNormalization]:
    """Convolutions, by name, whose output goes to a batch normalisation and nowhere else."""
    makers = {id(operation.output): operation for operation in model.operations}
    readers: dict[str, list[keras.Operation]] = {}
    for operation in model.operations:
        for tensor in keras.tree.flatten(operation.input):
            readers.setdefault(makers[id(tensor)].name, []).append(operation)
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    return {
        convolution.name: readers[convolution.name][0]
        for convolution in convolutions
        if convolution.activation is keras.activations.linear
        and [type(reader) for reader in readers[convolution.name]] == [layers.BatchNormalization]
    }


def _fold(convolution: layers.Conv2D, norm: layers.BatchNormalization) -> list:
    """The kernel and the bias of both layers in one."""
    kernel, *bias = convolution.get_weights()
    zero, one = 0.0, 1.0
    gamma = norm.gamma.numpy() if norm.scale else one
    beta = norm.beta.numpy() if norm.center else zero
    factor = gamma / (norm.moving_variance.numpy() + norm.epsilon) ** 0.5
    shift = (bias[0] if bias else zero) - norm.moving_mean.numpy()
    return [kernel * factor, shift * factor + beta]
