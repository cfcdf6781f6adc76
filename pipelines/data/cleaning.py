"""What is wrong with images: each alone, and compared with one another.

`examine` looks at one image: every image is decoded in full, by the decoder of the training
stream. `clean` compares what `examine` noted of all of them and decides what happens to each.
`pipelines.config.KINDS` is the table of what is looked for and what is done by default.
"""

import base64
import dataclasses
import hashlib
import io
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
import simplejpeg
import tensorflow as tf
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from pipelines.config import KINDS, PrepareConfig
from pipelines.data.images import decode
from pipelines.data.sources import Example
from pipelines.errors import BadInput

# By the names Pillow gives them: what the training stream decodes, and what is rewritten for it.
STREAM_FORMATS = ("JPEG", "PNG", "GIF", "BMP")
FOREIGN_FORMATS = ("WEBP", "TIFF", "PPM", "ICO", "JPEG2000")
EXTENSIONS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
# How each format begins, and ends: a file that begins so is an image, whatever became of the rest.
_JPEG = b"\xff\xd8\xff"
SIGNATURES = {
    _JPEG: b"\xff\xd9",
    b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82",
    b"GIF8": b";",
    b"BM": b"",
}
# A file may carry padding behind its end.
_END_BYTES = 1024
_EXIF_ORIENTATION = 0x0112
_THUMBNAIL_PX = 112
# Of the 64 bits of a perceptual hash: 3 and fewer is what re-encoding and resizing leave. Pairs
# this close agree in at least one of four 16-bit bands, so only those that do are compared.
NEAR_BITS = 3
_BANDS, _BAND_BITS = 4, 16
# The largest class over the smallest, from which the summary calls a data set imbalanced.
IMBALANCE = 10


class Facts(NamedTuple):
    """What is known of one image.

    Args:
        key: unique within its split.
        label: the number of its class.
        content: SHA-256 of the file's own bytes, in hexadecimal.
        looks: perceptual hash, 64 bits; 0 where the image does not decode.
        width_px, height_px: of the bytes kept; 0 where the image does not decode.
        found: the kinds of `KINDS` that it is of, looked at alone.
        detail: what the decoder said, or the sizes and formats that are told of.
        thumbnail: a small JPEG in base64 of what can be seen of a dropped file.
        size, pack, offset: how many bytes are kept, in which file, and where in it.
    """

    key: str
    label: int
    content: str
    looks: int = 0
    width_px: int = 0
    height_px: int = 0
    found: tuple[str, ...] = ()
    detail: str = ""
    thumbnail: str = ""
    size: int = 0
    pack: str = ""
    offset: int = 0

    def encoded(self) -> bytes:
        with Path(self.pack).open("rb") as pack:
            pack.seek(self.offset)
            return pack.read(self.size)


class Unreadable(Exception):
    """An image that cannot be kept: its kind, and what the decoder said."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


def examine(example: Example, config: PrepareConfig) -> tuple[Facts, bytes]:
    """Decodes an image in full and notes what is to be known of it.

    Returns:
        The facts, without a pack yet, and the bytes to keep: the file's own, or those of an
        upright RGB JPEG where the config says so; none where the image cannot be read.
    """
    facts = Facts(example.key, example.label, hashlib.sha256(example.encoded or b"").hexdigest())
    with warnings.catch_warnings():
        # Pillow's remarks about odd metadata concern nobody here; the one about size does.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with _naming_what_pillow_raises(example.encoded):
                image = _open(example.encoded)
                found, details = _formats(image, example.key)
                encoded = _to_keep(image, example.encoded, found, config)
            pixels = _decode(encoded)
        except Unreadable as error:
            thumbnail = _partial_thumbnail(example.encoded)
            facts = facts._replace(found=(error.kind,), detail=error.detail, thumbnail=thumbnail)
            return facts, b""
    if damage := _damage(encoded):
        found.append("damaged")
        details.append(damage)
    if min(image.size) < config.min_side_px:
        found.append("too_small")
        details.append(f"{image.width} x {image.height} px")
    facts = facts._replace(
        looks=int(str(imagehash.phash(Image.fromarray(pixels))), 16),
        width_px=pixels.shape[1],
        height_px=pixels.shape[0],
        found=tuple(kind for kind in KINDS if kind in found),
        detail=", ".join(details),
        size=len(encoded),
    )
    return facts, encoded


@contextmanager
def _naming_what_pillow_raises(encoded: bytes) -> Iterator[None]:
    """Pillow raises whatever a broken file leads it to, OSError and struct.error among others."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(_how_broken(encoded), str(error)) from error


def _open(encoded: bytes | None) -> Image.Image:
    """The image with its header read and nothing decoded."""
    if encoded is None:
        raise Unreadable("missing", "no such file; a manifest's paths are relative to its folder")
    if not encoded:
        raise Unreadable("zero_byte", "0 bytes")
    try:
        return Image.open(io.BytesIO(encoded), formats=STREAM_FORMATS + FOREIGN_FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unreadable("decompression_bomb", str(error).partition(",")[0]) from error
    except UnidentifiedImageError as error:
        if any(encoded.startswith(signature) for signature in SIGNATURES):
            raise Unreadable(_how_broken(encoded), "its header cannot be read") from error
        raise Unreadable("not_an_image", f"begins with {encoded[:8]!r}") from error


def _formats(image: Image.Image, key: str) -> tuple[list[str], list[str]]:
    """The kinds that a readable header tells of, and a remark on each that needs one."""
    found, details = [], []
    extension = Path(key).suffix.lower()
    # An MPO is a JPEG with further ones behind it, from a phone or a stereo camera.
    form = "JPEG" if image.format == "MPO" else image.format
    if form not in STREAM_FORMATS:
        found.append("foreign_format")
        details.append(form)
    if form != EXTENSIONS.get(extension, form):
        found.append("wrong_extension")
        details.append(f"a {form} called {extension}")
    if image.mode == "CMYK":
        found.append("cmyk")
    if image.mode in ("1", "L", "LA", "I", "I;16", "F"):
        found.append("greyscale")
    if image.has_transparency_data:
        found.append("alpha")
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    if orientation != 1:
        found.append("exif_orientation")
        details.append(f"orientation {orientation}")
    return found, details


def _to_keep(image: Image.Image, encoded: bytes, found: list[str], config: PrepareConfig) -> bytes:
    """The file's own bytes, unless something found or `short_side_px` asks for a rewrite."""
    rewrite = any(config.handling_of(kind) == "rewrite" for kind in found)
    shrink = config.short_side_px is not None and min(image.size) > config.short_side_px
    if not (rewrite or shrink):
        return encoded
    image = ImageOps.exif_transpose(image).convert("RGB")
    if shrink:
        scale = config.short_side_px / min(image.size)
        size = [round(side * scale) for side in image.size]
        image = image.resize(size, Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    image.save(jpeg, format="JPEG", quality=config.quality)
    return jpeg.getvalue()


def _decode(encoded: bytes) -> np.ndarray:
    """What the training stream sees: uint8 `(H, W, 3)`."""
    try:
        return decode(tf.constant(encoded), channels=3).numpy()
    except tf.errors.OpError as error:
        first_line = error.message.partition("\n")[0]
        detail = re.sub(r"{{.*?}} | \[Op:.*", "", first_line)
        raise Unreadable(_how_broken(encoded), detail) from error


def _damage(encoded: bytes) -> str:
    """What libjpeg remarks on and TensorFlow passes over: a hole in the middle of a JPEG.

    Decoded as small and grey as it gets, which still reads every byte. Bytes too many between
    two segments, which some cameras write, harm no pixel.
    """
    if not encoded.startswith(_JPEG):
        return ""
    try:
        simplejpeg.decode_jpeg(encoded, "GRAY", min_height=1, min_width=1)
    except ValueError as error:
        remark = str(error)
        if remark.startswith("Corrupt JPEG data") and "extraneous bytes" not in remark:
            return remark
    return ""


def _how_broken(encoded: bytes) -> str:
    """`truncated` where the format's end mark is missing, else `corrupt`."""
    ends = (end for begin, end in SIGNATURES.items() if encoded.startswith(begin))
    return "corrupt" if next(ends, b"") in encoded[-_END_BYTES:] else "truncated"


def _partial_thumbnail(encoded: bytes) -> str:
    """What can be seen of a broken image; empty where nothing can."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        return thumbnail(encoded)
    except Exception:
        return ""
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def thumbnail(encoded: bytes) -> str:
    """A small JPEG of an image, in base64."""
    image = Image.open(io.BytesIO(encoded), formats=STREAM_FORMATS + FOREIGN_FORMATS)
    image.draft("RGB", (_THUMBNAIL_PX, _THUMBNAIL_PX))
    image = image.convert("RGB")
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    jpeg = io.BytesIO()
    image.save(jpeg, format="JPEG", quality=70)
    return base64.b64encode(jpeg.getvalue()).decode()


@dataclass(frozen=True)
class Finding:
    """One image of one kind, and what was done with it.

    Args:
        split: of the data set.
        key: the image.
        kind: one of `KINDS`.
        handling: `drop`, `rewrite` or `keep`: what was done.
        detail: what there is to say.
        twin: split and key of the image that it equals or looks like.
    """

    split: str
    key: str
    kind: str
    handling: str
    detail: str = ""
    twin: tuple[str, str] | None = None

    def reason(self) -> str:
        """The kind, and what there is to say."""
        said = [self.detail] if self.detail else []
        said += [f"as {self.twin[1]} in {self.twin[0]}"] if self.twin else []
        return ": ".join([self.kind, *said])


@dataclass(frozen=True)
class Cleaning:
    """The images that stay, by split, and everything that was found."""

    kept: dict[str, list[Facts]]
    findings: list[Finding]

    def dropped(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.handling == "drop"]

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by kind and by what was done with them, in the order of `KINDS`."""
        counts = Counter((finding.kind, finding.handling) for finding in self.findings)
        found = {kind for kind, _ in counts}
        return {
            kind: {handling: n for (k, handling), n in sorted(counts.items()) if k == kind}
            for kind in KINDS
            if kind in found
        }


def clean(facts: dict[str, list[Facts]], given: Set[str], config: PrepareConfig) -> Cleaning:
    """Decides what happens to every image.

    Args:
        facts: by split of the data set, so that a leak between any two is found.
        given: the splits that the source itself evaluates on: comparison drops nothing of them.

    Raises:
        BadInput: `on_bad` is `fail`, and something would have been dropped.
    """
    alone = list(_alone(facts, config))
    gone = {(finding.split, finding.key) for finding in alone if finding.handling == "drop"}
    left = _without(facts, gone)
    compared = [
        replace(finding, handling="keep") if finding.split in given else finding
        for compare in (_same_bytes, _same_looks)
        for finding in compare(_evaluation_first(left, given), config)
    ]
    gone = {(finding.split, finding.key) for finding in compared if finding.handling == "drop"}
    cleaning = Cleaning(_without(left, gone), _one_reason_each([*alone, *compared]))
    dropped = cleaning.dropped()
    if config.on_bad == "fail" and dropped:
        first = dropped[0]
        raise BadInput(
            f"{len(dropped)} images of {config.source!r} are to be dropped, {first.key} first "
            f"({first.reason()}); on_bad drop leaves them out"
        )
    return cleaning


def _without(facts: dict[str, list[Facts]], gone: set[tuple[str, str]]) -> dict[str, list[Facts]]:
    return {
        split: [image for image in images if (split, image.key) not in gone]
        for split, images in facts.items()
    }


def _one_reason_each(findings: list[Finding]) -> list[Finding]:
    """The findings in the order of `KINDS`; a dropped image has the one it was dropped for."""
    order = {kind: number for number, kind in enumerate(KINDS)}
    findings = sorted(findings, key=lambda f: (order[f.kind], f.split, f.key))
    reasons: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        if finding.handling == "drop":
            reasons.setdefault((finding.split, finding.key), finding)
    return [f for f in findings if reasons.get((f.split, f.key), f) is f]


def _handling(kind: str, config: PrepareConfig) -> str:
    """What is done with an image of a kind; one that cannot be read is dropped in any case."""
    handling = config.handling_of(kind)
    may_stay = KINDS[kind].allowed != ("drop",)
    return "keep" if handling == "drop" and config.on_bad == "keep" and may_stay else handling


def _alone(facts: dict[str, list[Facts]], config: PrepareConfig) -> Iterator[Finding]:
    for split, images in facts.items():
        for image in images:
            for kind in image.found:
                yield Finding(split, image.key, kind, _handling(kind, config), image.detail)


def _evaluation_first(facts: dict[str, list[Facts]], given: Set[str]) -> list[tuple[str, Facts]]:
    """Every image with its split, those to train on last: a leak is found in the training image."""

    def order(split: str) -> tuple[bool, int, str]:
        carved = ("validation", "minival")
        return split not in given, (*carved, split).index(split), split

    return [(split, image) for split in sorted(facts, key=order) for image in facts[split]]


def _same_bytes(images: list[tuple[str, Facts]], config: PrepareConfig) -> Iterator[Finding]:
    copies = defaultdict(list)
    for split, image in images:
        copies[image.content].append((split, image))
    for group in copies.values():
        (first_split, first), *others = group
        for split, image in others:
            kind = "exact_duplicate" if split == first_split else "leak"
            handling = _handling(kind, config)
            yield Finding(split, image.key, kind, handling, "", (first_split, first.key))
        for split, image in group:
            other = next((i for s, i in group if s == split and i.label != image.label), None)
            if other:
                handling = _handling("two_labels", config)
                yield Finding(split, image.key, "two_labels", handling, "", (split, other.key))


def _same_looks(images: list[tuple[str, Facts]], config: PrepareConfig) -> Iterator[Finding]:
    hashes = np.array([image.looks for _, image in images], np.uint64)
    nearest: dict[tuple[int, str], int] = {}
    for first, second in near_pairs(hashes):
        (split, image), (first_split, first_image) = images[second], images[first]
        if image.content != first_image.content:
            kind = "near_duplicate" if split == first_split else "near_leak"
            nearest.setdefault((second, kind), first)
    for (second, kind), first in nearest.items():
        (split, image), (first_split, first_image) = images[second], images[first]
        handling = _handling(kind, config)
        yield Finding(split, image.key, kind, handling, "", (first_split, first_image.key))


def near_pairs(hashes: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of 64-bit hashes that differ in at most `NEAR_BITS` bits.

    Args:
        hashes: uint64 `(N,)`.

    Returns:
        Sorted pairs of indices, the smaller first in each.
    """
    pairs: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        bits = (hashes >> np.uint64(band * _BAND_BITS)) & np.uint64(2**_BAND_BITS - 1)
        order = np.argsort(bits, kind="stable")
        left = np.arange(len(order))
        for shift in range(1, len(order)):
            left = left[left + shift < len(order)]
            first, second = order[left], order[left + shift]
            same_band = bits[first] == bits[second]
            if not same_band.any():
                break
            left, first, second = left[same_band], first[same_band], second[same_band]
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= NEAR_BITS
            pairs.update(zip(first[near].tolist(), second[near].tolist(), strict=True))
    return sorted(pairs)


@dataclass(frozen=True)
class Balance:
    """Images in the smallest and the largest class of `train`, and the classes without any."""

    smallest_class: str
    smallest: int
    largest_class: str
    largest: int
    empty_classes: list[str]

    def __str__(self) -> str:
        if self.smallest == self.largest:
            return f"{self.smallest:,} images in every class of train"
        remark = ": imbalanced" if self.largest >= IMBALANCE * self.smallest else ""
        return (
            f"{self.smallest:,} ({self.smallest_class}) to {self.largest:,} "
            f"({self.largest_class}) images a class in train{remark}"
        )


def balance(images: list[Facts], class_names: list[str]) -> Balance:
    """How evenly a split's images fall on its classes; the first class where several tie."""
    counts = np.bincount([image.label for image in images], minlength=len(class_names))
    low, high = int(counts.argmin()), int(counts.argmax())
    return Balance(
        smallest_class=class_names[low],
        smallest=int(counts[low]),
        largest_class=class_names[high],
        largest=int(counts[high]),
        empty_classes=[class_names[label] for label in np.flatnonzero(counts == 0)],
    )


def report(cleaning: Cleaning, classes: Balance) -> dict:
    """What `cleaning.json` holds."""
    return {
        "counts": cleaning.counts(),
        "class_balance": dataclasses.asdict(classes),
        "imbalanced": classes.largest >= IMBALANCE * classes.smallest,
        "findings": [dataclasses.asdict(finding) for finding in cleaning.findings],
    }
