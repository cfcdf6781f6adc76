"""Where a network looked, as colours: from dark to bright."""

import numpy as np
from matplotlib import colormaps
from PIL import Image

_COLOURS = np.uint8(np.round(255 * colormaps["inferno"](np.arange(256))[:, :3]))


def heat_colours(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 `(h, w)` in [0, 1] -> uint8 `(H, W, 3)`, interpolated to `size`, `(W, H)`."""
    enlarged = Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC)
    return _COLOURS[np.uint8(np.round(255 * np.clip(np.asarray(enlarged), 0, 1)))]


def heat_over(pixels: np.ndarray, heat: np.ndarray) -> Image.Image:
    """An image under its heat, each as visible as the other.

    Args:
        pixels: uint8 `(S, S, 1 | 3)`.
        heat: float32 `(h, w)` in [0, 1].
    """
    image = Image.fromarray(pixels.squeeze()).convert("RGB")
    return Image.blend(image, Image.fromarray(heat_colours(heat, image.size)), 0.5)
