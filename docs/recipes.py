"""Writes docs/recipes.md, every paper's recipe held against its paper, from the recipes themselves.

    python docs/recipes.py

What stands behind a field in a recipe is `paper says | where | deviation`, the last two as needed.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "pipelines" / "recipes"
OUT = Path(__file__).with_name("recipes.md")

HEAD = """# The papers' recipes, field by field

`python -m pipelines.train DATA --recipe NAME` trains as the paper did, as far as it says; a field
that is not named here has its default, or that of the recipe named above the table. Accuracies and
hours are published ones; none was measured here. Written by `docs/recipes.py` from the recipes.
"""
FIELD = re.compile(r"( *)(\w+): *([^#]*?) *(?:# (.*))?")


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(section, sorted(RECIPES.glob("*.paper.yaml")))])


def section(recipe: Path) -> str:
    """One recipe: what its header says, and a table of its fields."""
    lines = recipe.read_text().splitlines()
    title, *told = [" ".join(part.split()) for part in header(lines)]
    base = next((value for field, value, _ in fields(lines) if field == "recipe"), None)
    over = f"Over [`{base}`](#{base.replace('.', '')}), but for:\n\n" if base else ""
    rows = [
        [f"`{field}`", f"`{value}`", *[*remark.split("|"), "", ""][:3]]
        for field, value, remark in fields(lines)
        if field not in ("network", "recipe")
    ]
    if not rows:
        over = over.replace(", but for:", ".")
    columns = ["field", "here", "the paper", "where", "deviation"]
    table = [columns, ["---"] * len(columns), *rows] if rows else []
    drawn = "".join(f"| {' | '.join(map(str.strip, row))} |\n" for row in table)
    notes = "".join(f"- {note}\n" for note in told)
    return f"## {recipe.stem}\n\n{title}\n\n{notes}\n{over}{drawn}"


def header(lines: list[str]) -> list[str]:
    """The paragraphs of a recipe's opening comment: lines that are indented go on with the last."""
    paragraphs: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        text = line.removeprefix("# ")
        if text.strip().startswith("python "):
            continue
        if text.startswith(" "):
            paragraphs[-1] += text
        else:
            paragraphs.append(text)
    return paragraphs


def fields(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """Every field with its dotted name, its value as it is written, and the remark behind it."""
    group = ""
    for line in lines:
        found = FIELD.fullmatch(line)
        if not found:
            continue
        indent, name, value, remark = found.groups(default="")
        if not value:
            group = f"{name}."
            continue
        yield (group if indent else "") + name, value, remark


if __name__ == "__main__":
    OUT.write_text(page())
    print(OUT, file=sys.stderr)
