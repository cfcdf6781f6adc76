"""`python -m keras_zoo`: what is in the zoo. Answers without importing a framework."""

import argparse
import ast
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

from keras_zoo.registry import CARDS, Card, card


def _source(row: Card) -> str:
    """The docstring of the module that builds the network, read without importing it."""
    spec = importlib.util.find_spec(row.builder.partition(":")[0])
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""


def _list(as_json: bool) -> str:
    if as_json:
        return json.dumps([dataclasses.asdict(row) for row in CARDS.values()], indent=2)
    lines = [f"{'network':<14}{'year':>6}{'input':>7}{'parameters':>14}{'GMACs':>8}{'top-1':>8}"]
    for row in CARDS.values():
        top1 = f"{row.published.top1:.1f}" if row.published else "-"
        lines.append(
            f"{row.name:<14}{row.paper.year:>6}{row.input.size_px:>7}{row.parameters:>14,}"
            f"{row.gmacs:>8.2f}{top1:>8}"
        )
    lines.append("top-1: published, single crop, in per cent; python -m keras_zoo show NAME")
    return "\n".join(lines)


def _show(name: str, as_json: bool) -> str:
    row = card(name)
    if as_json:
        return json.dumps(dataclasses.asdict(row), indent=2)
    facts = {
        "network": row.name,
        "paper": f'{row.paper.authors}, "{row.paper.title}", {row.paper.venue} ({row.paper.year})',
        "input": row.input,
        "smallest input": f"{row.min_size_px} px",
        "parameters": f"{row.parameters:,} (trainable, {row.num_classes} classes)",
        "GMACs": f"{row.gmacs} at {row.input.size_px} px",
    }
    if row.published:
        facts["published"] = (
            f"top-1 {row.published.top1}%, top-5 {row.published.top5}% ({row.published.source})"
        )
    lines = [f"{key:<16}{value}" for key, value in facts.items()]
    return "\n".join([*lines, "", _source(row)])


def main(argv: list[str] | None = None) -> int:
    """Parses `argv`, prints the answer and gives the exit status: 0, or 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m keras_zoo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    lister = commands.add_parser("list", help="all networks, one a line")
    shower = commands.add_parser("show", help="one network's card and its deviations")
    shower.add_argument("name")
    for command in (lister, shower):
        command.add_argument("--json", action="store_true", help="for a program to read")
    args = parser.parse_args(argv)
    try:
        answer = _list(args.json) if args.command == "list" else _show(args.name, args.json)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
