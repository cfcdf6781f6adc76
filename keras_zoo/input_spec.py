"""InputSpec: what a network sees of an image, stated once.

Training, evaluation, tuning, export and the server all read this value; none of them holds a
number of its own about pixels. Standard library only, so that a command can print it at once.
"""

from dataclasses import dataclass

INTERPOLATIONS = ("bilinear", "bicubic")
CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class InputSpec:
    """From a decoded image to the tensor a network takes.

    Evaluation resizes the short side to `resize_px`, takes the central `size_px` square, rounds to
    uint8 and normalises: `(pixel - mean) / std`, channel by channel, in pixel units (0 to 255).

    Args:
        size_px: side of the square image the network takes.
        crop_fraction: share of the resized short side that the central crop keeps, in (0, 1].
        interpolation: `bilinear` or `bicubic`.
        antialias: whether the filter widens when an image shrinks, as Pillow's does.
        channels: order of the channels: `RGB`, `BGR` or `L` (one grey channel).
        mean: subtracted from each channel, in pixel units (0 to 255), in the order of `channels`.
        std: divides each channel, in pixel units.

    Raises:
        ValueError: a value outside its range, or `mean` and `std` not as long as `channels` says.
    """

    size_px: int = 224
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"
    antialias: bool = True
    channels: str = "RGB"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size_px < 1:
            raise ValueError(f"size_px is {self.size_px}; a side has at least 1 pixel")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction is {self.crop_fraction}; it lies in (0, 1]")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {self.interpolation!r}; one of {INTERPOLATIONS}")
        if self.channels not in CHANNELS:
            raise ValueError(f"channels is {self.channels!r}; one of {tuple(CHANNELS)}")
        for field in ("mean", "std"):
            if len(getattr(self, field)) != self.num_channels:
                raise ValueError(
                    f"{field} has {len(getattr(self, field))} values; "
                    f"channels {self.channels!r} take {self.num_channels}"
                )
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; every value is above 0")

    @property
    def num_channels(self) -> int:
        return CHANNELS[self.channels]

    @property
    def resize_px(self) -> int:
        """The short side, in pixels, before the central crop."""
        return round(self.size_px / self.crop_fraction)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of the tensor the network takes."""
        return (self.size_px, self.size_px, self.num_channels)
