"""Searches: from a space file to a config that trains."""

import csv
import dataclasses
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from random import Random
from threading import Timer

import psutil
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import (
    SESSION_START_INFO_TAG,
    parse_session_start_info_plugin_data,
)

from pipelines import atomic
from pipelines.command import dump, load, parse
from pipelines.config import PrepareConfig, TrainConfig
from pipelines.errors import BadInput, Failed, Stopped
from pipelines.train import main as train_main
from pipelines.training.interruption import Interruption
from pipelines.training.train import ADVICE
from tuning import spread
from tuning import trials as trials_module
from tuning.config import SearchConfig, WorkerConfig
from tuning.oracles import open_oracle
from tuning.records import Budget, read_records, records_of
from tuning.search import main as search_main
from tuning.space import Space, read_space
from tuning.spread import Chief, served, work
from tuning.study import search, with_environment
from tuning.trials import OutOfMemory, Trials, searched, with_values

# keras-tuner asks for its thread in ways that Python 3.10 deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")

SPACE = {
    "optimizer.base_lr": {"log_float": [0.02, 0.4]},
    "optimizer.name": {"choice": ["sgd", "lamb"]},
    "optimizer.momentum": {"float": [0.5, 0.9], "when": {"optimizer.name": ["sgd"]}},
}
FEW = {"optimizer.name": {"choice": ["sgd", "lamb"]}, "seed": {"choice": [1, 2, 3]}}


def config_of(data, folder, *arguments) -> SearchConfig:
    train = ["--data", data, "--recipe", "simple_cnn.demo", "--train.epochs", "3"]
    given = [*train, "--search", folder, *arguments]
    return parse(SearchConfig, list(map(str, given)))


class Killed(BaseException):
    """What stands for a SIGKILL: nothing catches it."""


@pytest.fixture
def pretended(monkeypatch):
    """Trials whose accuracy is a number made of their values; a list of those that were run."""
    run = []

    def attempt(self, trial_id, config, interruption):
        run.append(trial_id)
        # Before its own epochs a trial has those of the one that it goes on from.
        first_epoch = self.values(trial_id).get("tuner/initial_epoch", 0)
        assert self.epochs(trial_id) in (first_epoch, config.last_epoch)
        folder = self.folder(trial_id) / "run"
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (self.folder(trial_id) / "train.yaml").write_text("accumulation_steps: 1")
        (folder / "checkpoints" / f"after_{config.last_epoch}").touch()
        with atomic.replacing(folder / "history.csv") as partial, partial.open("w") as file:
            writer = csv.writer(file)
            rows = ([epoch + 1, 0.5, 100] for epoch in range(config.last_epoch))
            writer.writerows([["epoch", "val_top1", "val_n"], *rows])
        digest = hashlib.sha256(f"{config.optimizer}{config.seed}{config.last_epoch}".encode())
        if config.optimizer.name == "lamb" and config.seed == 2:
            raise Failed("it is the one that fails")
        return int.from_bytes(digest.digest()[:4]) / 2**32

    def with_values(base, values):
        inner = {f.partition(".")[2]: v for f, v in values.items() if f.startswith("optimizer")}
        optimizer = dataclasses.replace(base.optimizer, **inner)
        return dataclasses.replace(base, optimizer=optimizer, seed=values.get("seed", 0))

    monkeypatch.setattr(Trials, "_attempt", attempt)
    monkeypatch.setattr(trials_module, "with_values", with_values)
    return run


def searched_all(config, space) -> dict:
    """Runs a search from where it stands; gives what became of each trial."""
    trials = Trials(config)
    oracle = open_oracle(config, space, trials, lambda line: None)
    oracle.release(*oracle.under_way())
    work(oracle, "local-0", trials)
    return ended(oracle)


def ended(oracle) -> dict:
    """What became of each trial."""
    return {
        trial_id: (trial.status, trial.score, trial.message, trial.hyperparameters.values)
        for trial_id, trial in oracle.trials.items()
    }


def finish(chooser, trials, trial) -> None:
    """Runs a trial that a worker was given, and says how it ended."""
    with Interruption() as interruption:
        outcome = trials.run(trial.trial_id, interruption)
    status = "FAILED" if outcome.reason else "COMPLETED"
    chooser.end_trial(type(trial)(trial.hyperparameters, trial.trial_id, status))


@pytest.mark.parametrize(
    ("tuner", "lines", "count", "stride"),
    [
        ("random", SPACE, 5, 1),
        # The first three are drawn at random, all others by the process.
        ("bayesian", {"optimizer.base_lr": SPACE["optimizer.base_lr"]}, 4, 4),
        ("hyperband", SPACE, None, 1),
        # Some fail.
        ("hyperband", SPACE | {"seed": FEW["seed"]}, None, 3),
        ("grid", FEW, None, 1),
    ],
)
def test_killed_at_any_moment_a_search_ends_as_if_it_had_not_been(
    pretended, tmp_path, monkeypatch, tuner, lines, count, stride
):
    arguments = ["--tuner", tuner, *(["--max_trials", count] if count else [])]
    whole_config = config_of("d", tmp_path / "whole", *arguments)
    whole = searched_all(whole_config, Space(lines))
    assert len(pretended) == len(whole)
    replacing, writes = atomic.replacing, []

    def replacing_until_killed(path):
        writes.append(path)
        if len(writes) == moment:
            raise Killed
        return replacing(path)

    monkeypatch.setattr(atomic, "replacing", replacing_until_killed)
    for moment in range(1, 1000, stride):
        del writes[:]
        config = dataclasses.replace(whole_config, search=tmp_path / f"killed_{moment}")
        try:
            searched_all(config, Space(lines))
            break
        except Killed:
            assert searched_all(config, Space(lines)) == whole
    # Trials are written as they begin and end, and the oracle as often.
    assert moment > 4 * len(whole)


def test_a_grid_holds_each_combination_once(pretended, tmp_path):
    config = config_of("d", tmp_path / "s", "--tuner", "grid")
    result = searched_all(config, Space(FEW))
    values = {tuple(values.values()) for *_, values in result.values()}
    assert values == {(name, seed) for name in ("sgd", "lamb") for seed in (1, 2, 3)}
    assert len(result) == 6
    assert [reason for _, _, reason, _ in result.values() if reason] == ["it is the one that fails"]


@pytest.mark.parametrize("tuner", ["random", "grid"])
def test_workers_by_turns_are_given_the_trials_that_one_is_given(pretended, tmp_path, tuner):
    space = Space(FEW)
    arguments = ("--tuner", tuner, "--max_trials", "5")
    alone = searched_all(config_of("d", tmp_path / "alone", *arguments), space)
    config = config_of("d", tmp_path / "several", *arguments)
    trials = Trials(config)
    oracle = open_oracle(config, space, trials, lambda line: None)
    under_way = {worker: oracle.create_trial(worker) for worker in ("a", "b", "c")}
    for worker, trial in under_way.items():
        assert oracle.create_trial(worker) is trial
    for worker in ("c", "a"):
        # Said twice, as after an answer that got lost, it is the same.
        finish(oracle, trials, under_way[worker])
        finish(oracle, trials, under_way[worker])
    # The chief is killed, and so is b: others take over what it had begun.
    searched_all(config, space)
    assert {i: v for i, (*_, v) in alone.items()} == {
        i: json.loads((trials.folder(i) / "trial.json").read_text())["hyperparameters"]["values"]
        for i in alone
    }
    assert sorted(pretended) == sorted([*alone, *alone])


def whatever_their_order(result) -> Counter:
    """Trials by all but their numbers: what was tried, from what, how long, and what came of it."""

    def told(trial_id):
        status, top1, reason, values = result[trial_id]
        past = values.get("tuner/trial_id")
        own = {key: value for key, value in values.items() if key != "tuner/trial_id"}
        return status, top1, reason, tuple(sorted(own.items())), past and told(past)

    return Counter(map(told, result))


@pytest.mark.parametrize("seed", range(2))
def test_several_workers_of_hyperband_try_what_one_process_tries(pretended, tmp_path, seed):
    """Trials that end in another order have other numbers; nothing else differs."""
    one = config_of("d", tmp_path / "one")
    one = dataclasses.replace(one, train=dataclasses.replace(one.train, epochs=9))
    alone = searched_all(one, Space(SPACE))
    three = dataclasses.replace(one, search=tmp_path / "three")
    trials, random = Trials(three), Random(seed)
    oracle = open_oracle(three, Space(SPACE), trials, lambda line: None)
    workers, under_way = {"a", "b", "c"}, {}
    while workers:
        worker = random.choice(sorted(workers))
        if worker in under_way:
            finish(oracle, trials, under_way.pop(worker))
        elif (trial := oracle.create_trial(worker)).status == "RUNNING":
            under_way[worker] = trial
        elif trial.status == "STOPPED":
            workers.remove(worker)
    assert ended(oracle) != alone
    assert whatever_their_order(ended(oracle)) == whatever_their_order(alone)
    assert records_of(three).budget == records_of(one).budget


def test_a_chief_started_again_gives_each_worker_its_own_trial(pretended, tmp_path):
    config = config_of("d", tmp_path / "s", "--tuner", "random")
    oracle = open_oracle(config, Space(FEW), Trials(config), lambda line: None)
    begun = {worker: oracle.create_trial(worker).trial_id for worker in ("a", "b")}
    again = open_oracle(config, Space(FEW), Trials(config), lambda line: None)
    assert {worker: again.create_trial(worker).trial_id for worker in ("b", "a")} == begun


@pytest.mark.parametrize("tuner", ["random", "grid"])
def test_workers_and_a_chief_that_are_killed_end_with_the_trials_of_one_process(
    pretended, tmp_path, monkeypatch, tuner
):
    arguments = ("--tuner", tuner, "--max_trials", "5")
    space = Space({**SPACE, **FEW} if tuner == "random" else FEW)
    alone = searched_all(config_of("d", tmp_path / "alone", *arguments), space)
    config = config_of("d", tmp_path / "spread", *arguments)
    trials = Trials(config)
    attempt = Trials._attempt

    def killed(self, trial_id, config, interruption):
        if trial_id == "2":
            raise Killed
        return attempt(self, trial_id, config, interruption)

    with served(open_oracle(config, space, trials, lambda line: None), "127.0.0.1:0") as (_, at):
        monkeypatch.setattr(Trials, "_attempt", killed)
        with pytest.raises(Killed):
            work(Chief(at), "a", trials)
        monkeypatch.setattr(Trials, "_attempt", attempt)
        assert Chief(at).create_trial("b").trial_id == "3"
    # The chief is started again.
    oracle = open_oracle(config, space, trials, lambda line: None)
    with served(oracle, at) as (service, _):
        chief = Chief(at)
        of_b = chief.create_trial("b")
        for expected in ("2", "4"):
            of_a = chief.create_trial("a")
            assert of_a.trial_id == expected
            finish(chief, trials, of_a)
        # b may die yet.
        assert chief.create_trial("a").status == "IDLE"
        assert not service.stop_triggered
        finish(chief, trials, of_b)
        assert work(chief, "a", trials) == 0
        assert service.stop_triggered
        assert not oracle.idle()
        assert work(chief, "b", trials) == 0
        assert oracle.idle()
    assert ended(oracle) == alone
    assert sorted(pretended) == sorted([*alone, *alone])


def test_more_failures_in_a_row_than_allowed_end_a_search(pretended, tmp_path):
    lines = {"optimizer.name": {"choice": ["lamb"]}, "seed": {"choice": [1, 2, 3]}}
    for allowed, ran in ((1, 3), (0, 2)):
        limit = ("--tuner", "grid", "--max_failures_in_a_row", allowed)
        result = searched_all(config_of("d", tmp_path / f"{allowed}", *limit), Space(lines))
        assert [status for status, *_ in result.values()] == ["COMPLETED", "FAILED", "COMPLETED"][
            :ran
        ]


def test_too_many_failures_do_not_end_what_others_have_under_way(pretended, tmp_path):
    lines = {"optimizer.name": {"choice": ["lamb"]}, "seed": {"choice": [2, 1, 3]}}
    config = config_of("d", tmp_path / "s", "--tuner", "grid", "--max_failures_in_a_row", "0")
    trials = Trials(config)
    oracle = open_oracle(config, Space(lines), trials, lambda line: None)
    begun = {worker: oracle.create_trial(worker) for worker in ("a", "b")}
    finish(oracle, trials, begun["a"])
    assert oracle.create_trial("a").status == "IDLE"
    assert oracle.create_trial("b") is begun["b"]
    finish(oracle, trials, begun["b"])
    assert oracle.create_trial("a").status == "RUNNING"


def test_hyperband_goes_on_from_checkpoints_and_keeps_no_others(pretended, tmp_path):
    config = config_of("d", tmp_path / "s", "--keep_best", "2")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=9))
    result = searched_all(config, Space(SPACE))
    trials = Trials(config)
    promoted = [i for i, (*_, values) in result.items() if "tuner/trial_id" in values]
    assert promoted
    for trial_id in promoted:
        past = result[trial_id][-1]["tuner/trial_id"]
        assert searched(result[past][-1]) == searched(result[trial_id][-1])
    oracle = open_oracle(config, Space(SPACE), trials, lambda line: None)
    oracle.finish()
    kept = {i for i in result if (trials.folder(i) / "run" / "checkpoints").exists()}
    # One of few epochs may score more, and is not what all of them lead to.
    full = {i: top1 for i, (_, top1, _, values) in result.items() if values["tuner/epochs"] == 9}
    assert kept == set(sorted(full, key=full.get)[-2:])


def test_each_trial_is_told_of_as_it_begins_and_as_it_ends(pretended, tmp_path):
    config, lines = config_of("d", tmp_path / "s"), []
    trials = Trials(config)
    work(open_oracle(config, Space(SPACE), trials, lines.append), "local-0", trials)
    assert re.match(r"trial 0000 begins, to epoch 1: optimizer\.base_lr 0\.\d+, opt", lines[0])
    assert re.fullmatch(r"trial 0000: top-1 0\.\d{4} after 1 epochs", lines[1])
    (promoted,) = [line for line in lines if "goes on from" in line]
    assert re.match(r"trial 000\d goes on from 000\d, to epoch 3: optimizer\.base_lr", promoted)
    assert len(lines) == 2 * len(pretended)


@pytest.mark.parametrize(("limit", "at_random"), [(4, 3), (10, 3), (15, 5), (60, 15)])
def test_a_gaussian_process_chooses_most_of_a_short_search(tmp_path, limit, at_random):
    config = config_of("d", tmp_path / "s", "--tuner", "bayesian", "--max_trials", limit)
    space = read_space("default")
    assert len(space.space) == 5
    oracle = open_oracle(config, space, Trials(config), lambda line: None)
    assert oracle.num_initial_points == at_random


@pytest.mark.parametrize("fails", ["lamb", "later"])
def test_others_take_the_places_of_failed_trials_in_hyperband(
    pretended, tmp_path, monkeypatch, fails
):
    attempt, failed = Trials._attempt, []

    def failing(self, trial_id, config, interruption):
        top1 = attempt(self, trial_id, config, interruption)
        promoted = "tuner/trial_id" in self.values(trial_id)
        # The first two of each round but the first, or all of some kind.
        if (
            sum(epochs == config.last_epoch for epochs in failed) < 2 and promoted
            if fails == "later"
            else config.optimizer.name == fails
        ):
            failed.append(config.last_epoch)
            raise Failed("it is one that fails")
        return top1

    monkeypatch.setattr(Trials, "_attempt", failing)
    config = config_of("d", tmp_path / "s", "--max_failures_in_a_row", "100")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=9))
    result = searched_all(config, Space(SPACE))
    assert len(failed) >= 4
    completed = [
        (v["tuner/bracket"], v["tuner/round"]) for s, *_, v in result.values() if s == "COMPLETED"
    ]
    # Li et al., arXiv:1603.06560, Algorithm 1, with eta = 3 and as keras-tuner rounds.
    sizes = {(2, 0): 9, (2, 1): 3, (2, 2): 1, (1, 0): 5, (1, 1): 2, (0, 0): 3}
    assert Counter(completed) == sizes
    pasts = [v["tuner/trial_id"] for *_, v in result.values() if "tuner/trial_id" in v]
    assert len(set(pasts)) == len(pasts)


FAKE = """
import json, os, sys, time
config = open(sys.argv[2]).read()
run = os.path.join(os.path.dirname(sys.argv[2]), "run")
os.makedirs(run, exist_ok=True)
{behaviour}
json.dump({{"top1": 0.5}}, open(os.path.join(run, "metrics.json"), "w"))
"""


@pytest.mark.parametrize(
    ("behaviour", "reason", "steps"),
    [
        ("pass", None, 1),
        ("sys.exit('failed: the loss is not finite')", "exit status 1: the loss is not finite", 1),
        ("x = 1 / 0", "exit status 1: ZeroDivisionError: division by zero", 1),
        ("os.kill(os.getpid(), 11)", "signal SIGSEGV", 1),
        ("sys.exit(0)", "exit status 0", 1),
        ("time.sleep(60)", "hung: nothing logged for 1 s", 1),
        ("os.kill(os.getpid(), 9)", "out of memory; then with accumulation_steps 2: out of mem", 2),
        ("if 'accumulation_steps: 1' in config: os.kill(os.getpid(), 9)", None, 2),
        ("if 'accumulation_steps: 1' in config: raise MemoryError", None, 2),
        ("held = b'1' * 2**28; time.sleep(60)", "held, trial_memory_gib is 0.2", 2),
    ],
)
def test_a_trial_ends_with_its_reason(tmp_path, monkeypatch, behaviour, reason, steps):
    (tmp_path / "fake.py").write_text(FAKE.format(behaviour=behaviour))
    monkeypatch.setattr(trials_module, "TRAIN", [sys.executable, tmp_path / "fake.py"])
    limits = ["--trial_memory_gib", "0.2", "--trial_timeout_s", "1"]
    trials = Trials(config_of("d", tmp_path / "s", *limits))
    state = {"hyperparameters": {"values": {"optimizer.base_lr": 0.1}}}
    atomic.write_text(trials.folder("0") / "trial.json", json.dumps(state))
    with Interruption() as interruption:
        outcome = trials.run("0", interruption)
    assert outcome.reason is None if reason is None else reason in outcome.reason
    assert (outcome.top1, outcome.accumulation_steps) == (None if reason else 0.5, steps)
    assert trials.outcome("0") == outcome


@pytest.mark.parametrize(
    ("line", "is_memory"),
    [
        ("Failed to allocate memory for the batch of component 0 [Op:IteratorGetNext]", True),
        (f"failed: it is large; {ADVICE[tf.errors.ResourceExhaustedError]}", True),
        ("CUDA_ERROR_OUT_OF_MEMORY: Out of memory", True),
        ("numpy: Unable to allocate 3.00 TiB for an array", True),
        # tsl/framework/bfc_allocator.cc
        (
            "W bfc_allocator.cc:306] Allocator (GPU_0_bfc) ran out of memory trying to allocate "
            "2.1GiB with freed_by_count=0. The caller indicates that this is not a failure, but "
            "this may mean that there could be performance gains if more memory were available.",
            False,
        ),
    ],
)
def test_what_is_said_of_memory_is_told_from_a_warning(line, is_memory):
    failure = trials_module._failure(1, f"{line}\nfailed: the loss is not finite\n")
    assert isinstance(failure, OutOfMemory) == is_memory


@pytest.fixture(scope="module")
def with_minival(tmp_path_factory):
    """The embedded digits, with a part to tune on."""
    from pipelines.data.preparation import prepare

    out = tmp_path_factory.mktemp("tuning") / "digits"
    prepare(PrepareConfig("digits", out, holdout_fraction=0.2, minival=0.2))
    return out


def test_a_search_sums_up_what_became_of_its_trials(pretended, with_minival, tmp_path):
    (tmp_path / "space.yaml").write_text(
        "optimizer.name: {choice: [lamb]}\nseed: {choice: [1, 2, 3]}"
    )
    given = ("--space", tmp_path / "space.yaml", "--tuner", "grid")
    found = search(config_of(with_minival, tmp_path / "s", *given))
    assert (found.completed, found.failed) == (2, 1)
    assert found.reasons == {"0001": "it is the one that fails"}
    assert found.budget == Budget(trained=9, without_continuation=9)
    assert load(TrainConfig, tmp_path / "s" / "best.yaml").seed == found.best_values["seed"]
    none_allowed = ("--max_failures_in_a_row", 0)
    with pytest.raises(Failed, match=r"1 trials in a row failed \(it is the one that fails\)"):
        search(config_of(with_minival, tmp_path / "t", *given, *none_allowed))
    # Allowed more, the same search goes on.
    assert search(config_of(with_minival, tmp_path / "t", *given)).completed == 2
    (tmp_path / "space.yaml").write_text("optimizer.name: {choice: [lamb]}\nseed: {choice: [2]}")
    with pytest.raises(Failed, match=r"all 1 trials failed \(it is the one that fails\)"):
        search(config_of(with_minival, tmp_path / "u", *given))


def test_a_better_trial_gets_a_run_of_its_own_with_all_epochs(pretended, tmp_path):
    config = config_of("d", tmp_path / "s", "--train.stop_after_epochs", "1", "--max_trials", "2")
    result = searched_all(dataclasses.replace(config, tuner="random"), Space(SPACE))
    trials = Trials(config)
    best = [trials.best_config(trial_id) for trial_id in result]
    assert len({config.run for config in best}) == 2
    assert [(config.epochs, config.stop_after_epochs) for config in best] == [(3, None)] * 2
    assert [trials.epochs(trial_id) for trial_id in result] == [3, 3]


def test_a_search_says_that_no_trial_got_all_epochs(pretended, with_minival, tmp_path):
    (tmp_path / "space.yaml").write_text("optimizer.name: {choice: [sgd, lamb]}")
    given = ("--space", tmp_path / "space.yaml", "--tuner")
    # Three trials of an epoch would come before one of three.
    found = search(config_of(with_minival, tmp_path / "s", *given, "hyperband"))
    assert (found.best_epochs, found.completed) == (1, 2)
    assert "no trial got all 3 epochs, the best 1: max_trials" in str(found)
    found = search(config_of(with_minival, tmp_path / "t", *given, "grid"))
    assert found.best_epochs == 3
    assert "no trial got" not in str(found)


def test_one_that_is_asked_to_stop_goes_on_another_time(tmp_path, monkeypatch):
    # It asks the search to stop, and ends as a run does that was told to.
    behaviour = "if not os.path.exists(run + '/../asked'): open(run + '/../asked', 'w').close(); "
    behaviour += "os.kill(os.getppid(), 15); time.sleep(60)"
    (tmp_path / "fake.py").write_text(FAKE.format(behaviour=behaviour))
    monkeypatch.setattr(trials_module, "TRAIN", [sys.executable, tmp_path / "fake.py"])
    config = config_of("d", tmp_path / "s", "--tuner", "random", "--max_trials", "1")
    space, trials = Space({"optimizer.base_lr": {"float": [0.1, 0.2]}}), Trials(config)
    with pytest.raises(Stopped, match="type the same command again"):
        searched_all(config, space)
    assert trials.outcome("0") is None
    assert searched_all(config, space)["0"][:2] == ("COMPLETED", 0.5)


@pytest.mark.parametrize(
    ("variables", "role", "chief"),
    [
        ({}, "alone", None),
        ({"ORACLE_IP": "h", "ORACLE_PORT": "1", "TUNER_ID": "chief"}, "chief", "h:1"),
        ({"ORACLE_IP": "h", "ORACLE_PORT": "1", "TUNER_ID": "w3"}, "worker", "h:1"),
    ],
)
def test_keras_tuners_variables_give_a_process_its_role(variables, role, chief):
    given = {f"KERASTUNER_{key}": value for key, value in variables.items()}
    config = with_environment(config_of("d", "s"), given)
    assert (config.role, config.chief) == (role, chief)


@pytest.mark.parametrize(
    ("changed", "arguments", "told"),
    [
        ({"ORACLE_PORT": "first"}, (), "chief is 'h:first'; HOST:PORT"),
        ({}, ("--local_workers", "2"), "local_workers go with the role 'alone'"),
    ],
)
def test_variables_that_do_not_go_with_the_rest_are_refused(changed, arguments, told):
    variables = {"ORACLE_IP": "h", "ORACLE_PORT": "1", "TUNER_ID": "w3"} | changed
    given = {f"KERASTUNER_{key}": value for key, value in variables.items()}
    with pytest.raises(BadInput, match=f"KERASTUNER_ORACLE_IP is set, and {told}"):
        with_environment(config_of("d", "s", *arguments), given)


@pytest.mark.parametrize("name", ["a/b", "..", "/a"])
def test_a_worker_whose_name_is_no_files_is_refused(tmp_path, name):
    config = config_of("d", tmp_path, "--role", "chief", "--chief", "h:1")
    (tmp_path / "search.yaml").write_text(dump(config))
    with pytest.raises(BadInput, match="a name that a file can have"):
        spread.join(WorkerConfig(tmp_path, worker=name))


def test_a_worker_waits_for_its_search_as_long_as_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(spread, "WAITS_FOR_CHIEF_S", 0.0)
    with pytest.raises(BadInput, match=r"--search .*/later --role chief --chief HOST:PORT begins"):
        spread.join(WorkerConfig(tmp_path / "later"))
    assert "later' yet; waiting 0 minutes for a chief to begin it" in capsys.readouterr().err
    monkeypatch.setattr(spread, "WAITS_FOR_CHIEF_S", 60.0)
    told = dump(config_of("d", tmp_path / "later"))
    begin = Timer(0.2, atomic.write_text, [tmp_path / "later" / "search.yaml", told])
    begin.start()
    with pytest.raises(BadInput, match=r"has no chief; --chief HOST:PORT"):
        spread.join(WorkerConfig(tmp_path / "later"))
    begin.join()


@pytest.fixture
def closed():
    """An address at which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return f"127.0.0.1:{held.getsockname()[1]}"


def test_a_worker_gives_up_a_chief_that_stays_away(closed, monkeypatch, capsys):
    monkeypatch.setattr(spread, "WAITS_FOR_CHIEF_S", 0.0)
    with pytest.raises(Failed, match=rf"chief at {closed} has not answered for 0 minutes; start"):
        Chief(closed).create_trial("a")
    told = f"the chief at {closed} does not answer; waiting 0 minutes for it to be started again\n"
    assert told in capsys.readouterr().err


def test_a_worker_whose_chief_is_gone_can_be_stopped(closed):
    asked = Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM])
    asked.start()
    with pytest.raises(Stopped, match="type the same command again"), Interruption():
        Chief(closed).create_trial("a")
    asked.join()


def test_a_trial_whose_worker_ended_on_this_machine_is_the_next_ones(
    pretended, tmp_path, monkeypatch, capsys
):
    config = config_of("d", tmp_path / "s", "--tuner", "random")
    trials, told = Trials(config), set()
    oracle = open_oracle(config, Space(FEW), trials, lambda line: None)
    given, processes = {}, {}
    for name in ("alive", "killed", "killed_elsewhere"):
        given[name] = oracle.create_trial(name).trial_id
        processes[name] = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=-1)
        recorded = spread._process(processes[name].pid)
        own = {"host": "another"} if name == "killed_elsewhere" else {}
        file = config.folder / "workers" / name / "process.json"
        atomic.write_text(file, json.dumps(recorded | own))
    given["never_heard_of"] = oracle.create_trial("never_heard_of").trial_id
    spread._look_after(oracle, trials, config.folder, told)
    assert oracle.under_way() == given
    for name in ("killed", "killed_elsewhere"):
        processes[name].kill()
        # Its parent has not asked yet how it ended.
        os.waitid(os.P_PID, processes[name].pid, os.WEXITED | os.WNOWAIT)
    spread._look_after(oracle, trials, config.folder, told)
    freed = given.pop("killed")
    assert oracle.under_way() == given
    assert capsys.readouterr().err == f"killed has ended; who asks next gets its trial {freed}\n"
    assert oracle.create_trial("next").trial_id == freed
    monkeypatch.setattr(spread, "SILENT_S", 0.0)
    for _ in range(2):
        spread._look_after(oracle, trials, config.folder, told)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == [f"{worker}," for worker in oracle.under_way()]
    assert "if it is gone, python -m tuning.worker" in lines[0]
    assert "--worker alive takes the trial up again" in lines[0]
    for process in processes.values():
        process.kill()
        process.communicate()


def test_a_worker_that_ends_by_itself_ends_the_others(tmp_path, monkeypatch):
    codes = {"local-0": "sys.exit(3)", "local-1": "time.sleep(600)"}
    monkeypatch.setattr(
        spread,
        "bound",
        lambda line: [
            sys.executable,
            "-S",
            "-c",
            f"import sys, time; {codes[line[line.index('--worker') + 1]]}",
        ],
    )
    config = config_of("d", tmp_path / "s", "--local_workers", "2")
    oracle = open_oracle(config, Space(SPACE), Trials(config), lambda line: None)
    with pytest.raises(Failed, match="exit status 3"):
        spread.run_local_workers(oracle, config)


@pytest.mark.parametrize(
    ("visible", "found", "shares"),
    [
        (None, 0, {"local-0": None, "local-1": None}),
        (None, 4, {"local-0": "0,2", "local-1": "1,3"}),
        ("6,7", 2, {"local-0": "6", "local-1": "7"}),
    ],
)
def test_each_local_worker_has_gpus_of_its_own(monkeypatch, visible, found, shares):
    monkeypatch.setattr(spread.tf.config, "list_physical_devices", lambda kind: [None] * found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert spread.gpu_shares(2) == shares


def test_more_local_workers_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(spread.tf.config, "list_physical_devices", lambda kind: [None])
    with pytest.raises(BadInput, match=r"local_workers is 2, and there are 1 GPU"):
        spread.gpu_shares(2)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("optimizer.base_lr: {log: [1, 2]}", "unknown kind 'log'"),
        ("optimizer.base_lr: {float: [2, 1]}", "two rising numbers"),
        ("optimizer.base_lr: {log_float: [0, 1]}", "starts above 0"),
        ("optimizer.base_lr: 3", "not one of"),
        ("optimizer.base_lr: {float: [0, 1], int: [0, 1]}", "not one of"),
        ("seed: {choice: []}", "takes a list"),
        ("seed: {int: [1.5, 3]}", "int takes two rising numbers"),
        ("seed: {choice: [1, two]}", "seed: choice takes"),
        ("seed: {choice: [null]}", "seed: choice takes"),
        ("sync_batch_norm: {choice: [true]}", "[false, true]"),
        ("seed: {int: [1, 3], when: {network: [vgg16]}}", "no choice in a line above"),
        ("seed: {choice: [1]}\nepochs: {int: [1, 3], when: {seed: [2]}}", "seed is of"),
        ("[1, 2]", "not a mapping"),
        ("a: [", "cannot read the space"),
    ],
)
def test_a_bad_space_is_refused(tmp_path, line, told):
    (tmp_path / "space.yaml").write_text(line)
    with pytest.raises(BadInput, match=re.escape(told)):
        read_space(str(tmp_path / "space.yaml"))


def test_powers_of_ten_are_numbers(tmp_path):
    (tmp_path / "space.yaml").write_text(
        "optimizer.base_lr: {log_float: [1e-3, 1]}\noptimizer.weight_decay: {choice: [1e-3, 1e-2]}"
    )
    hp = read_space(str(tmp_path / "space.yaml")).declared()
    lr, decay = hp.space
    assert (lr.min_value, lr.max_value) == (0.001, 1.0)
    assert decay.values == [0.001, 0.01]


def test_a_space_that_does_not_ship_is_refused_with_those_that_do():
    with pytest.raises(BadInput, match=r"no space 'defaults'; did you mean 'default'\?"):
        read_space("defaults")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("optimizer.base_rl: {float: [0.1, 1.0]}", r"did you mean 'optimizer\.base_lr'"),
        ("optimizer.momentum: {float: [0.5, 1.0]}", r"momentum is 1\.0; it lies in \[0, 1\)"),
        ("input.size_px: {int: [8, 32]}", "simple_cnn needs at least"),
        ("global_batch_size: {float: [8, 32]}", "global_batch_size cannot be searched"),
        ("network: {choice: [simple_cnn, resnet5]}", "unknown network 'resnet5'"),
        ("epochs: {int: [1, 3]}", "epochs is not to be searched"),
    ],
)
def test_what_the_training_config_does_not_take_is_refused_before_any_trial(tmp_path, line, told):
    (tmp_path / "space.yaml").write_text(line)
    config = config_of(tmp_path / "none", tmp_path / "s", "--space", tmp_path / "space.yaml")
    with pytest.raises(BadInput, match=told):
        search(config)
    assert not (tmp_path / "s").exists()


def test_data_without_minival_is_refused_before_any_trial(digits, tmp_path):
    space = ("--space", "default")
    with pytest.raises(BadInput, match=r"has no split 'minival'.*--minival 0\.1"):
        search(config_of(digits, tmp_path / "s", *space))
    with pytest.raises(BadInput, match="no prepared data set"):
        search(config_of(tmp_path / "none", tmp_path / "s", *space))
    assert not (tmp_path / "s").exists()


def test_the_validation_split_is_not_to_be_trained_on(with_minival, tmp_path):
    split = ("--train.train_split", "train+validation")
    with pytest.raises(BadInput, match="trials train on train"):
        search(config_of(with_minival, tmp_path / "s", "--space", "default", *split))


def test_a_search_goes_on_only_as_it_was_begun(with_minival, tmp_path):
    config = config_of(with_minival, tmp_path / "s", "--space", "default")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "search.yaml").write_text(dump(config))
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=20))
    with pytest.raises(BadInput, match=r"train\.epochs differ; train\.epochs: 3 there, 20 here"):
        search(longer)
    (tmp_path / "s" / "space.yaml").write_text(dump(Space(FEW)))
    with pytest.raises(BadInput, match=r"space\.optimizer\.name\.choice, space\."):
        search(config)


def test_a_search_asks_for_the_data_that_it_lacks():
    with pytest.raises(BadInput, match="the following arguments are required: --data"):
        parse(SearchConfig, ["--recipe", "simple_cnn.demo"])


def test_a_search_reads_back_equal(tmp_path):
    config = config_of("d", tmp_path / "s", "--space", "default")
    assert (config.train.network, str(config.train.data)) == ("simple_cnn", "d")
    (tmp_path / "search.yaml").write_text(dump(config))
    assert load(SearchConfig, tmp_path / "search.yaml") == config


def test_values_replace_fields_and_leave_the_rest():
    base = config_of("d", "s").train
    changed = with_values(base, {"optimizer.base_lr": 1e-5, "augment.horizontal_flip": True})
    assert (changed.optimizer.base_lr, changed.augment.horizontal_flip) == (1e-5, True)
    assert (
        with_values(changed, {"optimizer.base_lr": 0.4, "augment.horizontal_flip": False}) == base
    )


def test_a_search_ends_in_a_config_that_trains(
    command, with_minival, tmp_path, monkeypatch, capsys
):
    # The second is more than floats can hold.
    (tmp_path / "space.yaml").write_text("optimizer.base_lr: {choice: [0.2, 1.0e+20]}")
    train = ["--recipe", "simple_cnn.demo", "--train.epochs", "2"]
    arguments = [with_minival, *train, "--space", "space.yaml", "--tuner", "grid", "--json"]
    done = command("tuning.search", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["completed"], found["failed"]) == (1, 1)
    assert "not finite" in found["reasons"]["0001"]
    assert found["budget"] == {"trained": 2, "without_continuation": 2}
    monkeypatch.chdir(tmp_path)
    assert search_main(list(map(str, arguments))) == 0
    assert json.loads(capsys.readouterr().out) == found
    folder = tmp_path / "searches" / "simple_cnn-space-grid"
    for trial in folder.glob("trial_*/train.yaml"):
        config = load(TrainConfig, trial)
        assert (config.train_split, config.validation_split) == ("train", "minival")
    best = load(TrainConfig, tmp_path / found["best_config"])
    assert (best.validation_split, best.epochs, best.stop_after_epochs) == ("minival", 2, None)
    # Trained anew, it is the trial's accuracy to the last image: all seeds are the same.
    assert train_main(["--config", found["best_config"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == found["best_top1"]


def started(folder, module, *arguments) -> subprocess.Popen:
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)], cwd=folder, stdout=log, stderr=log
        )


def kill(process) -> None:
    """Kills one process; all that it started is gone then as well."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(family, timeout=30)[1]


def became(folder) -> dict:
    """What became of each trial of a search."""
    states = [json.loads(file.read_text()) for file in folder.glob("trial_*/trial.json")]
    return {
        state["trial_id"]: (state["status"], state["score"], state["hyperparameters"]["values"])
        for state in states
    }


@pytest.fixture(scope="module")
def small_search(with_minival, tmp_path_factory):
    """Arguments of a search of few trials, in a folder that is given."""
    file = tmp_path_factory.mktemp("small") / "space.yaml"
    file.write_text(
        "optimizer.base_lr: {log_float: [0.02, 0.4]}\nlabel_smoothing: {float: [0.0, 0.2]}\n"
    )

    def arguments(tuner, folder, *others):
        train = ["--recipe", "simple_cnn.demo", "--train.epochs", "3"]
        space = ["--space", file, "--tuner", tuner, "--search", folder]
        return [with_minival, *train, *space, *others]

    return arguments


@pytest.fixture(scope="module")
def small_hyperband(command, small_search, tmp_path_factory):
    """The folder of a Hyperband search in one process, and what it printed."""
    folder = tmp_path_factory.mktemp("hyperband") / "whole"
    done = command("tuning.search", *small_search("hyperband", folder))
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


KILLED_AFTER = (
    "search.yaml",
    "trial_0000/run/config.yaml",
    "trial_0000/outcome.json",
    "trial_0002/run/checkpoints/*",
    "trial_0003/train.log",
)


@pytest.mark.slow
def test_a_search_killed_five_times_ends_as_one_that_was_not(
    command, small_search, small_hyperband, tmp_path
):
    whole, printed = small_hyperband
    # Three trials of an epoch, the best of which gets two more; two of three.
    assert "trained in total: 11; without one trial going on from another: 12" in printed
    random, killed = Random(0), tmp_path / "killed"
    # Each waits for another part of the way, so that the search is never done before it.
    for seen in KILLED_AFTER:
        process = started(tmp_path, "tuning.search", *small_search("hyperband", killed))
        while not list(killed.glob(seen)):
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(random.uniform(0, 3))
        assert process.poll() is None
        kill(process)
    again = command("tuning.search", *small_search("hyperband", killed))
    assert again.returncode == 0, again.stderr
    assert again.stdout == printed.replace(str(whole), str(killed))
    assert became(killed) == became(whole)


@pytest.mark.slow
def test_two_workers_one_of_which_is_killed_end_as_one_process(command, small_search, tmp_path):
    several = ("--max_trials", "4")
    alone = command("tuning.search", *small_search("random", "alone", *several), cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    local = [*small_search("random", "local", *several), "--local_workers", "2"]
    process = started(tmp_path, "tuning.search", *local)
    while not list(tmp_path.glob("local/trial_*/run/history.csv")):
        assert process.poll() is None
        time.sleep(0.1)
    kill(psutil.Process(process.pid).children()[0])
    assert process.wait() == 0
    assert "is started again" in (tmp_path / "log").read_text()
    assert became(tmp_path / "local") == became(tmp_path / "alone")


@pytest.mark.slow
def test_two_workers_of_hyperband_try_what_one_process_tries(
    command, small_search, small_hyperband, tmp_path
):
    local = small_search("hyperband", tmp_path / "local", "--local_workers", "2")
    done = command("tuning.search", *local)
    assert done.returncode == 0, done.stderr
    records = [read_records(folder) for folder in (small_hyperband[0], tmp_path / "local")]
    alone, local = (
        Counter((str(t.values), t.status, t.top1, t.epochs, t.own_epochs) for t in of.trials)
        for of in records
    )
    assert local == alone
    assert records[0].budget == records[1].budget == Budget(11, 12)


@pytest.mark.slow
def test_tensorboard_tells_a_promoted_trial_from_the_one_that_it_went_on_from(small_hyperband):
    folder, _ = small_hyperband
    for trial in read_records(folder).trials:
        board = folder / f"trial_{trial.name}" / "run" / "tensorboard"
        content = EventAccumulator(str(board)).Reload().SummaryMetadata(SESSION_START_INFO_TAG)
        told = parse_session_start_info_plugin_data(content.plugin_data.content).hparams
        assert told["run"].string_value == str(board.parent)
        assert told["stop_after_epochs"].number_value == trial.last_epoch
        curve = EventAccumulator(str(board / "validation")).Reload().Tensors("epoch_top1")
        assert len(curve) == trial.own_epochs


@pytest.mark.slow
def test_a_chief_and_workers_started_by_hand_end_as_one_process(command, small_search, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as held:
        at = f"127.0.0.1:{held.getsockname()[1]}"
    several = ("--max_trials", "3")
    alone = command("tuning.search", *small_search("random", "alone", *several), cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    spread = [*small_search("random", "spread", *several), "--role", "chief", "--chief", at]
    chief = started(tmp_path, "tuning.search", *spread)
    while not (tmp_path / "spread" / "oracle.json").exists():
        assert chief.poll() is None
        time.sleep(0.1)
    names = ("a", "b")
    workers = [started(tmp_path, "tuning.worker", "spread", "--worker", name) for name in names]
    while not list(tmp_path.glob("spread/trial_*/run/checkpoints/*")):
        time.sleep(0.1)
    kill(workers[0])
    kill(chief)
    chief = started(tmp_path, "tuning.search", *spread)
    workers[0] = started(tmp_path, "tuning.worker", "spread", "--worker", "a")
    assert [process.wait() for process in (*workers, chief)] == [0, 0, 0]
    assert became(tmp_path / "spread") == became(tmp_path / "alone")


@pytest.fixture
def mute():
    """The address of someone who takes calls and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.slow
def test_trials_that_cannot_be_are_told_apart_and_the_others_complete(
    command, with_minival, mute, tmp_path
):
    lines = {
        "network": {"choice": ["simple_cnn", "vgg16"]},
        "optimizer.base_lr": {"choice": [0.2, 0.1, 1e20]},
        "data_service": {"choice": [f"grpc://{mute}"], "when": {"optimizer.base_lr": [0.1]}},
        "input.size_px": {"choice": [32, 24], "when": {"optimizer.base_lr": [0.2]}},
    }
    (tmp_path / "space.yaml").write_text(dump(Space(lines)).removeprefix("space:\n"))
    done = command(
        *("tuning.search", with_minival, "--recipe", "simple_cnn.demo", "--train.epochs", "2"),
        *("--space", "space.yaml", "--tuner", "grid", "--max_trials", "6", "--search", "s"),
        *("--trial_timeout_s", "60", "--trial_memory_gib", "1.4", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["completed"] == 2
    reasons = found["reasons"]
    assert reasons.keys() == {"2", "3", "4", "5"}
    assert reasons["2"].startswith("hung: nothing logged for 60 s")
    assert "not finite" in reasons["3"]
    assert reasons["4"].startswith("out of memory; then with accumulation_steps 2: out of memory")
    assert "24; vgg16 needs at least 32" in reasons["5"]
    assert all(reason in done.stderr for reason in reasons.values())


@pytest.mark.parametrize("tuner", ["random", "grid", "bayesian", "hyperband"])
def test_a_field_has_a_value_where_all_that_it_depends_on_is_chosen(pretended, tmp_path, tuner):
    """Two conditions on one field, and a field that depends on it in turn."""
    (tmp_path / "space.yaml").write_text(
        "optimizer.name: {choice: [sgd, rmsprop]}\n"
        "augment.policy: {choice: [none, randaugment]}\n"
        "seed: {choice: [4, 5], when: {optimizer.name: [sgd], augment.policy: [randaugment]}}\n"
        "kept_checkpoints: {choice: [1, 3], when: {seed: [5]}}\n"
    )
    space = read_space(str(tmp_path / "space.yaml"))
    config = config_of("d", tmp_path / "s", "--tuner", tuner, "--max_trials", "40")
    tried = {tuple(searched(values).items()) for *_, values in searched_all(config, space).values()}
    both = [("optimizer.name", "sgd"), ("augment.policy", "randaugment")]
    for values in map(dict, tried):
        has_seed = all(values[field] == value for field, value in both)
        assert ("seed" in values) == has_seed
        assert ("kept_checkpoints" in values) == (values.get("seed") == 5)
    # Three without the seed, one with 4, two with 5.
    assert tuner == "hyperband" or len(tried) == 6
