"""Weights and images by formula: any machine makes the same ones from a name and a shape."""

import hashlib
import math
import zlib

import numpy as np


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 in [-1, 1): a 32-bit mixing function of the element's index and the name's CRC."""
    x = np.arange(math.prod(shape), dtype=np.uint32)
    x += np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    return (x.astype(np.float32) / np.float32(2**31) - 1).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A value for a tensor of a torch `state_dict` or a Keras `layer/variable`.

    The scales keep activations near 1 however deep the network, so that every tensor counts in the
    result: He's for kernels, less for those that end a residual branch.
    """
    values = uniform(name, shape)
    kind = name.replace("/", ".").rpartition(".")[2]
    ends_branch = any(part in name for part in ("bn3.", "_3_bn/", "_3_conv/kernel"))
    gain = np.float32(0.3 if ends_branch else 1)
    if kind in ("running_var", "moving_variance"):
        return 1 + values / 2
    if kind in ("running_mean", "moving_mean", "bias", "beta"):
        return values / 5
    if len(shape) == 1:
        return gain * (1 + values / 2)
    torch_layout = kind == "weight"
    fan_in = math.prod(shape[1:] if torch_layout else shape[:-1])
    return gain * np.float32(math.sqrt(6 / fan_in)) * values


def images(px: int, batch: int = 2, spread: float = 2.0) -> np.ndarray:
    """float32 `(batch, px, px, 3)` in +-`spread`; by default that of normalised photographs."""
    return np.float32(spread) * uniform("images", (batch, px, px, 3))


def places(name: str, size: int) -> np.ndarray:
    """Where in a flattened output of `size` values the recorded ones stand."""
    return ((uniform(name, (8,)).astype(np.float64) + 1) / 2 * size).astype(int)


def digest(shapes: dict[str, tuple[int, ...]]) -> str:
    """Of names and shapes, without what torch counts for itself."""
    lines = sorted(f"{key} {tuple(shape)}" for key, shape in shapes.items() if len(shape))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
