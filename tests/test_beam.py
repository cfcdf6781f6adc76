"""Apache Beam's workers prepare what the processes of one machine prepare."""

import json

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import shard_utils

from pipelines.atomic import neighbour
from pipelines.config import PrepareConfig
from pipelines.data import cleaning
from pipelines.data.pieces import PIECE_IMAGES
from pipelines.data.preparation import prepare
from pipelines.errors import BadInput, Failed
from pipelines.stage_log import STAGES
from tests.photographs import photograph, read

pytest.importorskip("apache_beam")
pytestmark = [
    pytest.mark.beam,
    # TFDS asks the older protobuf, which Apache Beam takes, what that deprecates.
    pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning"),
]

SPLITS = ("fold0", "fold1", "minival", "validation")
SHARDS = 3
IMAGES = 2 * PIECE_IMAGES + 60 + 6


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Four pieces of images, some of them bad, copied, leaked, twice labelled or foreign."""
    root = tmp_path_factory.mktemp("source") / "data"
    for index in range(2 * PIECE_IMAGES):
        photograph(root / "train" / f"class{index % 3}" / f"{index:03d}.png", index)
    for index in range(60):
        photograph(root / "val" / f"class{index % 3}" / f"{index:03d}.png", 10_000 + index)
    whole = photograph(root / "train" / "class0" / "turned.tiff", 20_000)
    (root / "train" / "class0" / "torn.tiff").write_bytes(whole[:100])
    (root / "train" / "class1" / "empty.png").write_bytes(b"")
    photograph(root / "train" / "class2" / "copy.png", 5)
    photograph(root / "train" / "class1" / "labelled_again.png", 6)
    photograph(root / "train" / "class1" / "leaked.png", 10_000)
    return root


def configured(source, out, **options):
    return PrepareConfig(str(source), out, minival=0.1, folds=2, **options)


@pytest.fixture
def several_shards(monkeypatch):
    monkeypatch.setattr(shard_utils.ShardConfig, "get_number_shards", lambda *_, **__: SHARDS)


def same(one, other):
    """Whether two data sets hold the same, but for how records are cut into files and bytes."""
    for file in ("cleaning.json", "contact_sheet.html", "preparation.json", "features.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    names = [tfds.builder_from_directory(d).info.features["label"].names for d in (one, other)]
    assert names[0] == names[1] == ["class0", "class1", "class2"]
    for split in SPLITS:
        assert list(read(one, split).items()) == list(read(other, split).items())


def test_a_runner_prepares_what_processes_prepare(source, tmp_path, several_shards):
    by_processes = prepare(configured(source, tmp_path / "processes"))
    by_runner = prepare(configured(source, tmp_path / "beam", runner="DirectRunner"))
    assert by_runner.images == by_processes.images
    assert by_runner.found == {
        "zero_byte": {"drop": 1},
        "not_an_image": {"drop": 1},
        "foreign_format": {"rewrite": 1},
        "leak": {"drop": 1},
        "two_labels": {"drop": 2},
        "exact_duplicate": {"drop": 1},
    }
    same(tmp_path / "processes", tmp_path / "beam")
    splits = tfds.builder_from_directory(tmp_path / "beam").info.splits
    assert {split: splits[split].num_shards for split in SPLITS} == dict.fromkeys(SPLITS, SHARDS)
    assert not neighbour(tmp_path / "beam").exists()


def test_workers_in_processes_of_their_own_do_the_same(source, tmp_path):
    options = {"direct_running_mode": "multi_processing", "direct_num_workers": 2}
    prepare(configured(source, tmp_path / "processes"))
    prepare(configured(source, tmp_path / "beam", runner="DirectRunner", beam_options=options))
    same(tmp_path / "processes", tmp_path / "beam")


def test_what_a_runner_finished_before_it_gave_up_is_not_done_again(source, tmp_path, monkeypatch):
    workspace = neighbour(tmp_path / "beam")
    examined = []

    def examine_or_die(example, config):
        if any(workspace.glob("*.json")):
            raise OSError("no space left")
        return examine(example, config)

    def examine(example, config):
        examined.append(example.key)
        return cleaning.examine(example, config)

    config = configured(source, tmp_path / "beam", runner="DirectRunner")
    monkeypatch.setattr("pipelines.data.pieces.examine", examine_or_die)
    with pytest.raises(Failed, match=r"DirectRunner gave up .*no space left.*goes on from here"):
        prepare(config)
    finished = sum(len(json.loads(file.read_text())) for file in workspace.glob("*.json"))
    assert 0 < finished == len(examined) < IMAGES
    monkeypatch.setattr("pipelines.data.pieces.examine", examine)
    prepare(config)
    assert len(examined) == IMAGES


def test_what_a_runner_that_gave_up_writing_left_is_no_part_of_the_data_set(
    source, tmp_path, monkeypatch
):
    store = tfds.dataset_builders.store_as_tfds_dataset

    def store_and_give_up(*arguments, **options):
        store(*arguments, **options)
        raise OSError("runner lost")

    by_runner, by_processes = tmp_path / "runner", tmp_path / "processes"
    with monkeypatch.context() as patched:
        patched.setattr(tfds.dataset_builders, "store_as_tfds_dataset", store_and_give_up)
        for out in (by_runner, by_processes):
            with pytest.raises(Failed, match="runner lost"):
                prepare(configured(source, out, runner="DirectRunner"))
    prepare(configured(source, by_runner, runner="DirectRunner"))
    prepare(configured(source, by_processes))
    same(by_processes, by_runner)
    prepare(configured(source, tmp_path / "uninterrupted"))
    given, expected = (
        {file.name: file.read_bytes() for file in out.iterdir() if file.name != STAGES}
        for out in (by_processes, tmp_path / "uninterrupted")
    )
    assert given == expected


def test_a_runner_that_there_is_not_is_named_and_nothing_written(source, tmp_path):
    with pytest.raises(BadInput, match=r"runner is 'DirektRunner': .*Valid values are"):
        prepare(configured(source, tmp_path / "beam", runner="DirektRunner"))
    assert not list(tmp_path.iterdir())
