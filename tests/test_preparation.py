"""Every source, in its exact layout, becomes a data set that any TFDS program reads."""

import contextlib
import io
import logging
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.utils import shard_utils

from pipelines.atomic import locked, neighbour, replacing
from pipelines.config import PrepareConfig
from pipelines.data import cleaning
from pipelines.data.pieces import PIECE_IMAGES
from pipelines.data.preparation import prepare
from pipelines.data.sources import open_source
from pipelines.data.workers import Processes
from pipelines.errors import BadInput, Failed
from pipelines.stage_log import STAGES
from tests.photographs import photograph, read


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
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "tfds"))

    class Checkerboards(tfds.core.GeneratorBasedBuilder):
        """Two classes of small PNG images."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["black", "white"]),
                "file_name": tfds.features.Text(),
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
                name = f"board_{index}.png"
                yield index, {"image": image, "label": index % 2, "file_name": name}

    result = prepare(PrepareConfig("tfds:checkerboards", tmp_path / "out"))
    assert result.images == {"train": 9, "validation": 4}
    train = read(tmp_path / "out", "train")
    assert {name.partition("/")[2] for name in train} == {f"board_{i}.png" for i in range(9)}
    labels = [label for _, label in train.values()]
    assert (labels.count("black"), labels.count("white")) == (5, 4)


def test_files_that_are_no_images_are_named_and_left_out(split_folder, tmp_path):
    cat = split_folder / "train" / "cat"
    (cat / "notes.html").write_text("not an image")
    (cat / "empty.JPEG").write_bytes(b"")
    whole = (cat / "0.JPEG").read_bytes()
    (cat / "torn.JPEG").write_bytes(whole[: len(whole) // 2])
    result = prepare(PrepareConfig(str(split_folder), tmp_path / "out"))
    assert result.images == {"train": 6, "validation": 4}
    assert {bad.key for bad in result.bad_files} == {
        f"train/cat/{name}" for name in ("notes.html", "empty.JPEG", "torn.JPEG")
    }
    assert "left out 3 files" in str(result)
    assert "train/cat/notes.html" in str(result)


@pytest.mark.parametrize(
    ("bad", "head", "more"), [(1, "left out 1 file:", 0), (12, "12 files:", 2)]
)
def test_the_summary_counts_what_it_does_not_list(bad, head, more, split_folder, tmp_path):
    for index in range(bad):
        (split_folder / "train" / "cat" / f"empty{index}.JPEG").touch()
    lines = str(prepare(PrepareConfig(str(split_folder), tmp_path / "out"))).split("\n")
    start = next(index for index, line in enumerate(lines) if line.endswith(head))
    assert sum("zero_byte: 0 bytes" in line for line in lines[start:]) == bad - more
    assert (f"and {more} more" in lines) == bool(more)


def test_a_test_set_that_leaves_nothing_to_train_on_is_said_to(split_folder, tmp_path):
    """The file that is named is one of train, not the first bad one of the test set."""
    shutil.copytree(split_folder / "train", tmp_path / "extra")
    (tmp_path / "extra" / "cat" / "empty.JPEG").touch()
    tests = {"extra": str(tmp_path / "extra")}
    told = r"'train' of '.*photographs', 6 files of it dropped, \S+ first \(leak: as \S+ in extra\)"
    with pytest.raises(BadInput, match=told):
        prepare(PrepareConfig(str(split_folder), tmp_path / "out", tests=tests))
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    (tmp_path / "hollow" / "cat" / "empty.JPEG").touch()
    hollow = {"hollow": str(tmp_path / "hollow")}
    with pytest.raises(BadInput, match=r"'hollow' of '.*hollow', 1 file of it dropped"):
        prepare(PrepareConfig(str(split_folder), tmp_path / "out", tests=hollow))


def test_classes_that_only_blanks_tell_apart_stay_apart(tmp_path):
    for number, name in enumerate(("cat", "cat ")):
        photograph(tmp_path / "pets" / "train" / name / "0.JPEG", seed=number)
        photograph(tmp_path / "pets" / "val" / name / "0.JPEG", seed=number + 5)
    prepare(PrepareConfig(str(tmp_path / "pets"), tmp_path / "out"))
    names = tfds.builder_from_directory(tmp_path / "out").info.features["label"].names
    assert names == ["cat (cat)", "cat (cat )"]


def test_a_class_without_a_name_is_refused(tmp_path):
    for split in ("train", "val"):
        photograph(tmp_path / "odd" / split / " " / "0.JPEG", seed=0)
    with pytest.raises(BadInput, match=r"class names .* are empty or not UTF-8"):
        prepare(PrepareConfig(str(tmp_path / "odd"), tmp_path / "out"))


def test_a_class_name_is_one_line(tmp_path):
    for number, name in enumerate(("a\nb", "c")):
        photograph(tmp_path / "odd" / "train" / name / "0.JPEG", seed=number)
        photograph(tmp_path / "odd" / "val" / name / "0.JPEG", seed=number + 5)
    prepare(PrepareConfig(str(tmp_path / "odd"), tmp_path / "out"))
    assert {label for _, label in read(tmp_path / "out", "train").values()} == {"a b", "c"}


def test_annotations_of_a_missing_file_are_counted_among_the_bad(tmp_path):
    root = tmp_path / "tiny"
    photograph(root / "train" / "n01" / "images" / "n01_0.JPEG", seed=0)
    photograph(root / "val" / "images" / "val_0.JPEG", seed=1)
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\nval_1.JPEG\tn01\t0\n")
    result = prepare(PrepareConfig(str(root), tmp_path / "out"))
    assert [bad.key for bad in result.bad_files] == ["val/images/val_1.JPEG"]


def test_a_preparation_under_way_is_left_alone(split_folder, tmp_path):
    workspace = neighbour(tmp_path / "out")
    workspace.mkdir()
    (workspace / "half").touch()
    with locked(workspace), pytest.raises(BadInput, match="in use by another process"):
        prepare(PrepareConfig(str(split_folder), tmp_path / "out"))
    assert [file.name for file in workspace.iterdir()] == ["half"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed = []

    def fsync(descriptor):
        assert not (tmp_path / "out").exists()
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr("pipelines.atomic.os.fsync", fsync)
    with replacing(tmp_path / "out") as partial:
        (partial / "folder").mkdir(parents=True)
        (partial / "folder" / "file").write_text("content")
    assert sorted(flushed) == [".partial-out", "file", "folder"]


def test_the_lock_is_on_the_folder_that_is_there(tmp_path, monkeypatch):
    workspace = tmp_path / "workspace"
    opened = []

    def open_while_it_is_removed(path, flags):
        opened.append(path)
        if len(opened) == 1:
            workspace.rmdir()
        descriptor = os_open(path, flags)
        if len(opened) == 2:
            workspace.rmdir()
        return descriptor

    os_open = os.open
    monkeypatch.setattr("pipelines.atomic.os.open", open_while_it_is_removed)
    with locked(workspace), pytest.raises(BadInput, match="in use"), locked(workspace):
        pass


def test_what_another_process_finished_meanwhile_is_found(split_folder, tmp_path, monkeypatch):
    config = PrepareConfig(str(split_folder), tmp_path / "out")
    finished_by_another = []

    def open_slowly(config):
        source = open_source(config)
        monkeypatch.undo()
        finished_by_another.append(prepare(config))
        return source

    monkeypatch.setattr("pipelines.data.preparation.open_source", open_slowly)
    assert [prepare(config)] == finished_by_another
    assert not neighbour(tmp_path / "out").exists()


def let_others_work(monkeypatch, examine, write):
    """Workers of another kind than processes."""
    others = contextlib.nullcontext(SimpleNamespace(examine=examine, write=write))
    monkeypatch.setattr("pipelines.data.preparation.workers_for", lambda *_: others)


def test_what_other_workers_left_is_no_part_of_the_data_set(split_folder, tmp_path, monkeypatch):
    config = PrepareConfig(str(split_folder), tmp_path / "out")

    def give_up(folder, *_):
        (folder / "train.jsonl").touch()
        (folder / "half" / "images").mkdir(parents=True)
        raise Failed("the runner gave up")

    let_others_work(monkeypatch, Processes(map).examine, give_up)
    with pytest.raises(Failed):
        prepare(config)
    monkeypatch.undo()
    prepare(config)
    prepare(PrepareConfig(str(split_folder), tmp_path / "uninterrupted"))
    assert contents(tmp_path / "out") == contents(tmp_path / "uninterrupted")


def test_relative_paths_hold_for_workers_in_another_folder(split_folder, tmp_path, monkeypatch):
    def elsewhere(work):
        def do(*arguments):
            with contextlib.chdir("/"):
                return work(*arguments)

        return do

    monkeypatch.chdir(tmp_path)
    here = Processes(map)
    let_others_work(monkeypatch, elsewhere(here.examine), elsewhere(here.write))
    prepare(PrepareConfig(split_folder.name, Path("out")))
    monkeypatch.undo()
    prepare(PrepareConfig(str(split_folder), tmp_path / "absolute"))
    for split in ("train", "validation"):
        assert read(tmp_path / "out", split) == read(tmp_path / "absolute", split)


def test_a_file_that_another_of_its_size_replaced_is_examined_again(tmp_path, monkeypatch):
    for index, split in enumerate(("train", "val")):
        photograph(tmp_path / "data" / split / "cat" / "0.bmp", index)
    config = PrepareConfig(str(tmp_path / "data"), tmp_path / "out")

    def give_up(*_):
        raise Failed("killed")

    monkeypatch.setattr("pipelines.data.preparation.clean", give_up)
    with pytest.raises(Failed):
        prepare(config)
    monkeypatch.undo()
    file = tmp_path / "data" / "train" / "cat" / "0.bmp"
    before = file.stat()
    replaced = photograph(file, 2)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert len(replaced) == before.st_size
    prepare(config)
    assert read(tmp_path / "out", "train")["train/cat/0.bmp"][0] == replaced


def test_without_apache_beam_one_line_says_how_to_get_it(split_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "pipelines.data.beam", raising=False)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(logging.root.manager, "disable", logging.INFO)
    with pytest.raises(BadInput, match=r"--runner needs Apache Beam.*pip install -e '\.\[beam\]'"):
        prepare(PrepareConfig(str(split_folder), tmp_path / "out", runner="DirectRunner"))
    assert sorted(tmp_path.iterdir()) == before
    assert logging.root.manager.disable == logging.INFO


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"runner": "DirectRunner", "workers": 2}, "workers is 2; the runner 'DirectRunner' has"),
        ({"beam_options": {"region": "x"}}, "beam_options has region and runner is not given"),
    ],
)
def test_options_that_contradict_one_another_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        PrepareConfig("digits", Path("out"), **options)


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
        ("empty", "no class folders with images in 'train' of 'empty'"),
        (
            "broken",
            "no image is left for the split .train.*1 file of it dropped, train/cat/0.JPEG first",
        ),
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


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough small images for several pieces of work, some of them bad."""
    root = tmp_path_factory.mktemp("many") / "data"
    for index in range(2400):
        photograph(root / f"class{index % 3}" / f"{index}.png", index, size=(8, 8))
    for index in range(0, 2400, 300):
        path = root / f"class{index % 3}" / f"bad_{index}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(index))
    return root


def configured(source, out, **options):
    return PrepareConfig(str(source), out, minival=0.1, folds=2, **options)


def contents(folder):
    """But for the log of when it was prepared."""
    files = sorted(folder.iterdir())
    return {file.name: file.read_bytes() for file in files if file.name != STAGES}


@pytest.fixture(scope="module")
def uninterrupted(many, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    prepare(configured(many, out, workers=1))
    return out


def test_killed_at_random_points_the_result_is_the_same_byte_for_byte(
    many, uninterrupted, tmp_path
):
    config = configured(many, tmp_path / "out", workers=1)
    workspace = tmp_path / ".partial-out"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.data.preparation"])
    # Each piece leaves two files, each of the four splits one shard.
    steps = 2 * math.ceil(2408 / PIECE_IMAGES) + 4
    draw = random.Random(0)
    kills = 0
    for files in sorted(draw.sample(range(1, steps - 1), 5)):
        process = context.Process(target=prepare, args=(config,))
        process.start()
        while process.is_alive() and len(list(workspace.rglob("*"))) < files:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.05)
        process.kill()
        process.join()
        if (tmp_path / "out").exists():
            # It was done before the kill.
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    assert kills
    prepare(config)
    assert contents(tmp_path / "out") == contents(uninterrupted)
    assert not workspace.exists()


def test_the_number_of_workers_does_not_change_a_byte(many, uninterrupted, tmp_path):
    prepare(configured(many, tmp_path / "out", workers=2))
    assert contents(tmp_path / "out") == contents(uninterrupted)


def test_what_is_finished_is_not_done_again(many, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    examined = []

    def examine_or_die(example, config):
        examined.append(example.key)
        if len(examined) == 1000:
            raise Killed
        return cleaning.examine(example, config)

    monkeypatch.setattr("pipelines.data.pieces.examine", examine_or_die)
    with pytest.raises(Killed):
        prepare(configured(many, tmp_path / "out", workers=1))
    prepare(configured(many, tmp_path / "out", workers=1))
    assert len(examined) == 2408 + 1000 - 3 * PIECE_IMAGES


def test_large_splits_are_written_in_several_shards(many, tmp_path, monkeypatch):
    three = shard_utils.ShardConfig(num_shards=3)
    monkeypatch.setattr("pipelines.data.shards.ShardConfig", lambda: three)
    result = prepare(configured(many, tmp_path / "out"))
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert {split: info.num_shards for split, info in builder.info.splits.items()} == dict.fromkeys(
        result.images, 3
    )
    for split, count in result.images.items():
        assert len(read(tmp_path / "out", split)) == count


def test_minival_and_folds_divide_train_by_content_and_growth_moves_nothing(
    many, uninterrupted, tmp_path
):
    grown = tmp_path / "grown"
    shutil.copytree(many, grown)
    for index in range(600):
        photograph(grown / "class0" / f"new_{index}.png", 10_000 + index, size=(8, 8))
    splits = ("validation", "minival", "fold0", "fold1")
    parts = {}
    for name, source, out in (
        ("before", many, uninterrupted),
        ("after", grown, tmp_path / "after"),
    ):
        result = prepare(configured(source, out))
        parts[name] = {split: set(read(out, split)) for split in splits}
        assert set(result.images) == set(splits)
        total = sum(result.images.values())
        expected = {"validation": 0.1, "minival": 0.09, "fold0": 0.405, "fold1": 0.405}
        for split, share in expected.items():
            margin = 4 * math.sqrt(share * (1 - share) / total)
            assert abs(result.images[split] / total - share) < margin
    for split in splits:
        assert parts["before"][split] < parts["after"][split]


def test_images_are_shrunk_and_never_enlarged(tmp_path):
    photograph(tmp_path / "data" / "train" / "cat" / "large.png", 0, size=(300, 200))
    small = photograph(tmp_path / "data" / "train" / "cat" / "small.png", 1, size=(60, 50))
    photograph(tmp_path / "data" / "val" / "cat" / "other.png", 2, size=(60, 50))
    prepare(PrepareConfig(str(tmp_path / "data"), tmp_path / "out", short_side_px=100))
    train = read(tmp_path / "out", "train")
    assert train["train/cat/small.png"][0] == small
    with Image.open(io.BytesIO(train["train/cat/large.png"][0])) as image:
        assert (image.size, image.format) == ((150, 100), "JPEG")


@pytest.mark.slow
def test_the_command_killed_with_its_workers_goes_on_and_leaves_no_process(
    many, uninterrupted, tmp_path
):
    arguments = ["--minival", "0.1", "--folds", "2", "--workers", "2"]
    command = [sys.executable, "-m", "pipelines.prepare", many, "--out", tmp_path / "out"]
    workspace = tmp_path / ".partial-out"
    for files in (2, 7, 13):
        process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(workspace.rglob("*"))) < files:
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        assert children
        assert not psutil.wait_procs(children, timeout=60)[1]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    assert contents(tmp_path / "out") == contents(uninterrupted)
