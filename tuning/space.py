"""A search space as YAML: one field of the training config a line."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_tuner
import yaml
from keras_tuner.src.engine.conditions import Parent

from pipelines.command import read_yaml
from pipelines.errors import BadInput

SPACES = Path(__file__).with_name("spaces")

Declare = Callable[[keras_tuner.HyperParameters, str, list], Any]

KINDS: dict[str, Declare] = {
    "float": lambda hp, field, ends: hp.Float(field, *map(float, ends)),
    "log_float": lambda hp, field, ends: hp.Float(field, *map(float, ends), sampling="log"),
    "int": lambda hp, field, ends: hp.Int(field, *ends),
    # keras-tuner makes numbers of the truth values of a choice.
    "choice": lambda hp, field, values: (
        hp.Boolean(field) if set(map(type, values)) == {bool} else hp.Choice(field, values)
    ),
}


@dataclass(frozen=True)
class Space:
    """What is searched.

    Args:
        space: by field, its kind with the values, and perhaps `when`.
    """

    space: dict[str, dict[str, Any]]

    def declared(self) -> keras_tuner.HyperParameters:
        """The space as keras-tuner knows it."""
        hp = keras_tuner.HyperParameters()
        for field, line in self.space.items():
            kind, values = _kind(line)
            alone = keras_tuner.HyperParameters()
            KINDS[kind](alone, field, values)
            (declared,) = alone.space
            # Not by scopes, of which one within another takes a field that has the outer ones too.
            declared.conditions = [Parent(*condition) for condition in self._when(field).items()]
            hp.merge([declared])
        return hp

    def extremes(self) -> Iterator[dict[str, Any]]:
        """Each value of each choice and both ends of each range, where it matters.

        Each comes with what makes it matter: the first value of each field that it depends on.
        """
        for field, line in self.space.items():
            kind, values = _kind(line)
            for value in map(float, values) if kind.endswith("float") else values:
                conditions = {other: choices[0] for other, choices in self._when(field).items()}
                yield conditions | {field: value}

    def _when(self, field: str) -> dict[str, list]:
        """What a field depends on, by way of others too: those first, with their values."""
        conditions: dict[str, list] = {}
        for other, values in self.space[field].get("when", {}).items():
            conditions |= self._when(other) | {other: values}
        return conditions


def read_space(name: str) -> Space:
    """Reads the space of that name in `tuning/spaces`, or the file.

    Raises:
        BadInput: there is no such file, it is not a mapping, or a line is not a range or a choice.
    """
    path = SPACES / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        names = sorted(file.stem for file in SPACES.glob("*.yaml"))
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise BadInput(
            f"no space {name!r}; did you mean {nearest[0]!r}? {', '.join(names)}, or a YAML file"
        )
    try:
        lines = read_yaml(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        raise BadInput(f"cannot read the space {str(path)!r}: {told}") from error
    if not isinstance(lines, dict) or not lines:
        raise BadInput(f"{str(path)!r} is not a mapping from fields to ranges")
    space = Space(lines)
    for field, line in lines.items():
        _check(field, line)
        _check_conditions(space, field)
    try:
        space.declared()
    except (TypeError, ValueError) as error:
        raise BadInput(f"keras-tuner does not take {str(path)!r}: {error}") from error
    return space


def _kind(line: dict[str, Any]) -> tuple[str, list]:
    """A line's kind and its values."""
    return next((kind, values) for kind, values in line.items() if kind != "when")


def _check(field: str, line: Any) -> None:
    kinds = set(line) - {"when"} if isinstance(line, dict) else set()
    if len(kinds) != 1:
        raise BadInput(f"{field}: {line} is not one of {sorted(KINDS)} with its values")
    kind, values = _kind(line)
    if kind not in KINDS:
        raise BadInput(f"{field}: unknown kind {kind!r}; one of {sorted(KINDS)}")
    if not isinstance(values, list) or not values:
        raise BadInput(f"{field}: {kind} takes a list, not {values!r}")
    (_check_choice if kind == "choice" else _check_range)(field, kind, values)


def _check_range(field: str, kind: str, values: list[Any]) -> None:
    types = {int} if kind == "int" else {int, float}
    if len(values) != 2 or not set(map(type, values)) <= types or values[0] >= values[1]:
        raise BadInput(f"{field}: {kind} takes two rising numbers [low, high], not {values}")
    if kind == "log_float" and values[0] <= 0:
        raise BadInput(f"{field}: log_float starts above 0, not at {values[0]}")


def _check_choice(field: str, kind: str, values: list[Any]) -> None:
    """keras-tuner chooses among values of one type, and between both truth values."""
    types = set(map(type, values))
    if len(types) > 1 or not types <= {bool, int, float, str}:
        raise BadInput(f"{field}: {kind} takes numbers, words or truth values, not {values}")
    if types == {bool} and set(values) != {True, False}:
        raise BadInput(f"{field}: a {kind} of truth values is [false, true], not {values}")


def _check_conditions(space: Space, field: str) -> None:
    conditions = space.space[field].get("when", {})
    if not isinstance(conditions, dict):
        raise BadInput(f"{field}: when takes {{FIELD: [VALUE, ...]}}, not {conditions!r}")
    lines = list(space.space)
    for other, values in conditions.items():
        above = lines[: lines.index(field)]
        if other not in above or "choice" not in space.space[other]:
            raise BadInput(f"{field}: when names {other!r}, which is no choice in a line above")
        choice = space.space[other]["choice"]
        if not isinstance(values, list) or not values or not set(values) <= set(choice):
            raise BadInput(f"{field}: when {other} is of {choice}, not {values!r}")
