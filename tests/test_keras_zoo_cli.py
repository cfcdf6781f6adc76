"""`python -m keras_zoo` as a person types it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_zoo import build, card, list_models
from keras_zoo.__main__ import main
from keras_zoo.charts import mosaic

CARDS_ONLY = """
import contextlib, io, sys
before = set(sys.modules)
from keras_zoo.__main__ import main
for line in sys.stdin.read().splitlines():
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(line.split())
    assert out.getvalue(), line
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded - set(sys.stdlib_module_names)))
"""


def _answer(capsys, *argv):
    assert main(list(argv)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def _refusal(capsys, *argv):
    """The one line on stderr of a command that ends with status 2."""
    try:
        status = main(list(argv))
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    return line


def test_cards_and_help_are_answered_by_the_standard_library_alone():
    lines = ["list", "list --json", "show vgg16", "show vgg16 --json", "timeline"]
    lines += ["compare alexnet vgg16", "--help"]
    lines += [
        f"{command} --help"
        for command in ("list", "show", "plot", "filters", "timeline", "compare")
    ]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", CARDS_ONLY],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "['keras_zoo']\n"


def test_charts_are_drawn_without_a_framework(tmp_path):
    code = (
        "import sys; from keras_zoo.__main__ import main; main(sys.argv[1:]); "
        "print(sorted({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    path = tmp_path / "chart.svg"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "compare", "alexnet", "vgg16", "--out", path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines()[-1] == "[]"
    assert path.read_text().startswith("<?xml")


def test_the_module_is_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "keras_zoo", "show", "resnet5"], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    assert "resnet50" in line


def test_list_has_a_line_for_every_network(capsys):
    lines = _answer(capsys, "list").splitlines()[1:-1]
    assert [line.split()[0] for line in lines] == list_models()


def test_list_is_filtered_by_family_and_year(capsys):
    records = json.loads(_answer(capsys, "list", "--json", "--family", "vgg", "--year", "2014"))
    assert {record["family"] for record in records} == {"vgg"}
    assert len(records) == 8
    records = json.loads(_answer(capsys, "list", "--json", "--year", "2015"))
    assert {record["paper"]["year"] for record in records} == {2015}
    assert {record["name"] for record in records} >= {"resnet50", "inception_v3"}


def test_show_gives_the_card_the_deviations_and_the_weights(capsys):
    shown = _answer(capsys, "show", "vgg16")
    row = card("vgg16")
    for fact in (row.paper.title, f"{row.parameters:,}", "Deviations:", "vgg16-397923af.pth"):
        assert fact in shown
    assert "BGR" in shown


def test_show_layers_adds_up_to_the_card(capsys):
    shown = json.loads(_answer(capsys, "show", "alexnet", "--layers", "--json"))
    assert sum(layer["parameters"] for layer in shown["layers"]) == shown["parameters"]
    macs = sum(layer["macs"] for layer in shown["layers"])
    assert macs / 1e9 == pytest.approx(shown["gmacs"], rel=0.02)
    table = _answer(capsys, "show", "alexnet", "--layers")
    assert table.splitlines()[-1].split() == ["total", f"{shown['parameters']:,}", f"{macs:,}"]
    assert "55 x 55 x 96" in table


def test_a_network_without_a_paper_has_no_year(capsys, tmp_path):
    assert "315,146" in _answer(capsys, "show", "simple_cnn")
    (line,) = [x for x in _answer(capsys, "list").splitlines() if x.startswith("simple_cnn")]
    assert line.split()[:2] == ["simple_cnn", "-"]
    assert "2012" in _refusal(capsys, "list", "--year", "1998")
    _answer(capsys, "plot", "simple_cnn", "--out", str(tmp_path / "a.svg"))


def test_timeline_has_every_paper_in_the_order_of_the_years(capsys):
    records = json.loads(_answer(capsys, "timeline", "--json"))
    years = [record["paper"]["year"] for record in records]
    assert years == sorted(years)
    named = {record["name"] for record in records}
    assert named == {name for name in list_models() if card(name).paper}


def test_compare_keeps_the_order_asked_for(capsys):
    lines = _answer(capsys, "compare", "vgg16", "alexnet").splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["vgg16", "alexnet"]
    assert "138,357,544" in lines[1]


@pytest.mark.parametrize("file", ["drawing.svg", "drawing.png"])
def test_plot_writes_the_file_and_nothing_else(capsys, tmp_path, file):
    assert file in _answer(capsys, "plot", "resnet18", "--out", str(tmp_path / file))
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_without_matplotlib_a_chart_says_what_to_install(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "keras_zoo.charts", raising=False)
    monkeypatch.delattr("keras_zoo.charts", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install matplotlib" in _refusal(capsys, "timeline", "--out", "a.svg")


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["show", "vgg"], ["'vgg'", "vgg1"]),
        (["plot", "vgg", "--out", "a.svg"], ["'vgg'"]),
        (["compare", "alexnet", "vgg"], ["'vgg'"]),
        (["list", "--family", "vggs"], ["vggs", "vgg", "resnet"]),
        (["list", "--year", "2011"], ["2011", "2012, 2013, 2014"]),
        (["list", "--year", "soon"], ["--year", "'soon'"]),
        (["plot", "resnet18", "--out", "a.gif"], ["a.gif", ".svg or .png"]),
        (["plot", "resnet18", "--out", "nowhere/a.svg"], ["nowhere", "make it"]),
        (["timeline", "--out", "a.pdf"], ["a.pdf", ".svg or .png"]),
        (["compare", "simple_cnn", "--out", "a.svg"], ["no published accuracy"]),
        (["plot", "resnet18"], ["--out"]),
        (["draw"], ["'draw'"]),
        ([], ["COMMAND"]),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, argv, parts):
    line = _refusal(capsys, *argv)
    assert all(part in line for part in parts)


def test_filters_stand_side_by_side_and_zero_is_grey():
    kernel = np.zeros((3, 2, 3, 5), np.float32)
    kernel[1, 0, :, 3] = [0.2, -0.4, 0.1]
    picture = mosaic(kernel)
    # Four in a row: the fourth ends the first, the fifth begins the second.
    assert picture.shape == (3 + 1 + 3, 4 * 2 + 3, 3)
    np.testing.assert_allclose(picture[1, 3 * 3], [0.75, 0, 0.625])
    assert (picture[4:, :2] == 0.5).all()
    assert (picture[4:, 3:] == 1).all()
    assert (picture[3] == 1).all()
    assert (picture[:, 2] == 1).all()


def test_filters_of_a_file_of_weights_are_drawn(tmp_path, capsys):
    model = build("simple_cnn")
    model.save_weights(tmp_path / "a.weights.h5")
    out = tmp_path / "filters.png"
    told = _answer(
        capsys, "filters", "simple_cnn", str(tmp_path / "a.weights.h5"), "--out", str(out)
    )
    assert told == f"the first filters of simple_cnn are drawn in {out}\n"
    with Image.open(out) as picture:
        # The greys of many weights, and not only ink and paper.
        assert len(picture.convert("L").getcolors()) > 100
    line = _refusal(capsys, "filters", "simple_cnn", "imagenet", "--out", str(out))
    assert "unknown weights 'imagenet' for simple_cnn; its sets: none published" in line
