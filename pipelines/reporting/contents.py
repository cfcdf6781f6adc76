"""What stands on the page of a report, section by section, and the tables on it."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from keras_zoo import charts
from pipelines.exporting.export import SAVED_MODEL
from pipelines.reporting import comparison, figures
from pipelines.reporting.diagrams import Step, duration, gantt, pipeline
from pipelines.reporting.known import Known, preparation
from pipelines.reporting.page import drawing, svg
from pipelines.reporting.tables import NOT_RUN, Table, of_texts
from pipelines.reporting.text import first_name
from pipelines.stage_log import StageRecord, read_stages

# As sharp as a screen shows it, for a tenth of a PNG's bytes.
_PHOTOGRAPHS_PX, _PHOTOGRAPHS_QUALITY = 1000, 82
_NOT_RECORDED = "not recorded"

# What is shown of how a run was trained, where all have it in common.
_BUDGET = {
    "epochs": "epochs",
    "global_batch_size": "images a step",
    "train_split": "training images",
    "validation_split": "validation images",
    "input.size_px": "pixels a side",
    "optimizer.name": "optimizer",
    "optimizer.base_lr": "base learning rate",
    "schedule.name": "schedule",
    "augment.policy": "augmentation policy",
    "precision": "precision",
    "seed": "seed",
}


@dataclass(frozen=True)
class Contents:
    """A page before it is written, and the tables to write beside it.

    Args:
        title: of the page.
        body: HTML.
        tables: each under a name of its own.
    """

    title: str
    body: str
    tables: list[Table]


def contents(runs: Sequence[Known]) -> Contents:
    """All of a report."""
    stages = named_stages(runs)
    cards = [known.card for known in runs]
    side_by_side, won = comparison.comparison(runs), comparison.winners(cards)
    recipes, took = comparison.recipes(runs), comparison.stages(stages)
    names = ", ".join(dict.fromkeys(known.config.network for known in runs))
    parts = {
        "Comparison": side_by_side.html() + _missing(runs),
        "Timeline": _timeline(runs) + _words(won),
        "Accuracy against compute": _quadrants(runs),
        "Pipeline": pipeline(_steps(runs)),
        "Where the time went": _times(stages) + _words(took),
        "Learning curves": _curves(runs),
        "Runs": "".join(_run(known, f"run{number}") for number, known in enumerate(runs, start=1)),
    }
    return Contents(
        title=f"{names}: {'a comparison' if len(runs) > 1 else 'a report'}",
        body=_head(runs, stages, parts)
        + "".join(
            f'<section id="{_anchor(head)}"><h2>{escape(head)}</h2>\n{part}</section>\n'
            for head, part in parts.items()
        ),
        tables=[side_by_side, won, recipes, took],
    )


def named_stages(runs: Sequence[Known]) -> list[tuple[str, StageRecord]]:
    """What was done to the runs, their data and their searches, by name; the runs come last."""
    data = dict.fromkeys(known.config.data.resolve() for known in runs)
    searches = dict.fromkeys(folder for known in runs for folder in known.searches)
    return [
        *((f"data: {folder.name}", each) for folder in data for each in read_stages(folder)),
        *((f"search: {folder.name}", each) for folder in searches for each in read_stages(folder)),
        *((known.name, each) for known in runs for each in known.stages),
    ]


def _head(
    runs: Sequence[Known], stages: Sequence[tuple[str, StageRecord]], parts: Iterable[str]
) -> str:
    shared = comparison.shared(runs)
    budget = [
        f"{_BUDGET[field]} {comparison.told(shared[field])}" for field in _BUDGET if field in shared
    ]
    environments = [known.environment for known in runs]
    began = [each.began for _, each in stages]
    facts = {
        "Networks": [
            f"{known.name}" + ("" if known.metrics else " (unfinished)") for known in runs
        ],
        "Data": list(dict.fromkeys(map(_data, runs))),
        "Hardware": _distinct(environments, _hardware),
        "Versions": _distinct(environments, _versions),
        "Commit": _distinct(environments, lambda given: given.get("commit") or _NOT_RECORDED),
        "The same for all" if len(runs) > 1 else "Budget": ["; ".join(budget)] if budget else [],
        "Dates": [f"{min(began):%Y-%m-%d %H:%M} to {max(began):%Y-%m-%d %H:%M} UTC"]
        if began
        else [_NOT_RECORDED],
    }
    cards = "".join(
        f"<div><dt>{escape(name)}</dt>"
        + "".join(f"<dd>{escape(line)}</dd>" for line in lines or ["nothing"])
        + "</div>"
        for name, lines in facts.items()
    )
    links = "".join(f'<a href="#{_anchor(head)}">{escape(head)}</a>' for head in parts)
    return (
        f'<p class="lead">{escape(_lead(runs))}</p>\n{_warnings(runs)}'
        f'<nav aria-label="Sections">{links}</nav>\n<dl class="facts">{cards}</dl>\n'
    )


def _lead(runs: Sequence[Known]) -> str:
    """The result in a sentence."""
    told = [
        f"{known.name} {comparison.percent(known.evaluated['top1'])} (n = {known.evaluated['n']:,})"
        for known in sorted(_evaluated(runs), key=lambda known: -known.evaluated["top1"])
    ]
    return f"Top-1: {', '.join(told)}." if told else "None of these runs was evaluated yet."


def _warnings(runs: Sequence[Known]) -> str:
    """What keeps runs from being compared, before anything that compares them."""
    lines = []
    data = list(dict.fromkeys(known.data for known in runs))
    if len(data) > 1:
        groups = "; ".join(
            f"{', '.join(known.name for known in runs if known.data == key)} on "
            f"{next(_data(known) for known in runs if known.data == key)}"
            for key in data
        )
        lines.append(
            f"These runs are of different data: {groups}. Accuracies, times and losses of one "
            "data set do not compare with those of another."
        )
    evaluated = [known.evaluated for known in _evaluated(runs)]
    measured = {(str(Path(told["data"]).resolve()), told["split"]) for told in evaluated}
    if len(data) == 1 and len(measured) > 1:
        lines.append(
            "These runs were evaluated on different images, "
            + ", ".join(sorted(f"{split} of {folder}" for folder, split in measured))
            + ": their accuracies do not compare."
        )
    seen = dict.fromkeys(f"{told['views']} at {told['size_px']} px" for told in evaluated)
    if len(seen) > 1:
        lines.append(
            f"These runs were evaluated on images seen differently, {', '.join(seen)}: part of the "
            "difference between their accuracies is that."
        )
    return "".join(f'<p class="warning">{escape(line)}</p>\n' for line in lines)


def _data(known: Known) -> str:
    counts = ", ".join(f"{split['images']:,} {name}" for name, split in known.splits.items())
    images = f"{counts} images" if counts else f"number of images {_NOT_RECORDED}"
    return f"{known.config.data.name}: {images}, {len(known.class_names):,} classes"


def _hardware(given: dict[str, Any]) -> str:
    if not given:
        return _NOT_RECORDED
    devices = ", ".join(name.rpartition("device:")[2] for name in given.get("devices", []))
    processor, cores, gib = (
        given.get(name, _NOT_RECORDED) for name in ("processor", "cores", "memory_gib")
    )
    return f"{processor}, {cores} cores, {gib} GiB; {devices or _NOT_RECORDED}"


def _versions(given: dict[str, Any]) -> str:
    named = ("python", "tensorflow", "keras", "numpy")
    told = ", ".join(f"{name} {given[name]}" for name in named if name in given)
    return told or _NOT_RECORDED


def _distinct(environments: Sequence[dict[str, Any]], told: Any) -> list[str]:
    return list(dict.fromkeys(told(given) for given in environments))


def _missing(runs: Sequence[Known]) -> str:
    """The commands of what was not run."""
    lines = "".join(
        f"<li>{escape(known.name)}, {stage}: <code>{escape(command)}</code></li>"
        for known in runs
        for stage, command in known.missing.items()
    )
    head = '<h3>Not run, and what runs it</h3>\n<ul class="commands">'
    return f"{head}{lines}</ul>" if lines else ""


def _timeline(runs: Sequence[Known]) -> str:
    figure = charts.winners([known.card for known in runs])
    points = {
        known.card.name: f"{known.card.name} {100 - known.card.published.top5:.1f}%"
        for known in runs
        if known.card.year and known.card.published
    }
    alt = "Winning top-5 errors of ILSVRC: 28.2% in 2010 to 2.3% in 2017"
    alt += f"; networks compared: {', '.join(points.values())}" if points else ""
    caption = (
        "Bars: what won each year (ensembles of networks from 2012 on, over the test images), and "
        "who came second in 2014; coloured where a network of that family is compared here. "
        "Points: these networks as published, each as its source reports it."
    )
    return _figure(drawing(svg(figure), "timeline", alt), caption, "large")


def _quadrants(runs: Sequence[Known]) -> str:
    """What was measured, one figure for each data set, and what is published."""
    parts = []
    for number, of_data in enumerate(_by_data(_evaluated(runs))):
        first = of_data[0]
        split, data = first.evaluated["split"], first.config.data.name
        measure = f"measured: top-1 on {split} of {data}, %"
        figure = figures.measured_quadrant(of_data, measure)
        told = "; ".join(
            f"{known.name}: {comparison.percent(known.evaluated['top1'])} at "
            f"{known.blueprint.macs / 1e9:.3g} GMACs"
            for known in of_data
        )
        alt = f"Measured accuracy against compute. {told}"
        parts.append(
            _figure(
                drawing(svg(figure), f"measured{number}", alt),
                "Measured here, at the size that each run was trained for.",
                "medium",
            )
        )
    cards = {known.card.name: known.card for known in runs if known.card.published}
    if cards:
        told = "; ".join(
            f"{name}: {card.published.top1:.1f}% at {card.gmacs:.3g} GMACs"
            for name, card in cards.items()
        )
        alt = f"Published accuracy against compute. {told}"
        image = drawing(svg(figures.published_quadrant(runs)), "published", alt)
        without = sorted({known.card.name for known in runs} - cards.keys())
        left_out = f" Not published, and so not here: {', '.join(without)}." if without else ""
        parts.append(
            _figure(
                image,
                "Accuracy as published, on ImageNet's 1,000 classes; GMACs as counted from the "
                f"layers at the network's own size.{left_out}",
                "medium",
            )
        )
    return f'<div class="pair">{"".join(parts)}</div>'


def _steps(runs: Sequence[Known]) -> list[Step]:
    """The boxes of the pipeline, with what each came to here, or what runs it."""
    commands = {stage: command for known in runs for stage, command in known.missing.items()}
    stages = {
        "Training": ("train", _trained(runs)),
        "Evaluation": ("evaluate", _answers(runs)),
        "Export": ("export", _exported(runs)),
        "Serving": ("benchmark", _latencies(runs)),
    }
    return [
        Step("Data preparation", [*dict.fromkeys(map(_prepared, runs))]),
        Step("Model creation", _created(runs)),
        _tuning(runs),
        *(
            Step(name, facts or [NOT_RUN, commands.get(stage, "")], bool(facts))
            for name, (stage, facts) in stages.items()
        ),
    ]


def _tuning(runs: Sequence[Known]) -> Step:
    searches = {folder for known in runs for folder in known.searches}
    if not searches:
        return Step("Tuning", ["no part of this", "python -m tuning.search"], done=False)
    return Step("Tuning", ["1 search" if len(searches) == 1 else f"{len(searches)} searches"])


def _created(runs: Sequence[Known]) -> list[str]:
    return [
        f"{len(runs)} network{'s' if len(runs) > 1 else ''}",
        f"{_range([known.blueprint.parameters / 1e6 for known in runs])} M parameters",
        f"{_range([known.blueprint.macs / 1e9 for known in runs])} GMACs for one image",
    ]


def _trained(runs: Sequence[Known]) -> list[str]:
    epochs = [epoch for known in runs for epoch in known.history]
    if not epochs:
        return []
    speeds = [comparison.row(known).train_images_per_s for known in runs if known.history]
    return [
        f"{len(epochs)} epochs in all",
        duration(sum(epoch["training_s"] for epoch in epochs)),
        f"{_range(speeds)} images/s",
    ]


def _answers(runs: Sequence[Known]) -> list[str]:
    evaluated = [known.evaluated for known in _evaluated(runs)]
    if not evaluated:
        return []
    return [
        f"{len(evaluated)} of {len(runs)} evaluated",
        f"top-1 {_range([100 * told['top1'] for told in evaluated])}%",
        f"{sum(told['n'] for told in evaluated):,} answers",
    ]


def _exported(runs: Sequence[Known]) -> list[str]:
    saved = [known.model_card["formats"][SAVED_MODEL] for known in runs if known.export]
    if not saved:
        return []
    return [
        f"{len(saved)} of {len(runs)} exported",
        f"{_range([each['bytes'] / 1e6 for each in saved])} MB",
        f"verified on {sum(each['images'] for each in saved):,} images",
    ]


def _latencies(runs: Sequence[Known]) -> list[str]:
    measured = [float(known.inference["p50_ms"]) for known in runs if known.inference]
    if not measured:
        return []
    return [f"one image in {_range(measured)} ms (median)", "python -m pipelines.serve"]


def _prepared(known: Known) -> str:
    told = preparation(known.config.data)
    dropped = "" if told is None else f", {len(told['bad_files']):,} files left out"
    return f"{_data(known)}{dropped}"


def _range(values: Sequence[float]) -> str:
    """`3.1 to 11.2`, or the one value."""
    low, high = (f"{end:.3g}" if end < 100 else f"{end:,.0f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _times(stages: Sequence[tuple[str, StageRecord]]) -> str:
    ended = [(name, each) for name, each in stages if each.wall_s is not None]
    if not ended:
        return "<p>Not recorded: these folders have no stages.jsonl.</p>"
    wall_s = sum(each.wall_s for _, each in ended)
    cpu_s = sum(each.cpu_s for _, each in ended)
    bound = "At least " if len(ended) < len(stages) else ""
    return (
        f"<p>{bound}{duration(wall_s)} in all, {duration(cpu_s)} of processor time. Long pauses "
        f"between stages are cut out.</p>\n{gantt(ended)}"
    )


_CURVES = {
    "loss": "training loss",
    "val_loss": "validation loss",
    "val_top1": "validation top-1",
}


def _curves(runs: Sequence[Known]) -> str:
    """For each data set, the curves of all of its runs."""
    trained = [known for known in runs if known.history]
    if not trained:
        return "<p>No run has finished an epoch yet.</p>"
    parts = []
    for number, of_data in enumerate(_by_data(trained)):
        images = []
        for column, label in _CURVES.items():
            ends = ", ".join(f"{known.name} {known.history[-1][column]:.3f}" for known in of_data)
            alt = f"{label} over the epochs; at the end: {ends}"
            figure = figures.curve(of_data, column, label)
            images.append(
                _figure(drawing(svg(figure), f"{column}{number}", alt), label.capitalize())
            )
        logged = [known for known in of_data if known.steps]
        for name, draw, caption in (
            ("throughput", figures.throughput, "Throughput while training"),
            ("wait", figures.input_wait, "Waiting for images"),
        ):
            if logged:
                means = ", ".join(
                    f"{known.name} {comparison.row(known).train_images_per_s:.1f} images/s"
                    for known in logged
                )
                alt = f"{caption} over the minutes of training; medians: {means}"
                images.append(_figure(drawing(svg(draw(logged)), f"{name}{number}", alt), caption))
        parts.append(f'{_key(of_data, runs)}<div class="grid">{"".join(images)}</div>')
    return "".join(parts)


def _key(of_data: Sequence[Known], runs: Sequence[Known]) -> str:
    chosen = figures.looks(of_data)
    signs = "".join(
        f'<li><span style="color:{chosen[known.name].color}">{chosen[known.name].sign}</span> '
        f"{escape(known.name)}</li>"
        for known in of_data
    )
    several = len({known.data for known in runs}) > 1
    head = f"<h3>On {escape(of_data[0].config.data.name)}</h3>" if several else ""
    return f'{head}<ul class="key">{signs}</ul>'


def _run(known: Known, anchor: str) -> str:
    figures_of_it = known.evaluated
    state = "" if known.metrics else ", unfinished"
    told = (
        f"top-1 {comparison.percent(figures_of_it['top1'])}" if figures_of_it else "not evaluated"
    )
    facts = f"{known.config.network} at {known.config.input.size_px} px, {told}{state}"
    alt = (
        f"The layers of {known.config.network} from left to right, at "
        f"{known.config.input.size_px} px, {known.blueprint.parameters:,} parameters"
    )
    picture = drawing(svg(figures.drawn(known)), f"layers-{anchor}", alt)
    return (
        f'<details open id="{anchor}"><summary>{escape(known.name)}'
        f"<small>{escape(facts)}</small></summary>\n"
        f"{_figure(picture, 'Height: resolution; width: channels; colour: kernel.', 'large')}"
        f"{_evaluation(known, anchor)}{_recipe(known)}</details>\n"
    )


def _evaluation(known: Known, anchor: str) -> str:
    """What the evaluation drew: confusion, calibration, classes, and the worst mistakes."""
    told = known.evaluated
    if told is None:
        return (
            f'<h3>Evaluation</h3><p><span class="missing">{NOT_RUN}</span>: '
            f"<code>{escape(known.missing['evaluate'])}</code></p>"
        )
    pairs = "; ".join(
        f"{first_name(pair['label'])} taken for {first_name(pair['answer'])}, {pair['images']} of "
        f"{pair['of']}"
        for pair in told["most_confused"][:3]
    )
    drawn = {
        "confusion": (
            "Confusion: what is taken for what",
            f"Confusion matrix. Worst: {pairs or 'no mistakes'}",
        ),
        "per_class": (
            "Accuracy by class, with 95% intervals",
            f"Accuracy of {len(known.class_names)} classes; of all {told['top1']:.4f}",
        ),
        "reliability": (
            "Calibration: how often an answer is right, by how sure it is",
            f"Reliability diagram; expected calibration error {told['calibration_error']:.4f}",
        ),
    }
    images = "".join(
        _figure(
            drawing(
                (known.evaluation / f"{file}.svg").read_text(),
                f"{file}-{anchor}",
                f"{known.name}: {alt}",
            ),
            caption,
        )
        for file, (caption, alt) in drawn.items()
    )
    return (
        f"<h3>Evaluation</h3><p>{escape(told['title'])}: {told['split']} of "
        f"{escape(told['data'])}, n = {told['n']:,}, seen as {told['views']}</p>\n"
        f'<div class="pair">{images}'
        f"{_mistakes(known, pairs)}</div>"
    )


def _mistakes(known: Known, pairs: str) -> str:
    file = known.evaluation / "mistakes.png"
    if not file.is_file():
        return ""
    alt = escape(f"{known.name}: images of the pairs of classes most confused: {pairs}")
    image = f'<img class="photographs" alt="{alt}" src="{_photographs(file)}">'
    return _figure(image, "Worst mistakes, as the network saw the images, the surest first")


def _photographs(file: Path) -> str:
    """A PNG as the address of a smaller WebP."""
    with Image.open(file) as image:
        image = image.convert("RGB")
        image.thumbnail((_PHOTOGRAPHS_PX, 10 * _PHOTOGRAPHS_PX))
        encoded = io.BytesIO()
        image.save(encoded, "WEBP", quality=_PHOTOGRAPHS_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _recipe(known: Known) -> str:
    """How the run was made, and on what."""
    rows = comparison.differs(known)
    recipe = of_texts(
        "", "Where its recipe differs from the defaults", ["field", "here", "default"], rows
    )
    given = known.environment or {"environment.json": None}
    lines = [
        [name, _NOT_RECORDED if value is None else comparison.told(value)]
        for name, value in given.items()
    ]
    environment = of_texts("", "What it ran on", ["", ""], lines)
    commands = [each.command for each in known.stages] or [
        f"python -m pipelines.train --config {known.folder}/config.yaml"
    ]
    typed = escape("\n".join(dict.fromkeys(commands)))
    return (
        f'<h3>Recipe, environment, commands</h3><div class="pair">{_words(recipe)}'
        f"{_words(environment)}</div><pre>{typed}</pre>"
    )


def _words(table: Table) -> str:
    return f'<div class="words">{table.html()}</div>'


def _figure(image: str, caption: str, kind: str = "") -> str:
    return (
        f'<figure><div class="{kind}">{image}</div><figcaption>{escape(caption)}</figcaption>'
        "</figure>\n"
    )


def _by_data(runs: Sequence[Known]) -> list[list[Known]]:
    """The runs of one data set together, in the order of the first of each."""
    keys = list(dict.fromkeys(known.data for known in runs))
    ordered = sorted(runs, key=lambda known: keys.index(known.data))
    return [list(group) for _, group in groupby(ordered, key=lambda known: known.data)]


def _evaluated(runs: Sequence[Known]) -> list[Known]:
    return [known for known in runs if known.evaluated]


def _anchor(name: str) -> str:
    """Letters, digits and hyphens."""
    return "".join(each if each.isalnum() else "-" for each in name.lower())
