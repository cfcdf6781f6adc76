"""The documentation's picture of the augmentations can be drawn anew, and shows what it says."""

from pathlib import Path

import numpy as np
from PIL import Image

from docs import augmentations


def test_the_picture_is_drawn_as_the_committed_one(tmp_path):
    panels = augmentations.panels()
    assert (panels["horizontal flip"] == panels["identity"][:, ::-1]).numpy().all()
    assert [len(image) for title, image in panels.items() if "epoch" in title] == [32, 96, 160]
    assert all(image.dtype == np.uint8 for image in panels.values())
    augmentations.draw(panels, tmp_path / "drawn.jpg")
    committed = Path(augmentations.__file__).with_suffix(".jpg")
    with Image.open(tmp_path / "drawn.jpg") as drawn, Image.open(committed) as kept:
        assert drawn.size == kept.size
