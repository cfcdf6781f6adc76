"""A search space as YAML: one field of the training config a line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
import yaml

from pipelines.errors import BadInput

KINDS: dict[str, Callable[[keras_tuner.HyperParameters, str, list], Any]] = {
    "float": lambda hp, field, ends: hp.Float(field, *ends),
    "log_float": lambda hp, field, ends: hp.Float(field, *ends, sampling="log"),
    "int": lambda hp, field, ends: hp.Int(field, *ends),
    "choice": lambda hp, field, values: hp.Choice(field, values),
}


def read_space(path: Path) -> keras_tuner.HyperParameters:
    """Declares every line of a space file to keras-tuner.

    Raises:
        BadInput: the file is missing or not a mapping, or a line is not a range or a choice.
    """
    try:
        lines = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read the space {str(path)!r}: {error}") from error
    if not isinstance(lines, dict) or not lines:
        raise BadInput(f"{str(path)!r} is not a mapping from fields to ranges")
    space = keras_tuner.HyperParameters()
    for field, declaration in lines.items():
        _declare(space, field, declaration)
    return space


def _declare(space: keras_tuner.HyperParameters, field: str, declaration: Any) -> None:
    if not isinstance(declaration, dict) or len(declaration) != 1:
        raise BadInput(f"{field}: {declaration} is not one of {sorted(KINDS)} with its values")
    kind, values = next(iter(declaration.items()))
    if kind not in KINDS:
        raise BadInput(f"{field}: unknown kind {kind!r}; one of {sorted(KINDS)}")
    if not isinstance(values, list) or not values:
        raise BadInput(f"{field}: {kind} takes a list, not {values!r}")
    if kind != "choice" and not _is_range(values):
        raise BadInput(f"{field}: {kind} takes two rising numbers [low, high], not {values}")
    if kind == "log_float" and values[0] <= 0:
        raise BadInput(f"{field}: log_float starts above 0, not at {values[0]}")
    try:
        KINDS[kind](space, field, values)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{field}: {kind} does not take {values}: {error}") from error


def _is_range(values: list[Any]) -> bool:
    numbers = all(isinstance(value, int | float) for value in values)
    return numbers and len(values) == 2 and values[0] < values[1]
