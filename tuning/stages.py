"""From a search's best config to a SavedModel: the stages of the workflow, a process each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines import atomic
from pipelines.command import flat, load
from pipelines.config import TrainConfig
from pipelines.errors import BadInput
from pipelines.training.children import run_stage
from tuning.records import Trial

BEST = "best.yaml"
RECORD = Path("results", "final.json")
# What no trial, and no choice between trials, has seen.
TEST_SPLIT = "validation"


class Stage(NamedTuple):
    """One command of the workflow.

    Args:
        arguments: (the best config's file, its run) -> the command's.
        product: the key of its outcome that names the folder it made.
    """

    arguments: Callable[[Path, Path], list[str]]
    product: str


STAGES = {
    "train": Stage(lambda best, run: ["--config", str(best)], "run"),
    "evaluate": Stage(lambda best, run: [str(run), "--split", TEST_SPLIT], "model"),
    "export": Stage(
        lambda best, run: [str(run), "--out", str(Path("saved_models", run.name))], "saved_model"
    ),
}
Outcomes = dict[str, dict[str, Any]]


def go_on(search: Path, stages: list[str]) -> Outcomes:
    """Runs the stages that have no outcome yet.

    Args:
        search: the folder of a search.
        stages: names of some, in their order; none only looks.

    Returns:
        What each stage printed with `--json`, of all that are done.

    Raises:
        BadInput: the search has no best config yet.
        Failed: a stage did not end well; it has said why.
        Stopped: a stage was asked to stop.
    """
    best = search / BEST
    if not best.is_file():
        if stages:
            raise BadInput(f"no {BEST} in {str(search)!r} yet; the search writes it")
        return {}
    outcomes = _recorded(search)
    for name in stages:
        if name not in outcomes:
            outcomes[name] = _run(name, best)
            record = {"best": best.read_text(), "outcomes": outcomes}
            atomic.write_text(search / RECORD, json.dumps(record, indent=2))
    return outcomes


def source(search: Path, ranking: list[Trial]) -> Trial | None:
    """The trial whose values the best config has; of several, the first."""
    best = search / BEST
    if not best.is_file():
        return None
    has = flat(load(TrainConfig, best))
    return next((trial for trial in ranking if _given(trial.values, has)), None)


def _given(values: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether a config has these values; lists and null are chosen as the text of them."""
    return all(
        config[field] in (value, yaml.safe_load(value) if isinstance(value, str) else value)
        for field, value in values.items()
    )


def _recorded(search: Path) -> Outcomes:
    """What was made of this very config, up to the first that is gone."""
    file = search / RECORD
    record = json.loads(file.read_text()) if file.is_file() else {"best": None}
    if record["best"] != (search / BEST).read_text():
        return {}
    outcomes: Outcomes = {}
    for name, stage in STAGES.items():
        if name not in record["outcomes"]:
            continue
        outcome = record["outcomes"][name]
        if not Path(outcome[stage.product]).is_dir():
            break
        outcomes[name] = outcome
    return outcomes


def _run(name: str, best: Path) -> dict[str, Any]:
    return run_stage(name, STAGES[name].arguments(best, load(TrainConfig, best).run))
