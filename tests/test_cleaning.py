"""A folder with one of each kind of bad file, and what becomes of every one."""

import dataclasses
import io
import json
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.config import KINDS, PrepareConfig
from pipelines.data.cleaning import NEAR_BITS, Facts, balance, near_pairs
from pipelines.data.preparation import prepare
from pipelines.errors import BadInput
from tests.photographs import encode, photograph, picture, read

SIZE = (64, 48)


def bomb() -> bytes:
    """A PNG whose header promises 400 million pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory):
    """Ten good images a class and split, and in `train/cat` one file of each kind by its name."""
    root = tmp_path_factory.mktemp("data") / "one_of_each"
    for number, (split, name) in enumerate(
        (split, name) for split in ("train", "val") for name in ("cat", "dog")
    ):
        for index in range(10):
            photograph(root / split / name / f"{index}.JPEG", 100 * number + index, SIZE)
    cat = root / "train" / "cat"
    (cat / "zero_byte.JPEG").write_bytes(b"")
    (cat / "missing.JPEG").symlink_to("nowhere.JPEG")
    (cat / "readme.txt").write_text("left alone")
    (cat / "not_an_image.JPEG").write_text("<html>404</html>")
    (cat / "decompression_bomb.png").write_bytes(bomb())
    whole = photograph(cat / "truncated.JPEG", 1000, SIZE)
    (cat / "truncated.JPEG").write_bytes(whole[: len(whole) // 2])
    whole = photograph(cat / "corrupt.png", 1001, SIZE)
    (cat / "corrupt.png").write_bytes(whole[:100] + bytes(200) + whole[300:])
    whole = photograph(cat / "damaged.JPEG", 1010, (256, 192))
    middle = len(whole) // 2
    (cat / "damaged.JPEG").write_bytes(whole[:middle] + bytes(400) + whole[middle + 400 :])
    photograph(cat / "foreign_format.webp", 1002, SIZE)
    photograph(cat / "too_small.png", 1003, (64, 3))
    (cat / "leak.JPEG").write_bytes((root / "val" / "dog" / "3.JPEG").read_bytes())
    photograph(cat / "two_labels.JPEG", 1004, SIZE)
    photograph(root / "train" / "dog" / "two_labels.JPEG", 1004, SIZE)
    (cat / "exact_duplicate.JPEG").write_bytes((cat / "3.JPEG").read_bytes())
    photograph(cat / "near_duplicate.JPEG", 4, SIZE, quality=60)
    photograph(cat / "near_leak.JPEG", 204, SIZE, quality=60)
    photograph(cat / "cmyk.JPEG", 1005, SIZE, mode="CMYK")
    (cat / "wrong_extension.JPEG").write_bytes(encode(picture(1006, SIZE), "PNG", {}))
    photograph(cat / "greyscale.JPEG", 1007, SIZE, mode="L")
    photograph(cat / "alpha.png", 1008, SIZE, mode="RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(cat / "exif_orientation.JPEG", 1009, SIZE, exif=exif)
    return root


def findings(folder):
    return json.loads((folder / "cleaning.json").read_text())["findings"]


def test_each_kind_is_found_under_its_own_name(one_of_each, tmp_path):
    prepare(PrepareConfig(str(one_of_each), tmp_path / "out"))
    found = {(f["kind"], f["key"].split("/")[-1].split(".")[0]) for f in findings(tmp_path / "out")}
    assert found == {(kind, kind) for kind in KINDS}


def test_by_default_the_table_decides_and_the_good_ones_stay(one_of_each, tmp_path):
    result = prepare(PrepareConfig(str(one_of_each), tmp_path / "out"))
    train = read(tmp_path / "out", "train")
    assert result.images == {"train": len(train), "validation": 20}
    left = {name.split("/")[-1].split(".")[0] for name in train}
    assert left == {str(i) for i in range(10)} | {
        kind for kind, row in KINDS.items() if row.handling != "drop"
    }
    for kind, row in KINDS.items():
        done = "rewrite" if kind == "foreign_format" else row.handling
        assert result.found[kind] == {done: 2 if kind == "two_labels" else 1}
    for name, (encoded, _) in train.items():
        if "foreign_format" not in name:
            assert encoded == (one_of_each / name).read_bytes()
    assert "  truncated           1 dropped" in str(result)


def test_on_bad_fail_names_the_first_and_writes_nothing(one_of_each, tmp_path):
    with pytest.raises(BadInput, match=r"are to be dropped, train/cat/zero_byte\.JPEG first"):
        prepare(PrepareConfig(str(one_of_each), tmp_path / "out", on_bad="fail"))
    assert list(tmp_path.iterdir()) == []


def test_on_bad_keep_keeps_all_that_decodes(one_of_each, tmp_path):
    result = prepare(PrepareConfig(str(one_of_each), tmp_path / "out", on_bad="keep"))
    assert {bad.reason.partition(":")[0] for bad in result.bad_files} == {
        "zero_byte",
        "missing",
        "not_an_image",
        "decompression_bomb",
        "truncated",
        "corrupt",
    }


def test_handling_is_chosen_by_kind(one_of_each, tmp_path):
    handling = {"exif_orientation": "rewrite", "cmyk": "rewrite", "greyscale": "drop"}
    prepare(PrepareConfig(str(one_of_each), tmp_path / "out", handling=handling, short_side_px=40))
    train = read(tmp_path / "out", "train")
    assert "train/cat/greyscale.JPEG" not in train
    sizes = {}
    for name, (encoded, _) in train.items():
        with Image.open(io.BytesIO(encoded)) as image:
            sizes[name] = (image.size, image.mode, image.getexif().get(0x0112, 1))
    assert sizes["train/cat/exif_orientation.JPEG"] == ((40, 53), "RGB", 1)
    assert sizes["train/cat/cmyk.JPEG"] == ((53, 40), "RGB", 1)
    assert {size for size, _, _ in sizes.values()} == {(53, 40), (40, 53)}


def test_the_contact_sheet_is_one_file_that_shows_what_was_dropped(one_of_each, tmp_path):
    prepare(PrepareConfig(str(one_of_each), tmp_path / "out"))
    page = (tmp_path / "out" / "contact_sheet.html").read_text()
    assert "truncated: 1 dropped" in page
    assert "train/cat/leak.JPEG; beside it validation: val/dog/3.JPEG" in page
    assert "http" not in page.replace("begins with", "")
    assert page.count("data:image/jpeg;base64,") >= 20


def test_comparison_never_drops_from_an_evaluation_split(tmp_path):
    root = tmp_path / "data"
    for index in range(4):
        photograph(root / "train" / "cat" / f"{index}.png", index)
        photograph(root / "val" / "cat" / f"{index}.png", index + 10)
        photograph(root / "val" / "cat" / f"again_{index}.png", index + 10)
    result = prepare(PrepareConfig(str(root), tmp_path / "out"))
    assert result.images == {"train": 4, "validation": 8}
    assert result.found["exact_duplicate"] == {"keep": 4}


def test_looking_like_an_image_that_was_carved_away_is_a_leak(tmp_path):
    """Pairs, one re-encoded, that the folds and what is carved tear apart, and single images."""
    for index in range(30, 60):
        photograph(tmp_path / "data" / "cat" / f"{index}.JPEG", index, SIZE)
    for index in range(30):
        photograph(tmp_path / "data" / "cat" / f"{index}.JPEG", index, SIZE)
        photograph(tmp_path / "data" / "cat" / f"{index}_again.JPEG", index, SIZE, quality=60)
    config = PrepareConfig(
        str(tmp_path / "data"), tmp_path / "kept", holdout_fraction=0.3, minival=0.3, folds=2
    )
    kept = prepare(config)
    splits = {key: split for split in kept.images for key in read(config.out, split)}
    apart = {
        index
        for index in range(30)
        if splits[f"cat/{index}.JPEG"] != splits[f"cat/{index}_again.JPEG"]
    }
    assert 0 < len(apart) < 30
    assert kept.found == {
        "near_leak": {"keep": len(apart)},
        "near_duplicate": {"keep": 30 - len(apart)},
    }
    for found in findings(config.out):
        other, twin = found["twin"]
        assert (splits[found["key"]], splits[twin]) == (found["split"], other)
        assert (found["kind"] == "near_leak") == (found["split"] != other)
        # Whoever trains on it is told: never the validation image of such a pair.
        assert found["kind"] == "near_duplicate" or found["split"] != "validation"

    dropped = prepare(
        dataclasses.replace(config, out=tmp_path / "dropped", handling={"near_leak": "drop"})
    )
    assert dropped.found["near_leak"] == {"drop": len(apart)}
    assert sum(dropped.images.values()) == 90 - len(apart)
    assert dropped.images["validation"] == kept.images["validation"]


def test_copies_are_dropped_from_what_is_carved_too(tmp_path):
    for index in range(20):
        for name in ("a", "b"):
            photograph(tmp_path / "data" / "cat" / f"{name}{index}.png", index)
    result = prepare(PrepareConfig(str(tmp_path / "data"), tmp_path / "out", holdout_fraction=0.5))
    assert result.found["exact_duplicate"] == {"drop": 20}
    assert sum(result.images.values()) == 20


def test_the_classes_are_counted_in_what_is_left_to_train_on(tmp_path):
    root = tmp_path / "data"
    for index in range(20):
        photograph(root / "cat" / f"{index}.png", index)
    for name in ("cow", "dog"):
        photograph(root / name / "two_labels.png", 100)
    result = prepare(PrepareConfig(str(root), tmp_path / "out", holdout_fraction=0.3, folds=2))
    left = result.images["fold0"] + result.images["fold1"]
    assert left < 20
    assert f"0 (cow) to {left} (cat) images a class in train: imbalanced\n" in str(result)
    assert "no image of 2 classes is left in train: 'cow', 'dog'\n" in str(result)
    balance_file = json.loads((tmp_path / "out" / "cleaning.json").read_text())["class_balance"]
    assert (balance_file["largest"], balance_file["empty_classes"]) == (left, ["cow", "dog"])


def test_near_pairs_are_those_of_comparing_all_with_all():
    draw = random.Random(0)
    hashes = [draw.getrandbits(64) for _ in range(300)]
    for index in range(0, 300, 3):
        flips = draw.sample(range(64), draw.randrange(0, 7))
        hashes.append(hashes[index] ^ sum(1 << bit for bit in flips))
    expected = [
        (i, j)
        for j in range(len(hashes))
        for i in range(j)
        if (hashes[i] ^ hashes[j]).bit_count() <= NEAR_BITS
    ]
    assert near_pairs(np.array(hashes, np.uint64)) == sorted(expected)


def test_an_imbalanced_data_set_is_called_so():
    images = [Facts(str(index), int(index >= 40), "") for index in range(44)]
    assert "4 (rare) to 40 (common) images a class in train: imbalanced" in str(
        balance(images, ["common", "rare"])
    )
    assert "imbalanced" not in str(balance(images[:41][37:], ["common", "rare"]))
    assert str(balance(images[36:], ["one", "two"])) == "4 images in every class of train"
