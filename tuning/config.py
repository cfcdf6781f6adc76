"""What a search is told."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.config import TrainConfig

TUNERS = ("random", "hyperband")
STAGES = ("train", "evaluate", "export")


@dataclass(frozen=True)
class SearchConfig:
    """A keras-tuner search over fields of the training config.

    Args:
        space: a YAML file: `field: {log_float|float|int: [low, high]}` or `{choice: [...]}` a line.
        search: the folder of this search; an existing one goes on.
        train: what every trial starts from. Trials never see its validation split: they train
            and are measured on parts of its training split.
        tuner: `random` or `hyperband` (which gives most trials few epochs).
        max_trials: trials at most.
        holdout_percent: share of the training split that trials are measured on.
        seed: of the choices.
    """

    space: Path
    search: Path
    train: TrainConfig
    tuner: str = "random"
    max_trials: int = 10
    holdout_percent: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tuner not in TUNERS:
            raise ValueError(f"tuner is {self.tuner!r}; one of {TUNERS}")
        if self.max_trials < 1:
            raise ValueError(f"max_trials is {self.max_trials}; at least 1")
        if not 0 < self.holdout_percent < 100:
            raise ValueError(f"holdout_percent is {self.holdout_percent}; from 1 to 99")


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
