"""Every source, in its exact layout, becomes a data set that any TFDS program reads."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pipelines.config import PrepareConfig
from pipelines.data.preparation import prepare
from pipelines.errors import BadInput


def photograph(path, seed, size=(12, 10), mode="RGB"):
    """Writes a small image of noise; the same seed gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], channels), np.uint8)
    Image.fromarray(noise.squeeze(), mode).save(path)


def read(folder, split):
    """`{file_name: (bytes, class name)}` of a prepared split."""
    builder = tfds.builder_from_directory(folder)
    label = builder.info.features["label"]
    stream = builder.as_dataset(split, decoders={"image": tfds.decode.SkipDecoding()})
    return {
        example["file_name"].decode(): (example["image"], label.int2str(example["label"]))
        for example in stream.as_numpy_iterator()
    }


@pytest.fixture
def split_folder(tmp_path):
    root = tmp_path / "photographs"
    for split, count in (("train", 3), ("val", 2)):
        for number, name in enumerate(("cat", "dog")):
            for index in range(count):
                seed = 100 * number + 10 * count + index
                photograph(root / split / name / f"{index}.JPEG", seed)
    return root


def test_imagenet_layout_keeps_bytes_labels_and_splits(split_folder, tmp_path):
    result = prepare(PrepareConfig(str(split_folder), tmp_path / "out"))
    assert result.images == {"train": 6, "validation": 4}
    train = read(tmp_path / "out", "train")
    for name, (encoded, label) in train.items():
        assert (split_folder / name).read_bytes() == encoded
        assert name.split("/")[1] == label
    assert len(train) == 6
    assert len(read(tmp_path / "out", "validation")) == 4


def test_tiny_imagenet_layout_takes_its_labels_from_words_and_annotations(tmp_path):
    root = tmp_path / "tiny"
    for number, wnid in enumerate(("n01", "n02")):
        photograph(root / "train" / wnid / "images" / f"{wnid}_0.JPEG", seed=number)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("0\t0\t62\t62\n")
    photograph(root / "val" / "images" / "val_0.JPEG", seed=7)
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t62\t62\n")
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tbullfrog\nn03\tx\n")
    result = prepare(PrepareConfig(str(root), tmp_path / "out"))
    assert result.bad_files == []
    assert [label for _, label in read(tmp_path / "out", "validation").values()] == ["bullfrog"]
    assert {label for _, label in read(tmp_path / "out", "train").values()} == {
        "goldfish, Carassius auratus",
        "bullfrog",
    }


def test_classes_with_the_same_words_stay_apart(tmp_path):
    root = tmp_path / "cranes"
    for number, wnid in enumerate(("n02012849", "n03126707")):
        for index in range(4):
            photograph(root / "train" / wnid / f"{index}.JPEG", seed=10 * number + index)
            photograph(root / "val" / wnid / f"{index}.JPEG", seed=10 * number + index + 5)
    (root / "words.txt").write_text("n02012849\tcrane\nn03126707\tcrane\n")
    prepare(PrepareConfig(str(root), tmp_path / "out"))
    names = tfds.builder_from_directory(tmp_path / "out").info.features["label"].names
    assert names == ["crane (n02012849)", "crane (n03126707)"]


def test_without_splits_a_stable_part_is_held_out(tmp_path):
    root, more = tmp_path / "some", tmp_path / "more"
    for folder, count in ((root, 40), (more, 60)):
        for index in range(count):
            photograph(folder / "cat" / f"{index}.JPEG", seed=index)
    prepare(PrepareConfig(str(root), tmp_path / "a", holdout_fraction=0.3))
    prepare(PrepareConfig(str(more), tmp_path / "b", holdout_fraction=0.3))
    parts = {
        name: {s: set(read(tmp_path / name, s)) for s in ("train", "validation")} for name in "ab"
    }
    assert parts["a"]["train"] | parts["a"]["validation"] == {f"cat/{i}.JPEG" for i in range(40)}
    assert parts["a"]["train"] < parts["b"]["train"]
    assert parts["a"]["validation"] < parts["b"]["validation"]
    assert 4 <= len(parts["a"]["validation"]) <= 20


def test_any_tfds_data_set_is_a_source(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))

    class Checkerboards(tfds.core.GeneratorBasedBuilder):
        """Two classes of small PNG images."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["black", "white"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0, 9), "test": self._generate_examples(9, 13)}

        def _generate_examples(self, start, stop):
            for index in range(start, stop):
                image = np.full((8, 8, 3), 255 * (index % 2), np.uint8)
                image[index % 8, index // 8] = 128
                yield index, {"image": image, "label": index % 2}

    result = prepare(PrepareConfig("tfds:checkerboards", tmp_path / "out"))
    assert result.images == {"train": 9, "validation": 4}
    labels = [label for _, label in read(tmp_path / "out", "train").values()]
    assert (labels.count("black"), labels.count("white")) == (5, 4)


def test_a_program_with_only_tfds_reads_the_digits(digits):
    script = (
        "import sys, tensorflow_datasets as tfds\n"
        "builder = tfds.builder_from_directory(sys.argv[1])\n"
        "both = builder.as_dataset('train+validation')\n"
        "shapes = {tuple(e['image'].shape) for e in both.as_numpy_iterator()}\n"
        "splits = builder.info.splits\n"
        "total = splits['train'].num_examples + splits['validation'].num_examples\n"
        "print(total, shapes, builder.info.features['label'].names)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, digits], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"1797 {{(32, 32, 3)}} {[str(d) for d in range(10)]}"


def test_files_that_are_no_images_are_named_and_left_out(split_folder, tmp_path):
    cat = split_folder / "train" / "cat"
    (cat / "notes.txt").write_text("not an image")
    (cat / "empty.JPEG").write_bytes(b"")
    whole = (cat / "0.JPEG").read_bytes()
    (cat / "torn.JPEG").write_bytes(whole[: len(whole) // 2])
    result = prepare(PrepareConfig(str(split_folder), tmp_path / "out"))
    assert result.images == {"train": 6, "validation": 4}
    assert {bad.key for bad in result.bad_files} == {
        f"train/cat/{name}" for name in ("notes.txt", "empty.JPEG", "torn.JPEG")
    }
    assert "left out 3 files" in str(result)
    assert "train/cat/notes.txt" in str(result)


def test_a_finished_preparation_is_found_again(split_folder, tmp_path):
    config = PrepareConfig(str(split_folder), tmp_path / "out")
    first = prepare(config)
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert prepare(config) == first
    assert written == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}


def test_an_out_folder_of_something_else_is_left_alone(split_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(BadInput, match="remove it or choose another --out"):
        prepare(PrepareConfig(str(split_folder), tmp_path / "out"))
    assert (tmp_path / "out" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere", "no folder 'nowhere'"),
        ("empty", "no images in 'empty'"),
        ("broken", "no image is left for the split .train.*1 files were dropped, train/cat/0.JPEG first"),
        ("strange", "classes that train lacks, 'bird' first"),
        ("tfds:no_such_data_set", "cannot prepare tfds:no_such_data_set"),
    ],
)
def test_a_source_that_is_none_is_refused_and_nothing_written(source, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "train" / "cat" / "0.JPEG").write_text("no")
    photograph(tmp_path / "strange" / "train" / "cat" / "0.JPEG", seed=0)
    photograph(tmp_path / "strange" / "val" / "bird" / "0.JPEG", seed=0)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput, match=told):
        prepare(PrepareConfig(source, tmp_path / "out"))
    assert sorted(tmp_path.iterdir()) == before
