"""Every source is read in its exact layout."""

import csv
import io
import json
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from pipelines.config import PrepareConfig
from pipelines.data.preparation import prepare
from pipelines.data.sources import open_source
from pipelines.errors import BadInput
from tests.photographs import photograph, read

WNIDS = ("n01440764", "n01443537", "n02012849")
WORDS = ("tench, Tinca tinca", "goldfish, Carassius auratus", "crane")


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def meta_mat() -> bytes:
    """`meta.mat` of three synsets and one inner node, numbered in another order than sorted."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(3, WNIDS[0], WORDS[0], 0), (1, WNIDS[1], WORDS[1], 0), (2, WNIDS[2], WORDS[2], 0)]
    synsets = np.array([*rows, (4, "n00001740", "entity", 3)], dtype=kinds)
    file = io.BytesIO()
    savemat(file, {"synsets": synsets.reshape(-1, 1)})
    return file.getvalue()


@pytest.fixture
def ilsvrc(tmp_path):
    """The archives in miniature, and the bytes of every image by its key."""
    root = tmp_path / "ilsvrc"
    root.mkdir()
    images = {}
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for number, wnid in reversed(list(enumerate(WNIDS))):
            inner_file = io.BytesIO()
            with tarfile.open(fileobj=inner_file, mode="w") as inner:
                for index in range(3):
                    key = f"{wnid}_{index}.JPEG"
                    encoded = photograph(tmp_path / "one.JPEG", 10 * number + index)
                    images[f"train/{wnid}/{key}"] = (encoded, wnid)
                    add(inner, key, encoded)
            add(outer, f"{wnid}.tar", inner_file.getvalue())
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
        for number, wnid in enumerate((WNIDS[2], WNIDS[0]), 1):
            key = f"ILSVRC2012_val_{number:08d}.JPEG"
            encoded = photograph(tmp_path / "one.JPEG", 100 + number)
            images[f"val/{key}"] = (encoded, wnid)
            add(archive, key, encoded)
    return root, images


def prepared(root, out):
    prepare(PrepareConfig(str(root), out))
    return read(out, "train") | read(out, "validation")


def test_the_ilsvrc2012_archives_are_read_with_the_devkit(ilsvrc, tmp_path):
    root, images = ilsvrc
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as devkit:
        add(devkit, "ILSVRC2012_devkit_t12/data/meta.mat", meta_mat())
        truth = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
        add(devkit, truth, b"2\n3\n")
    words = dict(zip(WNIDS, WORDS, strict=True))
    expected = {key: (encoded, words[wnid]) for key, (encoded, wnid) in images.items()}
    assert prepared(root, tmp_path / "out") == expected
    source = open_source(PrepareConfig(str(root), tmp_path / "out"))
    assert source.class_ids == sorted(WNIDS)


def test_the_ilsvrc2012_archives_are_read_with_a_list_of_labels(ilsvrc, tmp_path):
    root, images = ilsvrc
    lines = [f"{k.removeprefix('val/')}\t{w}\n" for k, (_, w) in images.items() if "val/" in k]
    (root / "val_annotations.txt").write_text("".join(lines))
    assert prepared(root, tmp_path / "out") == images


def test_validation_images_without_labels_are_refused(ilsvrc, tmp_path):
    root, _ = ilsvrc
    with pytest.raises(BadInput, match="put ILSVRC2012_devkit_t12"):
        prepare(PrepareConfig(str(root), tmp_path / "out"))
    (root / "val_annotations.txt").write_text("ILSVRC2012_val_00000001.JPEG n01440764\n")
    with pytest.raises(BadInput, match=r"1 images of .* have no label, ILSVRC2012_val_00000002"):
        prepare(PrepareConfig(str(root), tmp_path / "out"))


def test_a_torn_archive_is_refused(ilsvrc, tmp_path):
    archive = ilsvrc[0] / "ILSVRC2012_img_train.tar"
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(BadInput, match=r"is broken: .*; fetch it anew"):
        prepare(PrepareConfig(str(ilsvrc[0]), tmp_path / "out"))


def manifest_rows(root):
    """Images in no particular folders, and the rows that list them."""
    rows = []
    for index in range(12):
        photograph(root / "images" / f"{index}.png", index)
        split = ("train", "train", "val", "extra")[index % 4]
        label = ("cat", "dog")[index // 6]
        rows.append({"path": f"images/{index}.png", "label": label, "split": split})
    return rows


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_manifest_lists_paths_labels_and_splits(suffix, tmp_path):
    rows = manifest_rows(tmp_path)
    manifest = tmp_path / f"list.{suffix}"
    with manifest.open("w", newline="") as file:
        if suffix == "csv":
            writer = csv.DictWriter(file, ["path", "label", "split"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    result = prepare(PrepareConfig(str(manifest), tmp_path / "out"))
    assert result.images == {"train": 6, "validation": 3, "extra": 3}
    for split, name in (("train", "train"), ("validation", "val"), ("extra", "extra")):
        assert read(tmp_path / "out", split) == {
            row["path"]: ((tmp_path / row["path"]).read_bytes(), row["label"])
            for row in rows
            if row["split"] == name
        }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.png,cat\n", "a .csv begins with the line path,label"),
        ("path,label\nnowhere.png,cat\n", "nowhere.png first .zero_byte"),
        ("path,label\na.png\n", "no label for a.png"),
    ],
)
def test_a_manifest_that_is_none_is_refused(text, told, tmp_path):
    photograph(tmp_path / "a.png", 0)
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(BadInput, match=told):
        prepare(PrepareConfig(str(tmp_path / "list.csv"), tmp_path / "out"))


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path):
    for number in (10, 9, 1):
        photograph(tmp_path / "data" / str(number) / "0.png", number)
    assert open_source(PrepareConfig(str(tmp_path / "data"), tmp_path)).class_names == [
        "1",
        "9",
        "10",
    ]


def test_further_test_sets_lie_beside_with_the_classes_of_the_source(tmp_path):
    for number, name in enumerate(("ant", "bee", "cow")):
        for index in range(20):
            photograph(tmp_path / "main" / name / f"{index}.png", 100 * number + index)
        photograph(tmp_path / "imagenet_v2" / str(number) / "a.png", 1000 + number)
    photograph(tmp_path / "sketches" / "cow" / "a.png", 2000)
    tests = {name: str(tmp_path / name) for name in ("imagenet_v2", "sketches")}
    config = PrepareConfig(str(tmp_path / "main"), tmp_path / "out", tests=tests)
    assert prepare(config).images["imagenet_v2"] == 3
    found = {key: label for key, (_, label) in read(tmp_path / "out", "imagenet_v2").items()}
    assert found == {"0/a.png": "ant", "1/a.png": "bee", "2/a.png": "cow"}
    assert read(tmp_path / "out", "sketches")["cow/a.png"][1] == "cow"

    photograph(tmp_path / "sketches" / "yak" / "a.png", 2001)
    with pytest.raises(BadInput, match="'sketches' has 1 classes that the source lacks, 'yak'"):
        prepare(PrepareConfig(str(tmp_path / "main"), tmp_path / "other", tests=tests))
