"""Arguments, YAML and errors of the commands, without TensorFlow."""

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

from keras_zoo import card
from pipelines.command import dump, load, parse
from pipelines.config import (
    ExportConfig,
    InferBenchmarkConfig,
    PrepareConfig,
    TrainConfig,
    WorkflowConfig,
)
from pipelines.errors import BadInput

COMMANDS = (
    "keras_zoo",
    "pipelines",
    "pipelines.predict",
    "pipelines.prepare",
    "pipelines.train",
    "pipelines.benchmark",
    "pipelines.data_service",
    "pipelines.evaluate",
    "pipelines.export",
    "pipelines.serve",
    "tuning.results",
    "tuning.search",
    "tuning.worker",
)


def test_what_is_dumped_reads_back_equal(tmp_path):
    config = parse(TrainConfig, ["data", "--network", "simple_cnn", "--epochs", "7"])
    file = tmp_path / "config.yaml"
    file.write_text(dump(config))
    assert load(TrainConfig, file) == config


def test_the_network_brings_its_own_input_and_run_folder():
    config = parse(TrainConfig, ["data", "--network", "simple_cnn", "--input.size_px", "40"])
    assert config.input.size_px == 40
    assert config.input.channels == card("simple_cnn").input.channels == "L"
    assert str(config.run) == "runs/simple_cnn"


def test_weights_bring_the_input_they_were_trained_with():
    keras_vgg = ["data", "--network", "vgg16", "--init", "imagenet-keras"]
    assert parse(TrainConfig, keras_vgg).input.channels == "BGR"
    assert parse(TrainConfig, ["data", "--network", "vgg16"]).input.channels == "RGB"
    with pytest.raises(BadInput, match="imagenet-keras"):
        parse(TrainConfig, ["data", "--network", "vgg16", "--init", "imaginary"])


def test_commands_that_take_weights_or_a_network_alone_are_parsed():
    exported = parse(ExportConfig, ["resnet18", "--out", "o", "--init", "imagenet"])
    assert (str(exported.source), exported.init) == ("resnet18", "imagenet")
    assert parse(InferBenchmarkConfig, ["resnet18"]).network == "resnet18"


def test_later_arguments_win_over_the_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("epochs: 5\noptimizer: {base_lr: 0.3}\nschedule: {warmup_epochs: 1}\n")
    config = parse(TrainConfig, ["data", "--config", str(file), "--optimizer.base_lr", "0.7"])
    assert (config.epochs, config.optimizer.base_lr) == (5, 0.7)


def test_options_may_be_written_with_dashes_and_values_keep_theirs():
    given = ["data", "--global-batch-size=8", "--run", "a-b", "--train-split=train[:9%]"]
    config = parse(TrainConfig, given)
    assert (config.global_batch_size, str(config.run)) == (8, "a-b")
    assert str(parse(TrainConfig, ["data", "--run=a-b"]).run) == "a-b"
    assert config.train_split == "train[:9%]"


def test_keys_that_a_person_chose_keep_their_dashes():
    given = ["digits", "--out", "d", "--runner", "R", "--beam-options.my-key", "x"]
    assert parse(PrepareConfig, given).beam_options == {"my-key": "x"}
    with pytest.raises(BadInput, match="tests has 'my-set'; letters, digits and _"):
        parse(PrepareConfig, ["digits", "--out", "d", "--tests.my-set", "folder"])
    nested = ["--prepare.source", "digits", "--prepare.out", "d", "--train.run", "r"]
    flip = ["--export.out", "s", "--train.augment.horizontal-flip", "false"]
    assert not parse(WorkflowConfig, [*nested, *flip]).train.augment.horizontal_flip


@pytest.mark.parametrize(
    ("given", "understood"),
    [("[a,b]", ["a", "b"]), ("123", 123), ("true", True), ("HOST:80", "HOST:80")],
)
def test_an_option_of_a_runner_is_of_any_type_that_beam_takes(given, understood, tmp_path):
    arguments = ["digits", "--out", "d", "--runner", "R", "--beam_options.some", given]
    config = parse(PrepareConfig, arguments)
    assert config.beam_options == {"some": understood}
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load(PrepareConfig, tmp_path / "config.yaml") == config


def test_the_learning_rate_scales_with_the_batch():
    config = parse(TrainConfig, ["data", "--global_batch_size", "512", "--optimizer.base_lr", "1"])
    assert config.peak_lr == 2.0


def test_one_stage_feeds_the_next():
    folders = ["--prepare.out", "d", "--train.run", "r", "--export.out", "s"]
    config = parse(WorkflowConfig, ["--prepare.source", "digits", *folders])
    assert config.train.data == config.prepare.out
    assert config.export.source == config.train.run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--network", "resnet5"], "unknown network 'resnet5'; did you mean 'resnet50'?"),
        (["--epoch", "3"], "did you mean 'epochs'?"),
        (["--optimizer.base", "3"], "did you mean 'optimizer.base_lr'?"),
        (["--epochs", "three"], "three"),
        (["--epochs", "0"], "epochs is 0; at least 1"),
        (["--epochs", "5"], "not below the 5 epochs; give a smaller --schedule.warmup_epochs"),
        (["--input.size_px", "16"], "resnet50 needs at least 32"),
        (["--input.mean", "[1.0]"], "channels 'RGB' take 3"),
        (["--optimizer.momentum", "1"], "it lies in [0, 1)"),
        (["--augment.crop_area", "[0.5, 0.1]"], "0 < low <= high <= 1"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--workers", "foo"], "workers has 'foo'; HOST:PORT"),
        (["--workers", "a:1, b:1"], "workers has ' b:1'; HOST:PORT"),
        (["--workers", "a:1,127.0.0.1:abc"], "workers has '127.0.0.1:abc'; HOST:PORT"),
        (["--workers", "a:1,b:65536"], "a port from 1 to 65535"),
        (["--workers", "a:1,a:1"], "workers has 'a:1' twice"),
        (["--workers", "a:1,[::1]:1", "--worker_index", "2"], "below the number of workers"),
    ],
)
def test_a_bad_argument_is_named_in_one_line(arguments, told):
    with pytest.raises(BadInput) as error:
        parse(TrainConfig, ["data", *arguments])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Several:
    """All leading arguments are one field."""

    names: list[str]
    size_px: int = 1

    rest_field: ClassVar = "names"


def test_all_leading_arguments_may_be_one_field():
    assert parse(Several, ["a", "b c", "--size_px", "2"]) == Several(["a", "b c"], 2)
    assert parse(Several, ["a"]) == Several(["a"])
    with pytest.raises(BadInput, match="required: --names"):
        parse(Several, [])


def test_an_unknown_key_in_a_file_is_named(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("optimizer: {base_rl: 0.3}\n")
    with pytest.raises(BadInput, match=r"base_rl.*did you mean 'optimizer.base_lr'"):
        parse(TrainConfig, ["data", "--config", str(file)])


def test_what_is_required_is_asked_for():
    with pytest.raises(BadInput, match="out"):
        parse(PrepareConfig, ["digits"])


def test_a_recipe_of_another_command_is_refused():
    with pytest.raises(BadInput, match=r"the recipe 'demo' has 'export', .* python -m pipelines"):
        parse(TrainConfig, ["d", "--recipe", "demo"])


def test_help_needs_no_framework():
    """In a process each, all at once: what `--help` imports shows in `sys.modules`."""
    script = (
        "import runpy, sys; module = sys.argv.pop(1)\n"
        "try: runpy.run_module(module, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code, end\n"
        "heavy = {'tensorflow', 'keras', 'keras_tuner', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    lines = [(module, "--help") for module in COMMANDS]
    lines += [("keras_zoo", "list"), ("keras_zoo", "show", "resnet50")]
    lines += [("pipelines.benchmark", subject, "--help") for subject in ("input", "infer")]
    processes = [
        (line, subprocess.Popen([sys.executable, "-c", script, *line], stdout=subprocess.PIPE))
        for line in lines
    ]
    for line, process in processes:
        printed, _ = process.communicate()
        assert process.returncode == 0, line
        assert printed, line


def test_help_shows_the_short_form(command):
    printed = command("pipelines.prepare", "--help").stdout
    assert "usage: python -m pipelines.prepare SOURCE [--option VALUE ...]" in printed


def test_the_command_line_ends_with_status_2_and_one_line(command, tmp_path):
    done = command("pipelines.train", "data", "--network", "resnet5", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: unknown network 'resnet5'")
    assert list(tmp_path.iterdir()) == []


def test_print_config_needs_nothing_else(command):
    done = command("pipelines.train", "--print_config")
    assert done.returncode == 0
    assert "data: null" in done.stdout
    assert "network: resnet50" in done.stdout


def test_print_config_prints_what_would_run(command):
    done = command("pipelines.train", "data", "--network", "simple_cnn", "--print_config")
    assert done.returncode == 0
    assert "size_px: 32" in done.stdout
