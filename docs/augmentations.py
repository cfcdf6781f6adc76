"""Draws `augmentations.jpg`: what each augmentation does to one of scikit-learn's photographs.

python docs/augmentations.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import tensorflow as tf
from sklearn.datasets import load_sample_images

from keras_zoo import InputSpec
from pipelines.config import AugmentConfig, TrainConfig
from pipelines.data.augment import OPS, STRONGEST, augment_image, cutmix, mixup
from pipelines.data.images import resize, training_image

SIZE_PX = 160
COLUMNS = 8
EPOCHS = 9
# Half of all seeds mirror; this one does.
MIRRORING_SEED = (0, 0)
CONFIGS = {
    "colour jitter": AugmentConfig(colour_jitter=0.5),
    "Inception colour": AugmentConfig(inception_colour=1.0),
    "PCA lighting": AugmentConfig(pca_lighting=0.4),
    "RandAugment": AugmentConfig(policy="randaugment"),
    "TrivialAugment": AugmentConfig(policy="trivial_augment_wide"),
    "AutoAugment": AugmentConfig(policy="autoaugment"),
    "random erasing": AugmentConfig(erasing_probability=1.0),
}


def panels() -> dict[str, tf.Tensor]:
    """Title -> uint8 `(S, S, 3)`: `SIZE_PX`, or less where the resolution grows."""
    photographs = load_sample_images().images
    encoded = tf.io.encode_jpeg(photographs[0])
    spec, seed = InputSpec(SIZE_PX), tf.constant([1, 2])
    centre, flower = (
        tf.cast(tf.image.resize(photograph[:, 100:527], (SIZE_PX, SIZE_PX)), tf.uint8)
        for photograph in photographs
    )
    crops = {
        f"random-resized crop {number}": training_image(
            encoded, spec, AugmentConfig(), tf.constant([number, 0])
        )
        for number in (1, 2, 3)
    }
    jitter = AugmentConfig(scale_jitter_px=(SIZE_PX, 2 * SIZE_PX))
    whole = AugmentConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0))
    mirrored = training_image(tf.io.encode_png(centre), spec, whole, MIRRORING_SEED)
    growing = TrainConfig(
        Path(), input=spec, augment=AugmentConfig(first_size_px=32), epochs=EPOCHS
    )
    sizes = {
        f"epoch {epoch + 1} of {EPOCHS}: {growing.size_px(epoch)} px": resize(
            centre, growing.size_px(epoch), spec
        )
        for epoch in (0, EPOCHS // 2, EPOCHS - 1)
    }
    ops = {
        name: op.apply(centre, tf.constant(0.8 * STRONGEST.get(name, 0.0)))
        for name, op in OPS.items()
    }
    policies = {name: augment_image(centre, config, seed) for name, config in CONFIGS.items()}
    batch, labels = tf.stack([centre, flower]), tf.eye(2)
    return (
        crops
        | {"scale jitter": training_image(encoded, spec, jitter, seed)}
        | {"horizontal flip": mirrored}
        | sizes
        | ops
        | policies
        | {
            "mixup": mixup(batch, labels, 0.4)[0][0],
            "cutmix": cutmix(batch, labels, 0.3, tf.constant([0.6, 0.6]))[0][0],
        }
    )


def draw(drawn: dict[str, tf.Tensor], file: Path) -> None:
    """Writes the panels, each under its title, as one picture."""
    rows = -(-len(drawn) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(1.6 * COLUMNS, 1.8 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, image) in zip(axes.flat, drawn.items(), strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=80)


if __name__ == "__main__":
    draw(panels(), Path(__file__).with_suffix(".jpg"))
