"""What a search is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipelines.config import TrainConfig

TUNERS = ("random", "bayesian", "hyperband", "grid")
ROLES = ("alone", "chief", "worker")
STAGES = ("train", "evaluate", "export")
# These end by themselves.
EXHAUSTIVE = ("hyperband", "grid")
DEFAULT_TRIALS = 10


@dataclass(frozen=True)
class SearchConfig:
    """A keras-tuner search over fields of the training config.

    A trial is a run of pipelines.train, in a process of its own. --recipe is that of the trials.

    Args:
        data: a prepared data set with the split `minival`; trials train on `train` and are
            measured on that.
        train: what every trial starts from. Its validation split is never opened.
        space: what is searched: a name from tuning/spaces or a YAML file, `field: {KIND: VALUES}`
            a line, where KIND is `float`, `log_float` or `int` with [low, high], or `choice`; with
            `when: {OTHER: [VALUE, ...]}` for a field that matters under a choice only.
        tuner: `random`, `bayesian`, `hyperband` (many trials get few epochs, the best of them
            more) or `grid`.
        max_trials: trials at most; 10 unless given, and for `hyperband` and `grid` all there are.
        search: the folder of this search; an existing one goes on.
            searches/NETWORK-SPACE-TUNER unless given.
        seed: of the choices.
        trial_memory_gib: a trial that holds more than this has run out of memory; its processes
            together. Unless given, only the kernel and the devices set limits.
        trial_timeout_s: a trial that logs nothing for so long has failed.
        max_failures_in_a_row: more than so many end the search.
        keep_best: trials whose checkpoints are kept, beside those that are still needed.
        role: `alone`; `chief`, which chooses what workers on any machine try; or `worker`, the
            same as python -m tuning.worker.
        chief: `HOST:PORT` of the chief. KERASTUNER_ORACLE_IP, KERASTUNER_ORACLE_PORT and
            KERASTUNER_TUNER_ID say this and the role otherwise.
        local_workers: trials at a time on this machine, each on its share of the GPUs.
    """

    data: Path
    train: TrainConfig
    space: str = "default"
    tuner: str = "hyperband"
    max_trials: int | None = None
    search: Path | None = None
    seed: int = 0
    trial_memory_gib: float | None = None
    trial_timeout_s: float = 1800.0
    max_failures_in_a_row: int = 5
    keep_best: int = 1
    role: str = "alone"
    chief: str | None = None
    local_workers: int = 1

    links: ClassVar = {"data": "train.data"}
    recipe_field: ClassVar = "train"

    def __post_init__(self) -> None:
        for name, allowed in (("tuner", TUNERS), ("role", ROLES)):
            given = getattr(self, name)
            if given not in allowed:
                raise ValueError(f"{name} is {given!r}; one of {', '.join(allowed)}")
        for name, least in (
            ("max_trials", 1),
            ("max_failures_in_a_row", 0),
            ("keep_best", 0),
            ("local_workers", 1),
            ("seed", 0),
        ):
            given = getattr(self, name)
            if given is not None and given < least:
                raise ValueError(f"{name} is {given}; at least {least}")
        for name in ("trial_memory_gib", "trial_timeout_s"):
            given = getattr(self, name)
            if given is not None and given <= 0:
                raise ValueError(f"{name} is {given}; it is above 0")
        _require_address(self.chief)
        if self.role != "alone" and not self.chief:
            raise ValueError(f"role is {self.role!r} and chief not given; --chief HOST:PORT")
        if self.role != "alone" and self.local_workers > 1:
            raise ValueError(f"local_workers go with the role 'alone', not with {self.role!r}")

    @property
    def folder(self) -> Path:
        """Where everything of the search is."""
        name = f"{self.train.network}-{Path(self.space).stem}-{self.tuner}"
        return self.search or Path("searches", name)

    @property
    def trial_limit(self) -> int | None:
        """`max_trials`, or what it is unless given; None for all there are."""
        if self.max_trials is None and self.tuner not in EXHAUSTIVE:
            return DEFAULT_TRIALS
        return self.max_trials


@dataclass(frozen=True)
class WorkerConfig:
    """A worker of a search that a chief runs on this machine or another.

    It sees the folders of the search and of the data under the same paths as the chief, and waits
    half an hour for a chief that has not begun, or is gone.

    Args:
        search: the folder of the search.
        worker: what the chief knows this worker by. The same again takes up the trial that a
            worker killed on another machine left; on one machine, each worker needs another.
            KERASTUNER_TUNER_ID or the host's name unless given.
        chief: `HOST:PORT` of the chief; what the search was begun with unless given.
    """

    search: Path
    worker: str | None = None
    chief: str | None = None

    def __post_init__(self) -> None:
        _require_address(self.chief)


def _require_address(chief: str | None) -> None:
    host, _, port = (chief or "HOST:1").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"chief is {chief!r}; HOST:PORT")


@dataclass(frozen=True)
class ResultsConfig:
    """What a search has come to, finished or not, and what is made of its best config.

    Args:
        search: the folder of a search.
        then: what follows, separated by commas: `train` (best.yaml from scratch), `evaluate` (that
            run, once, on `validation`), `export` (to a SavedModel under saved_models). What is done
            already is not done again.
    """

    search: Path
    then: str = ""

    def __post_init__(self) -> None:
        if unknown := set(self.then.split(",")) - {*STAGES, ""}:
            raise ValueError(f"then has {min(unknown)!r}; of {','.join(STAGES)}")

    @property
    def stages(self) -> list[str]:
        """The stages that `then` names, in the order in which they follow one another."""
        return [stage for stage in STAGES if stage in self.then.split(",")]
