"""`python -m keras_zoo`: what is in the zoo. Imports a framework only for layers and drawings."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from keras_zoo.input_spec import InputSpec
from keras_zoo.quiet import native_messages_held_back
from keras_zoo.registry import CARDS, Card, Paper, Published, build, card
from keras_zoo.weight_sets import input_spec, published_sets

if TYPE_CHECKING:
    with native_messages_held_back():
        import keras

    from keras_zoo.macs import LayerRow


def _docstring(row: Card) -> str:
    """The docstring of the module that builds the network, read without importing it."""
    spec = importlib.util.find_spec(row.builder.partition(":")[0])
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""


def _record(row: Card) -> dict:
    """The card for a program to read, with its family and its weights."""
    sets = [dataclasses.asdict(weights) for weights in published_sets(row.name)]
    return {**dataclasses.asdict(row), "family": row.family, "weights": sets}


def _table(rows: Sequence[Card]) -> str:
    """Cards one a line, by what the papers are compared by."""
    lines = [
        f"{'network':<18}{'year':>4}{'input':>7}{'parameters':>14}{'GMACs':>9}{'top-1':>8}  weights"
    ]
    for row in rows:
        top1 = f"{row.published.top1:.1f}" if row.published else "-"
        sets = ", ".join(weights.name for weights in published_sets(row.name)) or "-"
        lines.append(
            f"{row.name:<18}{row.year or '-':>4}{row.input.size_px:>7}{row.parameters:>14,}"
            f"{row.gmacs:>9.3f}{top1:>8}  {sets}"
        )
    return "\n".join(lines)


def _answer(rows: Sequence[Card], as_json: bool, closing: str) -> str:
    if as_json:
        return json.dumps([_record(row) for row in rows], indent=2)
    return f"{_table(rows)}\n{closing}"


def _list(args: argparse.Namespace) -> str:
    rows = list(CARDS.values())
    for asked, name, of_card in (
        (args.family, "family", lambda row: row.family),
        (args.year, "year", lambda row: row.year),
    ):
        if asked is not None:
            known = sorted({of_card(row) for row in rows} - {None})
            if asked not in known:
                raise ValueError(f"no {name} {asked}; one of {', '.join(map(str, known))}")
            rows = [row for row in rows if of_card(row) == asked]
    closing = "top-1: published, in per cent; python -m keras_zoo show NAME"
    return _answer(rows, args.json, closing)


def _pixels(spec: InputSpec) -> str:
    """An input spec as a sentence."""
    return (
        f"short side {spec.resize_px} px ({spec.interpolation}), centre crop {spec.size_px} px, "
        f"({spec.channels} - {spec.mean}) / {spec.std}"
    )


def _accuracy(published: Published) -> str:
    return f"top-1 {published.top1}%, top-5 {published.top5}% ({published.source})"


def _citation(paper: Paper) -> str:
    return f'{paper.authors}, "{paper.title}", {paper.venue} ({paper.year})'


def _facts(row: Card) -> str:
    """The card and its weights, a fact a line."""
    facts = [
        ("network", row.name),
        ("paper", _citation(row.paper) if row.paper else "none"),
        ("input", _pixels(row.input)),
        ("smallest input", f"{row.min_size_px} px"),
        ("parameters", f"{row.parameters:,} (trainable, {row.num_classes} classes)"),
        ("GMACs", f"{row.gmacs} at {row.input.size_px} px"),
    ]
    if row.published:
        facts.append(("published", _accuracy(row.published)))
    for weights in published_sets(row.name):
        facts += [
            ("weights", weights.name),
            ("  file", weights.url),
            ("  input", _pixels(weights.input)),
            ("  published", _accuracy(weights.published)),
        ]
    return "\n".join(f"{name:<16}{value}" for name, value in facts)


def _show(args: argparse.Namespace) -> str:
    row = card(args.name)
    if args.json:
        return json.dumps(_record(row), indent=2)
    hint = f"layer by layer: python -m keras_zoo show {row.name} --layers"
    return f"{_facts(row)}\n\n{_docstring(row)}\n\n{hint}"


def _blueprint(name: str) -> keras.Model:
    """The network without the time and memory that its weights take: they have no values."""
    with native_messages_held_back():
        import keras

        with keras.StatelessScope(initialize_variables=False):
            return build(name)


def _show_layers(args: argparse.Namespace) -> str:
    row = card(args.name)
    model = _blueprint(row.name)
    from keras_zoo import macs

    layers = macs.rows(model)
    if args.json:
        records = [dataclasses.asdict(layer) for layer in layers]
        return json.dumps({**_record(row), "layers": records}, indent=2)
    return f"{_facts(row)}\n\n{_layer_table(layers)}"


def _layer_table(layers: Sequence[LayerRow]) -> str:
    total = dataclasses.replace(
        layers[-1],
        name="total",
        type="",
        output_shape=(),
        parameters=sum(layer.parameters for layer in layers),
        macs=sum(layer.macs for layer in layers),
    )
    width = max(len(layer.name) for layer in layers) + 2
    lines = [f"{'layer':<{width}}{'type':<28}{'output':<18}{'parameters':>12}{'MACs':>16}"]
    for layer in (*layers, total):
        shape = " x ".join(map(str, layer.output_shape))
        lines.append(
            f"{layer.name:<{width}}{layer.type:<28}{shape:<18}"
            f"{layer.parameters:>12,}{layer.macs:>16,}"
        )
    return "\n".join(lines)


def _plot(args: argparse.Namespace) -> str:
    row = card(args.name)
    from keras_zoo import charts

    charts.check_path(args.out)
    model = _blueprint(row.name)
    from keras_zoo import drawing, structure

    charts.save(drawing.architecture(structure.chain(model), row), args.out)
    return f"{row.name} is drawn in {args.out}"


def _filters(args: argparse.Namespace) -> str:
    row = card(args.name)
    from keras_zoo import charts

    charts.check_path(args.out)
    channels = input_spec(row.name, args.weights).channels
    with native_messages_held_back():
        import keras

        model = build(row.name, include_top=False, weights=args.weights)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    kernel = keras.ops.convert_to_numpy(first.kernel)
    kernel = kernel[:, :, ::-1] if channels == "BGR" else kernel
    title = f"{row.name}, {args.weights}: {kernel.shape[-1]} filters of {first.name}"
    charts.save(charts.filters(kernel, title), args.out)
    return f"the first filters of {row.name} are drawn in {args.out}"


def _timeline(args: argparse.Namespace) -> str:
    rows = sorted((row for row in CARDS.values() if row.paper), key=lambda row: row.year)
    return _answer(rows, args.json, _chart("timeline", rows, args.out))


def _compare(args: argparse.Namespace) -> str:
    rows = [card(name) for name in args.names]
    return _answer(rows, args.json, _chart("quadrant", rows, args.out))


def _chart(kind: str, rows: Sequence[Card], out: Path | None) -> str:
    """Draws the cards, where a file is asked for, and says where they are drawn or how."""
    if out is None:
        return "top-1: published, in per cent; with --out FILE.svg as a chart"
    from keras_zoo import charts

    charts.save(getattr(charts, kind)(rows), out)
    return f"top-1: published, in per cent; drawn in {out}"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m keras_zoo", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    lister = commands.add_parser("list", help="all networks, one a line")
    lister.add_argument("--family", help="only those of one family, such as vgg")
    lister.add_argument("--year", type=int, help="only those of one year")
    shower = commands.add_parser("show", help="one network's card, deviations and weights")
    shower.add_argument("name", metavar="NAME")
    shower.add_argument(
        "--layers",
        dest="answer",
        action="store_const",
        const=_show_layers,
        help="its layers, too (builds it)",
    )
    plotter = commands.add_parser("plot", help="draw one network's architecture (builds it)")
    plotter.add_argument("name", metavar="NAME")
    filterer = commands.add_parser("filters", help="draw what a trained first layer looks for")
    filterer.add_argument("name", metavar="NAME")
    filterer.add_argument(
        "weights", metavar="WEIGHTS", help="a published set, or a file, as build takes it"
    )
    timeline = commands.add_parser(
        "timeline", help="networks that have a paper by year, as a table or a chart"
    )
    comparer = commands.add_parser("compare", help="networks side by side, as a table or a chart")
    comparer.add_argument("names", nargs="+", metavar="NAME")
    for command in (lister, shower, timeline, comparer):
        command.add_argument("--json", action="store_true", help="for a program to read")
    for command in (plotter, filterer, timeline, comparer):
        command.add_argument(
            "--out",
            type=Path,
            required=command in (plotter, filterer),
            metavar="FILE.svg|png",
            help="draw it there",
        )
    for command, answer in (
        (lister, _list),
        (shower, _show),
        (plotter, _plot),
        (filterer, _filters),
        (timeline, _timeline),
        (comparer, _compare),
    ):
        command.set_defaults(answer=answer)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parses `argv`, prints the answer and gives the exit status: 0, or 2 for a bad argument."""
    args = _parser().parse_args(argv)
    try:
        print(args.answer(args), flush=True)
    except ModuleNotFoundError as error:
        print(f"{error}; pip install {error.name}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the answer has read enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
