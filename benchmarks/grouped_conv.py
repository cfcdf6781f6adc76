"""One training step of a grouped 3x3 convolution: split as ours is, against Keras's native one.

    python benchmarks/grouped_conv.py

Prints, for the shapes of AlexNet's second convolution and of ResNeXt-50's stages, the median time
of a forward and backward pass of each, measured in turn in one process, and their ratio; then the
time of an ordinary convolution of as many multiply-accumulates.
"""

import argparse
import os
import platform
import statistics
import time

import keras
import tensorflow as tf

from keras_zoo.blocks import GroupedConv2D

# Feature map side, filters in and out, kernel side, groups.
CASES = {
    "alexnet conv2": (27, 96, 256, 5, 2),
    "resnext50 stage 1": (56, 128, 128, 3, 32),
    "resnext50 stage 2": (28, 256, 256, 3, 32),
    "resnext50 stage 3": (14, 512, 512, 3, 32),
    "resnext50 stage 4": (7, 1024, 1024, 3, 32),
}


def training_step(layer: keras.layers.Layer, images: tf.Tensor):
    """A compiled forward and backward pass over `images`."""
    layer.build(images.shape)

    @tf.function(jit_compile=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(layer(images) ** 2)
        return tape.gradient(loss, [images, *layer.trainable_variables])

    step()
    return step


def medians_ms(steps: dict, repeats: int) -> dict[str, float]:
    """Median time of each step, the steps taking turns."""
    times = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--repeats", type=int, default=5, help="steps that a median is taken of")
    args = parser.parse_args()
    print(
        f"{os.cpu_count()} CPUs, {platform.machine()}, tensorflow {tf.__version__}, "
        f"keras {keras.__version__}, batch {args.batch}, median of {args.repeats}"
    )
    print(f"{'':<20}{'native ms':>11}{'split ms':>10}{'native/split':>14}{'same work':>11}")
    for name, (side_px, inputs, filters, kernel_px, groups) in CASES.items():
        images = tf.random.normal((args.batch, side_px, side_px, inputs))
        options = {"padding": "same", "use_bias": False}
        equal_work = keras.layers.Conv2D(filters // groups, kernel_px, **options)
        found = medians_ms(
            {
                "native": training_step(
                    keras.layers.Conv2D(filters, kernel_px, groups=groups, **options), images
                ),
                "split": training_step(
                    GroupedConv2D(filters, kernel_px, groups=groups, **options), images
                ),
                "dense": training_step(equal_work, images),
            },
            args.repeats,
        )
        print(
            f"{name:<20}{found['native']:>11.1f}{found['split']:>10.1f}"
            f"{found['native'] / found['split']:>14.1f}{found['dense']:>11.1f}"
        )


if __name__ == "__main__":
    main()
