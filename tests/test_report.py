"""A report: its numbers against those of the run's files, and its page as a browser shows it."""

import csv
import dataclasses
import json
import re
import shutil
import statistics
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

import keras_zoo
from keras_zoo import charts
from keras_zoo.ilsvrc import ENTRIES
from keras_zoo.input_spec import InputSpec
from pipelines import atomic
from pipelines.command import dump, load
from pipelines.config import EvaluateConfig, ReportConfig, TrainConfig
from pipelines.errors import BadInput
from pipelines.evaluation.evaluate import evaluate
from pipelines.reporting import figures
from pipelines.reporting.diagrams import bar_of
from pipelines.reporting.known import read_runs
from pipelines.reporting.report import report

CHROMIUM = shutil.which("chromium")
PARAMETERS = 315_146
# The second row is older than the first; the others are of something else, and newer.
INFER = """\
measured_at,network,size_px,num_classes,parameters,batch_size,engine,cores,images_per_s,p50_ms,p99_ms,noise
2026-01-02T00:00:00+00:00,simple_cnn,32,10,315146,1,savedmodel,CORES,812.5,1.25,4.75,0.25
2026-01-01T00:00:00+00:00,simple_cnn,32,10,315146,1,savedmodel,CORES,1,2,3,0.25
2026-01-03T00:00:00+00:00,simple_cnn,32,20,315146,1,savedmodel,CORES,4,5,6,0.25
2026-01-03T00:00:00+00:00,simple_cnn,64,10,315146,1,savedmodel,CORES,4,5,6,0.25
2026-01-03T00:00:00+00:00,simple_cnn,32,10,315434,1,savedmodel,CORES,4,5,6,0.25
2026-01-03T00:00:00+00:00,simple_cnn,32,10,315146,8,savedmodel,CORES,4,5,6,0.25
2026-01-03T00:00:00+00:00,simple_cnn,32,10,315146,1,onnx,CORES,4,5,6,0.25
2026-01-03T00:00:00+00:00,simple_cnn,32,10,315146,1,savedmodel,999,4,5,6,0.25
"""


@pytest.fixture(scope="module")
def evaluation(run, saved_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "evaluation"
    evaluate(EvaluateConfig(str(run), out=folder))
    return folder


@pytest.fixture(scope="module")
def unfinished(run, tmp_path_factory):
    """The same run before its end, which nothing was done with."""
    folder = tmp_path_factory.mktemp("other") / "<unfinished>"
    shutil.copytree(run, folder)
    (folder / "metrics.json").unlink()
    (folder / "stages.jsonl").unlink()
    lines = (folder / "history.csv").read_text().splitlines(keepends=True)
    (folder / "history.csv").write_text("".join(lines[:2]))
    return folder


@pytest.fixture(scope="module")
def results(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    environment = json.loads((run / "environment.json").read_text())
    head, *rows = INFER.replace("CORES", str(environment["cores"])).splitlines()
    lines = [f"{head},processor", *(f"{row},{environment['processor']}" for row in rows)]
    (folder / "infer.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def made(run, unfinished, evaluation, results, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports") / "report"
    return report(ReportConfig([run, unfinished], out, results))


@pytest.fixture(scope="module")
def folder(made):
    return Path(made.page).parent


def rows_of(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


class Tags(HTMLParser):
    """Every tag of a page, with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def tags(made):
    return Tags(Path(made.page).read_text()).found


def test_every_number_of_the_table_is_that_of_the_files(folder, run, evaluation, saved_models):
    row, _ = rows_of(folder / "comparison.csv")
    figures_of_it = json.loads((evaluation / "metrics.json").read_text())
    for name in ("n", "top1", "top5"):
        assert float(row[name]) == figures_of_it[name]
    for name in ("top1", "top5"):
        interval = [float(row[f"{name}_low"]), float(row[f"{name}_high"])]
        assert interval == figures_of_it[f"{name}_interval"]
    own = json.loads((run / "metrics.json").read_text())
    assert int(row["parameters"]) == own["parameters"] == PARAMETERS
    assert int(row["epochs"]) == own["epochs"] == 3
    assert float(row["training_s"]) == pytest.approx(own["training_s"], rel=1e-12)
    assert float(row["train_images_per_s"]) == own["images_per_s"]
    history = rows_of(run / "history.csv")
    speeds = [float(each["images_per_s"]) for each in history]
    assert float(row["train_images_per_s"]) == statistics.median(speeds)
    version = saved_models / "digits" / "1"
    files = [version / "saved_model.pb", *(version / "variables").iterdir()]
    assert int(row["saved_model_bytes"]) == sum(file.stat().st_size for file in files)
    # Two convolutions over 32 and 16 pixels a side, and two dense layers.
    assert float(row["gmacs"]) == pytest.approx(keras_zoo.card("simple_cnn").gmacs, rel=1e-2)
    assert [float(row[name]) for name in ("images_per_s", "p50_ms", "p99_ms")] == [
        812.5,
        1.25,
        4.75,
    ]
    (trained,) = (
        line
        for line in map(json.loads, (run / "stages.jsonl").read_text().splitlines())
        if line["stage"] == "train" and line["ended"]
    )
    assert float(row["train_wall_s"]) == trained["wall_s"]
    assert float(row["train_cpu_s"]) == trained["cpu_s"]


def test_page_and_markdown_say_the_same_as_the_csv(folder):
    row, _ = rows_of(folder / "comparison.csv")
    told = [
        f"{int(row['parameters']):,}",
        f"{100 * float(row['top1']):.1f}%",
        f"{100 * float(row['top1_low']):.1f} to {100 * float(row['top1_high']):.1f}",
        f"{100 * float(row['top5']):.1f}%",
        f"{int(row['n']):,}",
        f"{float(row['training_s']) / 60:.1f} min",
        f"{float(row['train_images_per_s']):.1f}",
        "± 25%",
        "812.5",
        "1.2 / 4.8 ms",
        f"{int(row['saved_model_bytes']) / 1e6:.1f} MB",
    ]
    page = (folder / "index.html").read_text()
    cells = page[page.index("<tbody>") : page.index("</tbody>")].split("</tr>")[0]
    line = (folder / "comparison.md").read_text().split("\n")[4]
    for text in told:
        assert f">{text}<" in cells
        assert text in line


def test_what_was_not_run_is_said_with_what_runs_it(made, folder, unfinished):
    _, row = rows_of(folder / "comparison.csv")
    for name in ("n", "top1", "top5_high", "train_cpu_s", "saved_model_bytes"):
        assert row[name] == "not run"
    assert (row["epochs"], row["epochs_planned"]) == ("1", "3")
    assert row["top1_published"] == ""
    commands = made.missing["<unfinished>"]
    assert list(commands) == ["train", "evaluate", "export"]
    assert list(made.missing) == ["<unfinished>"]
    page = (folder / "index.html").read_text()
    assert "1 of 3" in page
    assert "<unfinished>" not in page
    for command in commands.values():
        assert command in str(made)
    assert made.next == commands["train"]


def test_the_page_needs_nothing_else(tags, folder):
    loaded = [
        attributes[name]
        for tag, attributes in tags
        for name in ("src", "srcset", "href", "data", "poster")
        if name in attributes and tag != "a"
    ]
    assert loaded
    assert all(address.startswith(("data:", "#")) for address in loaded)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    page = (folder / "index.html").read_text()
    assert "@import" not in page
    assert set(re.findall(r"url\(.", page)) <= {"url(#"}


def test_the_page_can_be_read_without_seeing_it(tags, folder):
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    drawings = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(pictures) == 1
    assert all(each["alt"] for each in pictures)
    assert all(each["role"] == "img" and each["aria-label"] for each in drawings)
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_a_figure_shows_what_the_run_logged(run, evaluation, results):
    (known,) = read_runs([run], results)
    history = rows_of(run / "history.csv")
    for column in ("loss", "val_loss", "val_top1"):
        (line,) = figures.curve([known], column, column).axes[0].lines
        assert list(line.get_xdata()) == [1, 2, 3]
        assert list(line.get_ydata()) == [float(each[column]) for each in history]
    pace = figures.pace(known)
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = max(line["step"] for line in logged if line["kind"] == "step")
    seconds = np.diff(60 * pace.minutes, prepend=0)
    assert (pace.images_per_s * seconds).sum() == pytest.approx(32 * last)
    for draw in (figures.throughput, figures.input_wait):
        (line,) = draw([known]).axes[0].lines
        assert len(line.get_ydata()) == len(pace.minutes) >= 1
    top1 = json.loads((evaluation / "metrics.json").read_text())["top1"]
    (bubble,) = figures.measured_quadrant([known], "top-1").axes[0].collections
    assert tuple(bubble.get_offsets()[0]) == pytest.approx((known.blueprint.macs / 1e9, 100 * top1))


# As its organisers' results pages have them, to a tenth.
WINNERS = [
    (2010, 28.2),
    (2011, 25.8),
    (2012, 16.4),
    (2013, 11.7),
    (2014, 6.7),
    (2014, 7.3),
    (2015, 3.6),
    (2016, 3.0),
    (2017, 2.3),
]


def test_every_winner_of_the_challenge_is_a_bar_in_its_year():
    cards = [keras_zoo.card(name) for name in ("alexnet", "vgg11_bn", "resnet18", "simple_cnn")]
    axes = charts.winners(cards).axes[0]
    bars = [
        (round(bar.get_x() + bar.get_width() / 2), round(bar.get_height(), 1))
        for bar in axes.patches
    ]
    assert bars == WINNERS
    here = [entry.method for entry in ENTRIES if any(entry.has(card) for card in cards)]
    assert here == ["AlexNet", "VGG", "ResNet"]
    points = {line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"}
    assert points == {100 - card.published.top5 for card in cards if card.published}


def test_a_bar_is_as_long_as_its_stage_and_pauses_are_cut():
    """Two stretches of 60 and 40 seconds, a day apart; the pause is 2% of them."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    second = start + timedelta(days=1)
    busy = [
        (start, start + timedelta(seconds=60)),
        (second, second + timedelta(seconds=40)),
    ]
    assert bar_of(*busy[0], busy) == pytest.approx((0, 60 / 102))
    assert bar_of(*busy[1], busy) == pytest.approx((62 / 102, 40 / 102))
    half = second + timedelta(seconds=20)
    assert bar_of(half, busy[1][1], busy) == pytest.approx((82 / 102, 20 / 102))


def test_runs_of_different_data_are_told_apart(run, unfinished, tmp_path, results):
    other = tmp_path / run.name
    shutil.copytree(unfinished, other)
    sizes = json.loads((other / "data.json").read_text())
    sizes["train"]["images"] += 1
    (other / "data.json").write_text(json.dumps(sizes))
    made = report(ReportConfig([run, other], tmp_path / "report", results))
    # Both folders are called the same.
    assert made.runs == [str(run), str(other)]
    assert "are of different data" in Path(made.page).read_text()


@pytest.fixture(scope="module")
def odd(run, evaluation, tmp_path_factory):
    """A page of three runs with names and gaps that are seldom.

    The first is from before the log of stages, the second ended early and was once killed, the
    third has no files but those of training.
    """
    folder = tmp_path_factory.mktemp("odd")
    old, early, bare = (shutil.copytree(run, folder / name) for name in ("a_1", "a-1", r"a$\foo$"))
    (old / "stages.jsonl").unlink()
    shutil.copytree(evaluation, old / "evaluation")
    told = json.loads((old / "evaluation" / "metrics.json").read_text())
    told["views"] = "ten"
    (old / "evaluation" / "metrics.json").write_text(json.dumps(told))
    shutil.copytree(evaluation, early / "evaluation")
    log = [json.loads(line) for line in (early / "stages.jsonl").read_text().splitlines()]
    log = [line for line in log if line["stage"] == "train"]
    killed = log[0] | {"began": "2026-01-01T00:00:00+00:00"}
    lines = "".join(json.dumps(line) + "\n" for line in (killed, *log))
    (early / "stages.jsonl").write_text(lines)
    history = (early / "history.csv").read_text().splitlines(keepends=True)
    (early / "history.csv").write_text("".join(history[:2]))
    shutil.copytree(evaluation, bare / "evaluation")
    for name in ("environment.json", "data.json", "stages.jsonl"):
        (bare / name).unlink()
    return report(ReportConfig([old, early, bare], folder / "report", folder))


def test_an_evaluation_from_before_the_log_is_found(odd):
    row, *_ = rows_of(Path(odd.page).with_name("comparison.csv"))
    assert float(row["top1"]) > 0
    assert list(odd.missing["a_1"]) == ["export", "benchmark"]


def test_a_run_that_ended_early_is_finished_and_killed_trainings_count_at_least(odd):
    _, row, _ = rows_of(Path(odd.page).with_name("comparison.csv"))
    assert (row["state"], row["epochs"], row["epochs_planned"]) == ("finished", "1", "3")
    assert row["train_killed"] == "1"
    page = Path(odd.page).read_text()
    assert "unfinished" not in page
    assert "1 of 3</span><small>ended early<" in page
    least = f"at least {float(row['train_cpu_s']) / 60:.1f} CPU min"
    assert page.count(least) == 1
    assert "<p>At least " in page


def test_odd_names_and_gaps_spoil_no_page(odd):
    page = Path(odd.page).read_text()
    ids = [attributes["id"] for _, attributes in Tags(page).found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert r"a$\foo$" in page
    assert "number of images not recorded" in page
    assert "None" not in page
    assert "<dd>not recorded</dd>" in page


def test_accuracies_over_different_views_are_warned_of(odd):
    warnings = re.findall(r'<p class="warning">(.*?)</p>', Path(odd.page).read_text())
    assert any("seen differently, ten at 32 px, centre at 32 px" in line for line in warnings)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        (
            {"input": InputSpec(32, channels="RGB", mean=(127.5,) * 3, std=(127.5,) * 3)},
            "--channels RGB",
        ),
        ({"width": 0.5}, "--width 0.5"),
    ],
    ids=["channels", "width"],
)
def test_a_measurement_of_another_network_of_that_name_is_not_taken(
    changes, option, run, results, tmp_path
):
    folder = shutil.copytree(run, tmp_path / "run")
    config = dataclasses.replace(load(TrainConfig, run / "config.yaml"), **changes)
    (folder / "config.yaml").write_text(dump(config))
    (known,) = read_runs([folder], results)
    assert known.inference is None
    command = f"infer simple_cnn --size_px 32 --num_classes 10 {option} --out"
    assert command in known.missing["benchmark"]


def test_runs_of_the_same_data_are_compared_without_a_warning(folder):
    assert 'class="warning"' not in (folder / "index.html").read_text()


def test_a_report_takes_the_place_of_a_report_and_of_nothing_else(
    unfinished, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    config = ReportConfig([unfinished], out, tmp_path)
    report(config)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    (out / ".DS_Store").write_text("left by a file manager")
    report(config)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    with atomic.locked(out), pytest.raises(BadInput, match="in use by another process"):
        report(config)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.chdir(out)
    with pytest.raises(BadInput, match="the folder you are in; choose another --out"):
        report(ReportConfig([unfinished], Path(), tmp_path))
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"notes\.txt.*no report; choose another --out"):
        report(config)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(BadInput, match="no run in"):
        report(ReportConfig([tmp_path / "none"], tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not CHROMIUM, reason="apt-get install -y chromium --no-install-recommends")
def test_on_a_phone_nothing_leaves_the_screen_and_nothing_is_asked_for(made):
    amiss = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 375, "height": 700})
        page.on("console", lambda line: amiss.append(line.text))
        page.on("pageerror", lambda error: amiss.append(str(error)))
        page.on("request", lambda request: amiss.append(request.url))
        address = Path(made.page).resolve().as_uri()
        page.goto(address)
        too_wide = page.evaluate("""() => [...document.querySelectorAll('body *')].filter(each =>
            each.getBoundingClientRect().right > innerWidth + 1
            && !each.closest('.wide, .large, .medium, svg'))
            .map(each => each.outerHTML.slice(0, 99))""")
        empty = page.evaluate("""() => [...document.querySelectorAll('svg, img')].filter(each =>
            each.getBoundingClientRect().height < 50 || each.naturalWidth === 0).length""")
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        chromium.close()
    assert too_wide == []
    assert empty == 0
    assert [url for url in amiss if not url.startswith("data:")] == [address]
