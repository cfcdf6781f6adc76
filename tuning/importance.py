"""Which fields the accuracy of a search's trials depends on."""

import math
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from tuning.records import Records, Trial

MIN_TRIALS = 5
EPOCHS = "epochs"
# Fewer trials a field than this are few to tell fields apart by.
FEW = 10


@dataclass(frozen=True)
class Importances:
    """How much of the differences in top-1 each field accounts for.

    Args:
        trials: completed ones, which is what the numbers rest on.
        shares: by field, adding up to 1, the largest first; `epochs` is among them where trials
            had different numbers of them.
        explained: share of the variance in top-1 that the forest predicts of trials it has not
            seen; at most 1, and where it is not above 0, `shares` mean nothing.
    """

    trials: int
    shares: dict[str, float]
    explained: float

    def __str__(self) -> str:
        shares = ", ".join(f"{field} {share:.2f}" for field, share in self.shares.items())
        return f"importances: {shares}\n  {self.caveat}"

    @property
    def caveat(self) -> str:
        """What they rest on, and how far to trust them."""
        rest = f"from {self.trials} completed trials that differ in these {len(self.shares)}"
        if self.explained <= 0:
            return f"{rest}: they mean nothing yet, for they do not predict a trial left out"
        few = ", few for so many fields: a hint" if self.trials < FEW * len(self.shares) else ""
        return f"{rest}{few}; {self.explained:.0%} of the variance of trials left out is predicted"


def importances(records: Records) -> Importances | None:
    """Permutation importances (Breiman, "Random Forests", 2001, Section 10).

    A random forest learns top-1 from the fields; a field's importance is how much worse it gets
    when that field's values are shuffled between trials.

    Returns:
        None where fewer than `MIN_TRIALS` trials have completed, or all came out equal.
    """
    trials = records.ranking
    top1 = np.array([trial.top1 for trial in trials])
    columns = {
        name: column
        for name in (*records.fields, EPOCHS)
        if len(np.unique(column := [_number(records, trial, name) for trial in trials])) > 1
    }
    if len(trials) < MIN_TRIALS or np.ptp(top1) == 0 or not columns:
        return None
    features = np.array(list(columns.values())).T
    forest = RandomForestRegressor(300, oob_score=True, random_state=0).fit(features, top1)
    found = permutation_importance(forest, features, top1, n_repeats=20, random_state=0)
    drops = np.maximum(found.importances_mean, 0)
    shares = dict(zip(columns, (drops / (drops.sum() or 1)).tolist(), strict=True))
    return Importances(
        trials=len(trials),
        shares=dict(sorted(shares.items(), key=lambda item: -item[1])),
        explained=float(forest.oob_score_),
    )


def _number(records: Records, trial: Trial, name: str) -> float:
    """A value as a forest takes it: a choice by its place, NaN where the field was not in play."""
    if name == EPOCHS:
        return trial.last_epoch
    if name not in trial.values:
        return math.nan
    field, value = records.fields[name], trial.values[name]
    return field.choices.index(value) if field.choices else float(value)
