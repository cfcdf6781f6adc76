"""Every source is read in its exact layout."""

import csv
import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from scipy.io import savemat
from sklearn.datasets import load_digits
from tensorflow_datasets.core.utils import shard_utils

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


def meta_mat(synsets: list[tuple[int, str, str]]) -> bytes:
    """`meta.mat` of numbered synsets with their words, and one inner node."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(*synset, 0) for synset in synsets]
    synsets = np.array([*rows, (len(rows) + 1, "n00001740", "entity", 3)], dtype=kinds)
    file = io.BytesIO()
    savemat(file, {"synsets": synsets.reshape(-1, 1)})
    return file.getvalue()


def write_devkit(root, synsets: list[tuple[int, str, str]], truth: list[int]) -> None:
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as devkit:
        add(devkit, "ILSVRC2012_devkit_t12/data/meta.mat", meta_mat(synsets))
        name = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
        add(devkit, name, "".join(f"{number}\n" for number in truth).encode())


def write_train_archive(root, classes: dict[str, dict[str, bytes]]) -> None:
    """`ILSVRC2012_img_train.tar` of `{synset: {file name: bytes}}`."""
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid, images in classes.items():
            inner_file = io.BytesIO()
            with tarfile.open(fileobj=inner_file, mode="w") as inner:
                for name, encoded in images.items():
                    add(inner, name, encoded)
            add(outer, f"{wnid}.tar", inner_file.getvalue())


@pytest.fixture
def ilsvrc(tmp_path):
    """The archives in miniature, and the bytes of every image by its key."""
    root = tmp_path / "ilsvrc"
    root.mkdir()
    classes = {
        wnid: {
            f"{wnid}_{index}.JPEG": photograph(tmp_path / "one.JPEG", 10 * number + index)
            for index in range(3)
        }
        for number, wnid in reversed(list(enumerate(WNIDS)))
    }
    write_train_archive(root, classes)
    images = {
        f"train/{wnid}/{name}": (encoded, wnid)
        for wnid, files in classes.items()
        for name, encoded in files.items()
    }
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
    # Numbered in another order than sorted.
    write_devkit(root, list(zip((3, 1, 2), WNIDS, WORDS, strict=True)), truth=[2, 3])
    words = dict(zip(WNIDS, WORDS, strict=True))
    expected = {key: (encoded, words[wnid]) for key, (encoded, wnid) in images.items()}
    assert prepared(root, tmp_path / "out") == expected
    source = open_source(PrepareConfig(str(root), tmp_path / "out"))
    assert source.class_ids == sorted(WNIDS)


@pytest.fixture
def thousand_synsets(ilsvrc, tmp_path):
    """As many synsets as the real archives have, an image each; gives the number of every image."""
    root, _ = ilsvrc
    wnids = [f"n{10_000_000 + 7 * number}" for number in range(1000)]
    order = np.random.default_rng(0).permutation(1000).tolist()
    synsets = [(id_, wnids[number], f"words {number}") for id_, number in enumerate(order, 1)]
    write_devkit(root, synsets, truth=[1, 1000])
    one = tmp_path / "one.JPEG"
    write_train_archive(
        root, {wnids[number]: {"0.JPEG": photograph(one, 1000 + number)} for number in order}
    )
    labels = {f"train/{wnid}/0.JPEG": number for number, wnid in enumerate(wnids)}
    for index, number in ((1, order[0]), (2, order[-1])):
        labels[f"val/ILSVRC2012_val_{index:08d}.JPEG"] = number
    return root, labels


def test_the_synsets_of_ilsvrc2012_are_a_thousand_classes_in_sorted_order(thousand_synsets):
    root, labels = thousand_synsets
    source = open_source(PrepareConfig(str(root), root / "out"))
    assert source.class_names == [f"words {number}" for number in range(1000)]
    assert source.class_ids == sorted(source.class_ids)
    blobs = [blob for split in source.splits.values() for blob in split.blobs]
    assert {blob.key: blob.label for blob in blobs} == labels


# Run where nothing of ours can be imported: the labels, sizes and shards of data sets.
READER = """
import json, sys
sys.modules |= dict.fromkeys(("pipelines", "keras_zoo", "tuning"))
import tensorflow_datasets as tfds

def read(name):
    builder = tfds.builder_from_directory(name)
    splits = builder.info.splits
    examples = list(builder.as_dataset("+".join(splits)).as_numpy_iterator())
    return {
        "labels": {e["file_name"].decode(): int(e["label"]) for e in examples},
        "shapes": sorted({e["image"].shape for e in examples}),
        "classes": builder.info.features["label"].names,
        "shards": {name: split.num_shards for name, split in splits.items()},
    }

print(json.dumps({name: read(name) for name in sys.argv[1:]}))
"""


def test_a_program_with_only_tfds_reads_what_comes_of_every_source(
    thousand_synsets, digits, tmp_path, monkeypatch
):
    root, labels = thousand_synsets
    rows = manifest_rows(tmp_path)
    lines = ["path,label,split", *(",".join(row.values()) for row in rows)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    for index in range(60):
        photograph(tmp_path / "folder" / "abc"[index % 3] / f"{index}.png", index)
    out = tmp_path / "out"
    prepare(PrepareConfig(str(root), out / "ilsvrc2012"))
    prepare(PrepareConfig(str(tmp_path / "list.csv"), out / "manifest"))
    three = shard_utils.ShardConfig(num_shards=3)
    monkeypatch.setattr("pipelines.data.shards.ShardConfig", lambda: three)
    prepare(PrepareConfig(str(tmp_path / "folder"), out / "folder", holdout_fraction=0.3))
    (out / "digits").symlink_to(digits)
    names = ("ilsvrc2012", "manifest", "folder", "digits")
    done = subprocess.run(
        [sys.executable, "-c", READER, *names],
        capture_output=True,
        text=True,
        check=True,
        cwd=out,
    )
    one = {"train": 1, "validation": 1}
    assert json.loads(done.stdout) == {
        "ilsvrc2012": {
            "labels": labels,
            "shapes": [[10, 12, 3]],
            "classes": [f"words {number}" for number in range(1000)],
            "shards": one,
        },
        "manifest": {
            "labels": {row["path"]: ("cat", "dog").index(row["label"]) for row in rows},
            "shapes": [[10, 12, 3]],
            "classes": ["cat", "dog"],
            "shards": one | {"extra": 1},
        },
        "folder": {
            "labels": {f"{'abc'[index % 3]}/{index}.png": index % 3 for index in range(60)},
            "shapes": [[10, 12, 3]],
            "classes": ["a", "b", "c"],
            "shards": {"train": 3, "validation": 3},
        },
        "digits": {
            "labels": {f"{i:04d}.png": int(y) for i, y in enumerate(load_digits().target)},
            "shapes": [[32, 32, 3]],
            "classes": [str(digit) for digit in range(10)],
            "shards": one,
        },
    }


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


@pytest.mark.parametrize(
    ("name", "size"), [("img_train.tar", 2000), ("img_val.tar", 700), ("devkit_t12.tar.gz", 200)]
)
def test_a_torn_archive_is_named(name, size, ilsvrc, tmp_path):
    root, _ = ilsvrc
    write_devkit(root, list(zip((1, 2, 3), WNIDS, WORDS, strict=True)), truth=[3, 1])
    archive = root / f"ILSVRC2012_{name}"
    archive.write_bytes(archive.read_bytes()[:size])
    with pytest.raises(BadInput, match=rf"{name}' is broken: .*; fetch it anew"):
        open_source(PrepareConfig(str(root), tmp_path / "out"))


def test_validation_images_of_ilsvrc2012_alone_are_refused(ilsvrc, tmp_path):
    root, _ = ilsvrc
    (root / "ILSVRC2012_img_train.tar").unlink()
    with pytest.raises(BadInput, match=r"has ILSVRC2012_img_val.tar and no ILSVRC2012_img_train"):
        open_source(PrepareConfig(str(root), tmp_path / "out"))


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
        (
            "path,label\nnowhere.png,cat\n",
            r"nowhere.png first .missing: no such file; a manifest's paths are rel",
        ),
        ("path,label\na.png\n", "no label for a.png"),
        ("path,label,split\na.png,cat,train[:50%]\n", r"'train\[:50%\]' is no name of a split"),
        ("path,label,split\na.png,cat,test\n", "it lists nothing for train, only for test"),
    ],
)
def test_a_manifest_that_is_none_is_refused(text, told, tmp_path):
    photograph(tmp_path / "a.png", 0)
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(BadInput, match=told):
        prepare(PrepareConfig(str(tmp_path / "list.csv"), tmp_path / "out"))


def test_a_manifest_may_come_from_a_spreadsheet(tmp_path):
    """With a byte order mark, blanks around cells, and the usual names of the splits."""
    rows = ["path, label, split", "a.png, cat, Training", "b.png , dog,train", "c.png,cat, valid "]
    (tmp_path / "list.csv").write_bytes(("\ufeff" + "\r\n".join(rows)).encode())
    source = open_source(PrepareConfig(str(tmp_path / "list.csv"), tmp_path / "out"))
    assert source.class_names == ["cat", "dog"]
    keys = {name: [blob.key for blob in split.blobs] for name, split in source.splits.items()}
    assert keys == {"train": ["a.png", "b.png"], "validation": ["c.png"]}


def test_of_a_path_that_is_listed_again_one_stays_unless_the_labels_differ(tmp_path):
    for index in range(4):
        photograph(tmp_path / f"{index}.png", index)
    rows = [(0, "cat"), (1, "dog"), (2, "cat"), (0, "cat"), (0, "cat"), (2, "dog")]
    lines = [f"{index}.png,{label},train" for index, label in rows] + ["3.png,cat,val"]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    result = prepare(PrepareConfig(str(tmp_path / "list.csv"), tmp_path / "out"))
    assert set(read(tmp_path / "out", "train")) == {"0.png", "1.png"}
    assert {bad.key: bad.reason for bad in result.bad_files} == {
        "2.png": "two_labels: as 2.png#2 in train",
        "2.png#2": "two_labels: as 2.png in train",
        "0.png#2": "exact_duplicate: as 0.png in train",
        "0.png#3": "exact_duplicate: as 0.png in train",
    }


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("training", "validation"), {"train", "validation"}),
        (("Train", "Val"), {"train", "validation"}),
        (("train", "valid"), {"train", "validation"}),
        (("train", "test"), {"train", "test"}),
        (("train", "dev", "TEST"), {"train", "validation", "test"}),
        (("strain", "contest"), {"train"}),
    ],
)
def test_folders_of_splits_go_by_their_usual_names(folders, expected, tmp_path):
    for folder in folders:
        (tmp_path / "data" / folder / "cat").mkdir(parents=True)
        (tmp_path / "data" / folder / "cat" / "a.png").touch()
    source = open_source(PrepareConfig(str(tmp_path / "data"), tmp_path / "out"))
    assert set(source.splits) == expected
    assert source.class_names == (["contest", "strain"] if "strain" in folders else ["cat"])


def test_where_there_is_a_test_set_validation_is_carved_from_train(tmp_path):
    for index in range(40):
        photograph(tmp_path / "data" / "train" / "cat" / f"{index}.png", index)
    photograph(tmp_path / "data" / "test" / "cat" / "a.png", 100)
    result = prepare(PrepareConfig(str(tmp_path / "data"), tmp_path / "out", holdout_fraction=0.3))
    assert result.images["test"] == 1
    assert result.images["train"] + result.images["validation"] == 40
    tests = {"test": str(tmp_path / "data")}
    with pytest.raises(BadInput, match=r"tests has 'test', and .* has a split of this name"):
        open_source(PrepareConfig(str(tmp_path / "data"), tmp_path / "out", tests=tests))


def test_the_test_folder_of_imagenet_is_no_split_for_it_has_no_labels(tmp_path):
    for file in ("train/cat/a.png", "val/cat/b.png", "test/c.png"):
        photograph(tmp_path / "data" / file, 0)
    source = open_source(PrepareConfig(str(tmp_path / "data"), tmp_path / "out"))
    assert set(source.splits) == {"train", "validation"}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("train/cat/a.png", "plane/a.png"), "others beside them: 'plane'; a split is called one"),
        (("train/cat/a.png", "val/cat/a.png", "dev/cat/a.png"), "'dev' and 'val' of .* are both"),
        (("val/cat/a.png", "test/cat/a.png"), "has 'test', 'val' and no 'train'"),
        (("train/cat/a.png", "Val/a.png"), "no class folders with images in 'Val' of"),
        (("a.png", "b.png"), "files lie directly in .* or list them with their labels in a .csv"),
        (("cat/a.png", "dog/notes.txt"), "class folders of .*data' hold no image: 'dog'; fill or"),
        (("train/cat/a.png", "train/dog/.x"), "class folders of .*train' hold no image: 'dog'"),
    ],
)
def test_folders_that_do_not_tell_splits_and_classes_are_refused(files, told, tmp_path):
    for file in files:
        (tmp_path / "data" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / file).touch()
    with pytest.raises(BadInput, match=told):
        open_source(PrepareConfig(str(tmp_path / "data"), tmp_path / "out"))


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
