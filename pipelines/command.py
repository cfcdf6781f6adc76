"""Every command: parse first, import TensorFlow after, answer in one line when it cannot be done.

A stage's module says which config it takes and which function does the work, as "module:function";
`command` makes its `main`. So `--help` and a typing error never wait for TensorFlow.
"""

import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from pipelines.config import network_defaults
from pipelines.errors import BadInput, Failed
from pipelines.start import import_stage

Config = TypeVar("Config")


def command(config_class: type, target: str) -> Callable[[list[str] | None], int]:
    """The `main` of a command.

    Args:
        config_class: the dataclass that its arguments fill; a first argument without a dash is
            the value of its first field.
        target: "module:function" of the work; it takes the config and gives a dataclass, whose
            `str` is what a person reads and whose fields are what `--json` prints.

    Returns:
        A function from arguments (`sys.argv` when None) to the exit status: 0, 1 when the
        work failed or was interrupted, 2 for bad input.
    """

    def main(argv: list[str] | None = None) -> int:
        arguments = sys.argv[1:] if argv is None else list(argv)
        as_json = "--json" in arguments
        try:
            config = parse(config_class, [a for a in arguments if a != "--json"])
            module, _, function = target.partition(":")
            result = getattr(import_stage(module), function)(config)
        except BadInput as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return 1
        print(json.dumps(dataclasses.asdict(result), default=str) if as_json else result)
        return 0

    return main


def parse(config_class: type[Config], arguments: list[str]) -> Config:
    """Fills a config from files and dotted overrides, later ones winning.

    What nobody gave comes from the network that was chosen (its input spec, the run's folder).

    Raises:
        BadInput: an unknown key, a value of the wrong type or out of its range.
        SystemExit: after `--help` or `--print_config`.
    """
    parser = _parser(config_class)
    fields = [field.name for field in dataclasses.fields(config_class)]
    if arguments and not arguments[0].startswith("-"):
        arguments = [f"--{fields[0]}", *arguments]
    try:
        drawn = parser.parse_args([a for a in arguments if not a.startswith("--print_config")])
        for prefix in ("", "train."):
            if network := drawn.get(f"{prefix}network"):
                defaults = network_defaults(network)
                parser.set_defaults({f"{prefix}{key}": value for key, value in defaults.items()})
        values = parser.instantiate(parser.parse_args(arguments))
        return config_class(**{name: values[name] for name in fields})
    except (ArgumentError, ValueError, TypeError) as error:
        raise BadInput(_one_line(parser, str(error))) from error


def load(config_class: type[Config], path: Path) -> Config:
    """Reads a config that `dump` wrote."""
    return parse(config_class, ["--config", str(path)])


def dump(config: Any) -> str:
    """The whole config as YAML; `--config` reads it back to an equal value."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def _plain(value: Any) -> Any:
    """Paths as strings and tuples as lists: the types that YAML has."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _parser(config_class: type) -> ArgumentParser:
    module = sys.modules["__main__"].__spec__
    parser = ArgumentParser(
        prog=f"python -m {module.name.removesuffix('.__main__')}" if module else None,
        description=config_class.__doc__.partition("\n")[0],
        epilog="--json prints the result for a program to read",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file of the arguments below")
    parser.add_class_arguments(config_class, as_group=False)
    for source, target in getattr(config_class, "links", {}).items():
        parser.link_arguments(source, target)
    return parser


def _one_line(parser: ArgumentParser, message: str) -> str:
    """jsonargparse's message on one line, with the nearest key where one is unknown."""
    line = " ".join(message.split())
    unknown = re.search(r"(?:unrecognized arguments: --|[Oo]ption '|Key ')([\w.]+)", line)
    if unknown and "required" not in line:
        keys = list(parser.get_defaults().keys())
        nearest = difflib.get_close_matches(unknown[1], keys, n=1, cutoff=0.0)
        return f"{line}; did you mean {nearest[0]!r}? --help lists all"
    return line
