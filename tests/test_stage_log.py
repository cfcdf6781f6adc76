"""When a stage worked on a folder, and how it ended."""

import json
from datetime import UTC, datetime

import pytest

from pipelines.errors import Stopped
from pipelines.stage_log import STAGES, logged, read_stages


def test_a_stage_leaves_what_was_typed_its_times_and_where_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evaluate.py", "run", "--out", "with space"])
    before = datetime.now(UTC)
    with logged(tmp_path / ".", "evaluate", tmp_path / "with space"):
        sum(range(300_000))
    [record] = read_stages(tmp_path)
    assert (record.stage, record.ended) == ("evaluate", "done")
    assert record.command.endswith(" run --out 'with space'")
    assert record.out == tmp_path / "with space"
    assert before <= record.began <= datetime.now(UTC)
    assert record.cpu_s > 0
    assert 0 < record.wall_s <= (datetime.now(UTC) - record.began).total_seconds() + 1e-3


@pytest.mark.parametrize(
    ("error", "ended"),
    [(Stopped, "stopped"), (KeyboardInterrupt, "stopped"), (ValueError, "failed")],
)
def test_how_a_stage_ended_is_told(tmp_path, error, ended):
    with pytest.raises(error), logged(tmp_path, "train"):
        raise error("so it was")
    [record] = read_stages(tmp_path)
    assert record.ended == ended


def test_a_killed_stage_has_begun_and_a_torn_line_hides_no_other(tmp_path):
    with logged(tmp_path, "train"):
        begun = (tmp_path / STAGES).read_text()
        [record] = read_stages(tmp_path)
    assert (record.stage, record.ended, record.wall_s) == ("train", None, None)
    (tmp_path / STAGES).write_text(begun + begun[: len(begun) // 2])
    with logged(tmp_path, "export"):
        pass
    assert [(r.stage, r.ended) for r in read_stages(tmp_path)] == [
        ("train", None),
        ("export", "done"),
    ]


def test_what_was_written_is_found_when_both_folders_have_moved(tmp_path):
    (tmp_path / "here" / "run").mkdir(parents=True)
    with logged(tmp_path / "here" / "run", "export", tmp_path / "here" / "models" / "1"):
        pass
    (tmp_path / "here").rename(tmp_path / "there")
    [record] = read_stages(tmp_path / "there" / "run")
    assert record.out == tmp_path / "there" / "models" / "1"


def test_a_folder_that_is_not_there_gets_no_record(tmp_path):
    for folder in (tmp_path / "gone", None):
        with logged(folder, "prepare"):
            pass
    assert list(tmp_path.iterdir()) == []
    assert read_stages(tmp_path) == []


def test_the_stages_of_a_run_are_in_its_folder(digits, run, saved_models):
    assert [record.stage for record in read_stages(digits)] == ["prepare"]
    # Other tests may have evaluated the run before.
    records = {record.stage: record for record in reversed(read_stages(run))}
    assert records.keys() >= {"train", "export"}
    assert records["train"].ended == records["export"].ended == "done"
    history = (run / "history.csv").read_text().splitlines()
    column = history[0].split(",").index("training_s")
    trained_s = sum(float(row.split(",")[column]) for row in history[1:])
    assert records["train"].wall_s >= trained_s
    card = json.loads((records["export"].out / "model_card.json").read_text())
    assert card["run"] == str(run)
