"""What the documentation's pages take from the code, put into them while MkDocs builds the site.

A page of `docs/networks` is written by hand as far as it tells what a family of networks brought;
the drawings, the cards, the recipes, the deviations and the measured results follow from the
registry, the recipes, the docstrings and `measured.csv`. The reference of the commands follows
from the modules that make them.
"""

import ast
import contextlib
import csv
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import recipes
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from keras_zoo.__main__ import main as keras_zoo
from keras_zoo.input_spec import InputSpec
from keras_zoo.registry import CARDS, Card, Paper, Published
from keras_zoo.weight_sets import published_sets

DOCS = Path(__file__).parent
ROOT = DOCS.parent
NETWORKS, COMMANDS = "networks/", "reference/commands.md"
QUADRANT = ("alexnet", "vgg16", "googlenet", "inception_v3", "resnet18", "resnet50", "seresnet50")
NOT_RUN = "not run"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the drawing of every network and the two charts, as `python -m keras_zoo` draws them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    drawn = {f"{name}.svg": ["plot", name] for name in CARDS}
    drawn |= {"timeline.svg": ["timeline"], "quadrant.svg": ["compare", *QUADRANT]}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in drawn.items():
            svg = Path(folder, name)
            with contextlib.redirect_stdout(io.StringIO()):
                status = keras_zoo([*arguments, "--out", str(svg)])
            if status:
                raise RuntimeError(f"python -m keras_zoo {' '.join(arguments)} ended with {status}")
            files.append(File.generated(config, NETWORKS + name, content=svg.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page as it is written, and what follows from the code."""
    file = Path(page.file.src_uri)
    if page.file.src_uri == COMMANDS:
        return f"{markdown}\n{command_reference()}"
    if not page.file.src_uri.startswith(NETWORKS):
        return markdown
    return f"{markdown}\n{overview() if file.stem == 'index' else family_page(file.stem)}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def measured() -> list[dict[str, str]]:
    """The rows of `measured.csv`."""
    with (DOCS / "measured.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def result(row: dict[str, str]) -> list[str]:
    """A measured row as the cells below `RESULT_HEAD`."""
    top1 = f"{100 * float(row['top1']):.1f}%"
    others = ("epochs", "size_px", "cpu_minutes", "images_per_s_infer", "commit")
    return [top1, f"{int(row['n']):,}", *(row[name] or NOT_RUN for name in others)]


RESULT_HEAD = ["top-1", "n", "epochs", "px", "CPU minutes", "images/s, inference", "commit"]


def overview() -> str:
    """Every network, one a line; the two charts; everything measured."""
    networks = [
        [
            f"[`{card.name}`]({card.family}.md#{card.name})",
            str(card.year or "-"),
            str(card.input.size_px),
            f"{card.parameters:,}",
            f"{card.gmacs:g}",
            f"{card.published.top1:.1f}" if card.published else "-",
        ]
        for card in CARDS.values()
    ]
    results = [[f"`{row['network']}`", *result(row)] for row in measured()]
    head = ["network", "year", "px", "parameters", "GMACs", "top-1, published, %"]
    return (
        f"{table(head, networks)}\n"
        "![Published accuracy over the year of the paper](timeline.svg)\n\n"
        "![Published accuracy against compute](quadrant.svg)\n\n"
        "## Measured here\n\n"
        "Twenty classes of Tiny ImageNet: 10,000 images to train on, 1,000 to measure with; chance "
        "is 5%. All with one budget, the recipe `comparison` of "
        "`python -m pipelines compare`: fresh weights, seed 0, two x86-64 cores beside other jobs, "
        "TensorFlow 2.21. Networks that are not in the table were not run. The rows are in "
        "[measured.csv](../measured.csv).\n\n"
        f"{table(['network', *RESULT_HEAD], results)}"
    )


def family_page(family: str) -> str:
    """What follows the hand-written part of a family's page."""
    cards = [card for card in CARDS.values() if card.family == family]
    if not cards:
        raise ValueError(f"docs/networks/{family}.md is of no family of the registry")
    return "\n\n".join(
        [
            "## The networks",
            *map(network_section, cards),
            "## Recipes",
            recipe_list(family),
            "## Deviations",
            deviations(family),
        ]
    )


def network_section(card: Card) -> str:
    """A network's drawing, its card and what was measured of it."""
    rows = [result(row) for row in measured() if row["network"] == card.name]
    here = (
        f"Measured on [twenty classes of Tiny ImageNet](index.md#measured-here):\n\n"
        f"{table(RESULT_HEAD, rows)}"
        if rows
        else f"Measured results: {NOT_RUN}."
    )
    return (
        f"### {card.name} {{ #{card.name} }}\n\n"
        f"[![The architecture of {card.name}]({card.name}.svg)]({card.name}.svg)\n\n"
        f"{table(['', ''], facts(card))}\n{here}"
    )


def facts(card: Card) -> list[list[str]]:
    """The card, a fact a row."""
    return [
        ["parameters", f"{card.parameters:,} (trainable, {card.num_classes:,} classes)"],
        ["GMACs", f"{card.gmacs:g}, an image of {card.input.size_px} px"],
        ["input", pixels(card.input)],
        ["smallest image", f"{card.min_size_px} px"],
        ["paper", citation(card.paper) if card.paper else "none"],
        ["published", accuracy(card.published) if card.published else "none"],
        *([f"weights `{row.name}`", accuracy(row.published)] for row in published_sets(card.name)),
    ]


def pixels(spec: InputSpec) -> str:
    """An input spec as a phrase."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    return (
        f"short side {spec.resize_px} px ({spec.interpolation}), central {spec.size_px} px; "
        f"{spec.channels}, minus ({mean}), divided by ({std})"
    )


def citation(paper: Paper) -> str:
    """A paper, with a link where it is on arXiv."""
    venue = re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper.venue)
    return f"{paper.authors}, “{paper.title}”, {venue}"


def accuracy(published: Published) -> str:
    """Somebody else's figures, and whose."""
    return f"top-1 {published.top1:g}%, top-5 {published.top5:g}% ({published.source})"


def recipe_list(family: str) -> str:
    """The family's recipes: what each is, what to expect of it, and its command."""
    files = [
        file
        for file in sorted(recipes.RECIPES.glob("*.*.yaml"), key=lambda file: file.stem)
        if CARDS[file.stem.partition(".")[0]].family == family
    ]
    return "\n\n".join(map(recipe, files))


def recipe(file: Path) -> str:
    """One recipe; that of a paper links to what the paper says of each field."""
    title, *told = (" ".join(part.split()) for part in recipes.header(file.read_text().split("\n")))
    name = f"`{file.stem}`"
    if file.stem.endswith(".paper"):
        name = f"[{name}](../recipes.md#{file.stem.replace('.', '')})"
        told = [note for note in told if note.startswith(("Expected", "Hours"))]
    data = "data/digits" if file.stem.endswith(".demo") else "data/imagenet"
    command = f"    python -m pipelines.train {data} --recipe {file.stem}"
    return f"{name}: {' '.join([title, *told])}\n\n{command}"


def deviations(family: str) -> str:
    """Where the code differs from the paper, as its module's docstring lists it."""
    docstring = ast.get_docstring(ast.parse((ROOT / "keras_zoo" / f"{family}.py").read_text()))
    listed = docstring[docstring.index("Deviations") :]
    return re.sub(r"(?m):\n- ", ":\n\n- ", listed)


class Command(NamedTuple):
    """A command, its config and its work.

    Args:
        name: what a person types.
        config: the dotted name of its config.
        work: the dotted name of the function that does it.
    """

    name: str
    config: str
    work: str


def commands() -> Iterator[Command]:
    """Every command there is, from the calls that make them."""
    for folder in ("pipelines", "tuning"):
        for file in sorted((ROOT / folder).glob("*.py")):
            module = f"{folder}.{file.stem}".removesuffix(".__main__")
            tree = ast.parse(file.read_text())
            imported = {
                alias.name: f"{node.module}.{alias.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
            subcommands = {
                id(value): [key.value]
                for node in ast.walk(tree)
                if isinstance(node, ast.Dict)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
            for node in ast.walk(tree):
                match node:
                    case ast.Call(
                        func=ast.Name("command" | "Subcommand" as maker),
                        args=[ast.Name(config), ast.Constant(str(work)), *rest],
                    ):
                        named = [part.value for part in rest] if maker == "command" else []
                        words = ["python -m", module, *named, *subcommands.get(id(node), [])]
                        yield Command(" ".join(words), imported[config], work.replace(":", "."))


def command_reference() -> str:
    """Each command with its options, its work and what `--json` prints; then parts of configs."""
    found = list(commands())
    sections = []
    for name, config, work in found:
        objects = [config, work, *result_class(work)]
        sections += [f"## `{name}`", *(f"::: {name}" for name in objects)]
    parts = [
        f"::: {module}.{node.name}"
        for module in ("pipelines.config", "tuning.config")
        for node in parsed(module).body
        if isinstance(node, ast.ClassDef)
        and node.name.endswith("Config")
        and f"{module}.{node.name}" not in {command.config for command in found}
    ]
    return "\n\n".join([*sections, "## Parts of the configs", *parts])


def result_class(work: str) -> list[str]:
    """The dotted name of the dataclass that a function gives, where its own module has it."""
    module, _, function = work.rpartition(".")
    nodes = {getattr(node, "name", ""): node for node in parsed(module).body}
    returned = ast.unparse(nodes[function].returns)
    return [f"{module}.{returned}"] if returned in nodes else []


def parsed(module: str) -> ast.Module:
    """A module's syntax tree, without importing it."""
    return ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
