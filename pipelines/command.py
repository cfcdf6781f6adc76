"""Every command: parse first, import TensorFlow after, answer in one line when it cannot be done.

A stage's module says which config it takes and which function does the work, as "module:function";
`command` makes its `main`. So `--help` and a typing error never wait for TensorFlow.
"""

import dataclasses
import difflib
import importlib
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from jsonargparse import (
    ActionConfigFile,
    ArgumentError,
    ArgumentParser,
    Namespace,
    get_loader,
    set_loader,
)

from keras_zoo import weight_sets
from keras_zoo.quiet import native_messages_held_back
from pipelines.config import TrainConfig, network_defaults
from pipelines.errors import BadInput, Failed, Stopped

Config = TypeVar("Config")

RECIPES = Path(__file__).with_name("recipes")
DRY_RUN = {"--dry-run", "--dry_run"}


class Subcommand(NamedTuple):
    """One of the things that a module does: `command`'s two arguments, and a line about it."""

    config_class: type
    target: str
    meaning: str


def subcommands(table: dict[str, Subcommand]) -> Callable[[list[str] | None], int]:
    """The `main` of a module whose first argument says which of several commands is meant."""

    def main(argv: list[str] | None = None) -> int:
        name, *arguments = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
        if name in table:
            return command(table[name].config_class, table[name].target, name)(arguments)
        if name in ("-h", "--help"):
            lines = (f"  {key:10} {row.meaning}" for key, row in table.items())
            print(f"usage: {program()} SUBCOMMAND [--help]", *lines, sep="\n")
            return 0
        print(f"error: no subcommand {name!r}; one of {', '.join(table)}", file=sys.stderr)
        return 2

    return main


def command(
    config_class: type, target: str, subcommand: str = "", dry_run: str | None = None
) -> Callable[[list[str] | None], int]:
    """The `main` of a command.

    Args:
        config_class: the dataclass that its arguments fill; a first argument without a dash is
            the value of its first field, and those that follow are its `rest_field`, if it has one;
            all of them, where that is its first field. Where it has an `each_field`, they are
            values of that instead, and the work gets a list of configs, one for each.
        target: "module:function" of the work; it takes the config and gives a dataclass, whose
            `str` is what a person reads and whose fields are what `--json` prints. Where it has a
            `failure` that is not empty, not all could be done.
        subcommand: what stands before the arguments, for the help to show.
        dry_run: what `--dry-run` calls instead, alike; there is no such option unless given.

    Returns:
        A function from arguments (`sys.argv` when None) to the exit status: 0 when the work is
        done or was stopped as it is meant to be, 1 when it failed or was interrupted, 2 for bad
        input.
    """

    def main(argv: list[str] | None = None) -> int:
        arguments = sys.argv[1:] if argv is None else list(argv)
        flags = {"--json"} | (DRY_RUN if dry_run else set())
        given = flags.intersection(arguments)
        work = dry_run if given & DRY_RUN else target
        read = parse_each if hasattr(config_class, "each_field") else parse
        try:
            config = read(config_class, [a for a in arguments if a not in given], subcommand)
            result = _resolve(work)(config)
        except (BadInput, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            return 0
        except KeyboardInterrupt:
            print("interrupted; type the same command again", file=sys.stderr)
            return 1
        print(json.dumps(dataclasses.asdict(result), default=str) if "--json" in given else result)
        if failure := getattr(result, "failure", ""):
            print(f"failed: {failure}", file=sys.stderr)
        return int(bool(failure))

    return main


def _resolve(target: str) -> Callable[[Any], Any]:
    """The function named "module:function", imported quietly along with TensorFlow if it does."""
    module, _, function = target.partition(":")
    with native_messages_held_back():
        resolved = getattr(importlib.import_module(module), function)
        if tensorflow := sys.modules.get("tensorflow"):
            tensorflow.config.list_physical_devices()
    return resolved


def parse(config_class: type[Config], arguments: list[str], subcommand: str = "") -> Config:
    """Fills a config from files and dotted overrides, later ones winning.

    Options may be written with dashes inside, `--on-bad` for `--on_bad`. What nobody gave comes
    from the network that was chosen (its input spec, the run's folder).

    Raises:
        BadInput: an unknown key, a value of the wrong type or out of its range.
        SystemExit: after `--help` or `--print_config`.
    """
    parser = _parser(config_class, subcommand)
    fields = [field.name for field in dataclasses.fields(config_class)]
    arguments = _with_names(config_class, arguments)
    default = getattr(config_class, "default_recipe", None)
    if default and not any(each.partition("=")[0] == "--recipe" for each in arguments):
        arguments = ["--recipe", default, *arguments]
    options = list(parser.get_defaults().keys())
    arguments = [_with_underscores(argument, options) for argument in arguments]
    try:
        for prefix, choice in _networks(parser, arguments).items():
            defaults = _defaults(*choice)
            parser.set_defaults({f"{prefix}{key}": value for key, value in defaults.items()})
        values = parser.instantiate(parser.parse_args(arguments))
        return config_class(**{name: values[name] for name in fields})
    except (ArgumentError, ValueError, TypeError) as error:
        raise BadInput(_one_line(parser, str(error))) from error


def parse_each(
    config_class: type[Config], arguments: list[str], subcommand: str = ""
) -> list[Config]:
    """A config for each of the leading arguments, as if it alone had been given.

    They are values of the config's `each_field`.

    Raises:
        BadInput, SystemExit: as `parse`.
    """
    leading = list(itertools.takewhile(lambda a: not a.startswith("-"), arguments))
    rest = arguments[len(leading) :]
    chosen = [[f"--{config_class.each_field}", value] for value in dict.fromkeys(leading)]
    # Last, so that it wins over a file's.
    return [parse(config_class, [*rest, *one], subcommand) for one in chosen or [[]]]


def _with_names(config_class: type, arguments: list[str]) -> list[str]:
    """`a b c --d e` -> `--first a --rest_field=["b", "c"] --d e`.

    All are the config's `rest_field` where that is its first field.
    """
    first = dataclasses.fields(config_class)[0].name
    rest_field = getattr(config_class, "rest_field", None)
    leading = itertools.takewhile(lambda a: a == "-" or not a.startswith("-"), arguments)
    leading = list(leading)[: None if rest_field else 1]
    one = 0 if rest_field == first else 1
    named = [part for value in leading[:one] for part in (f"--{first}", value)]
    if rest := leading[one:]:
        named.append(f"--{rest_field}={json.dumps(rest)}")
    return [*named, *arguments[len(leading) :]]


def _with_underscores(argument: str, options: Collection[str]) -> str:
    """`--on-bad=a-b` -> `--on_bad=a-b`; a key that a person chose, behind an option, stays."""
    if not argument.startswith("--"):
        return argument
    name = argument[2:].partition("=")[0]
    written = name.replace("-", "_")
    option = next((option for option in options if written.startswith(f"{option}.")), written)
    return f"--{option}{argument[2 + len(option) :]}"


def _networks(parser: ArgumentParser, arguments: list[str]) -> dict[str, tuple[str, str]]:
    """The network and weights that the arguments choose, by the prefix of their fields."""
    real = [argument for argument in arguments if not argument.startswith("--print_config")]
    try:
        drawn = parser.parse_args(real)
    except (ArgumentError, TypeError):
        if real == arguments:
            raise
        # What is missing does not keep the rest from being printed.
        drawn = parser.get_defaults()
    return {
        prefix: (drawn[f"{prefix}network"], drawn[f"{prefix}init"])
        for prefix in ("", "train.")
        if f"{prefix}network" in drawn and f"{prefix}init" in drawn
    }


def _defaults(network: str, weights: str | None) -> dict[str, Any]:
    """What comes of the chosen network and weights; a run's are seen as that run saw images."""
    recorded = Path(weights or "", "config.yaml")
    if weights and recorded.is_file():
        seen = dataclasses.asdict(load(TrainConfig, recorded).input)
        return network_defaults(network, None) | {"input": seen}
    # A run that is gone by now: whoever trained from it recorded what it saw.
    gone = weights and os.sep in weights and not weight_sets.suffix(Path(weights))
    return network_defaults(network, None if gone else weights)


def load(config_class: type[Config], path: Path) -> Config:
    """Reads a config that `dump` wrote."""
    return parse(config_class, ["--config", str(path)])


def dump(config: Any) -> str:
    """The whole config as YAML; `--config` reads it back to an equal value."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def refuse_another(recorded: Path, config: Any, changeable: set[str]) -> None:
    """Compares a config with the one that a folder was begun with.

    Args:
        recorded: the file that `dump` was written to; fine if there is none.
        config: the one given now.
        changeable: fields that may differ.

    Raises:
        BadInput: another field differs; the message names all that do, and the first's values.
            Or the file is not what `dump` wrote.
    """
    if not recorded.is_file():
        return
    try:
        before = _flat(yaml.safe_load(recorded.read_text()))
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{str(recorded)!r} is no config any more; choose another folder, or remove that one"
        ) from error
    now = _flat(yaml.safe_load(dump(config)))
    fields = (before.keys() | now.keys()) - changeable
    if differing := sorted(field for field in fields if before.get(field) != now.get(field)):
        first = differing[0]
        raise BadInput(
            f"{str(recorded.parent)!r} was begun with another config ({', '.join(differing)} "
            f"differ; {first}: {before.get(first)} there, {now.get(first)} here); "
            "choose another folder, or remove that one"
        )


def flat(config: Any) -> dict[str, Any]:
    """A config's values, of the types that YAML has, by the dotted names of their fields."""
    return _flat(_plain(dataclasses.asdict(config)))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, its keys joined with dots."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _plain(value: Any) -> Any:
    """Paths as strings and tuples as lists: the types that YAML has."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def recipe_file(name: str) -> Path:
    """The file of a named recipe.

    Raises:
        ValueError: there is no such recipe; the message offers the nearest one.
    """
    names = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise ValueError(
            f"unknown recipe {name!r}; did you mean {nearest[0]!r}? the files in {RECIPES}, or "
            "--config FILE for one of your own"
        )
    return RECIPES / f"{name}.yaml"


class RecipeOrFile(ActionConfigFile):
    """`--recipe NAME` and `--config FILE`: fields to take, in the order of the command line.

    Attributes:
        recipe_field: which of the fields a recipe fills; a recipe has all of them where None.
    """

    recipe_field: str | None = None

    def __call__(
        self, parser: ArgumentParser, config: Namespace, value: str, option: str | None = None
    ) -> None:
        if option == "--recipe":
            path = recipe_file(value)
            options = parser.get_defaults().keys()
            accepted = {option.partition(".")[0] for option in options}
            fields = yaml.safe_load(path.read_text()).keys() - {"recipe"}
            if not self.recipe_field and not fields <= accepted:
                raise ValueError(
                    f"the recipe {value!r} has {min(fields - accepted)!r}, which this command does "
                    "not take; python -m pipelines takes whole workflows"
                )
            value = f"{self.recipe_field}: {{recipe: {value}}}" if self.recipe_field else path
        super().__call__(parser, config, value, option)


# As YAML 1.2 has it: 1e-3 is a number.
read_yaml = get_loader("yaml")


def _read_over_recipe(text: str) -> Any:
    """YAML in which a mapping that has a `recipe` is laid over the fields of that recipe."""
    return _resolved(read_yaml(text))


def _resolved(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    own = {key: _resolved(value) for key, value in tree.items() if key != "recipe"}
    if "recipe" not in tree:
        return own
    return _over(_read_over_recipe(recipe_file(tree["recipe"]).read_text()), own)


def _over(base: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """A nested mapping laid over another, key by key."""
    merged = {
        key: _over(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in tree.items()
    }
    return base | merged


set_loader("yaml", _read_over_recipe, (yaml.YAMLError,))


def program() -> str:
    """How this process was started, as a person types it."""
    module = sys.modules["__main__"].__spec__
    return f"python -m {module.name.removesuffix('.__main__')}" if module else "python"


def _parser(config_class: type, subcommand: str) -> ArgumentParser:
    prog = f"{program()} {subcommand}".strip()
    first = dataclasses.fields(config_class)[0]
    short_form = f"{first.name.upper()} " if first.type in (str, Path) else ""
    if each_field := getattr(config_class, "each_field", None):
        short_form = f"{each_field.upper()}... "
    if rest_field := getattr(config_class, "rest_field", None):
        short_form += f"{rest_field.upper()}... "
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} {short_form}[--option VALUE ...]",
        description=config_class.__doc__.partition("\n")[0],
        epilog="--json prints the result for a program to read",
        exit_on_error=False,
        allow_abbrev=False,
    )
    files = parser.add_argument(
        "--config",
        "--recipe",
        action=RecipeOrFile,
        help="a YAML file of the arguments below, or the name of one in pipelines/recipes",
    )
    files.recipe_field = getattr(config_class, "recipe_field", None)
    parser.add_class_arguments(config_class, as_group=False)
    for source, target in getattr(config_class, "links", {}).items():
        parser.link_arguments(source, target)
    return parser


def _one_line(parser: ArgumentParser, message: str) -> str:
    """jsonargparse's message on one line, with the nearest key where one is unknown."""
    line = " ".join(message.split()).replace(
        "arguments are required: ", "arguments are required: --"
    )
    if missing := re.match(r'Parser key "([\w.]+)": .* not NoneType$', line):
        return f"the following arguments are required: --{missing[1]}"
    unknown = re.search(r"(?:unrecognized arguments: --|[Oo]ption '|Key ')([\w.]+)", line)
    if unknown and "required" not in line:
        keys = list(parser.get_defaults().keys())
        nearest = difflib.get_close_matches(unknown[1], keys, n=1, cutoff=0.0)
        return f"{line}; did you mean {nearest[0]!r}? --help lists all"
    return line
