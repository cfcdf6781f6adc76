"""A prepared data set, a trained run and an exported model, made once and shared by the tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.command import parse
from pipelines.config import ExportConfig, PrepareConfig, TrainConfig

RECIPE = Path(__file__).parents[1] / "pipelines" / "recipes" / "simple_cnn.demo.yaml"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="session")
def digits(workplace):
    """The embedded digits as a prepared data set."""
    from pipelines.data.preparation import prepare

    out = workplace / "digits"
    prepare(PrepareConfig("digits", out, holdout_fraction=0.2))
    return out


def digits_config(data: Path, run: Path, *overrides: str) -> TrainConfig:
    """The demo's recipe on prepared digits."""
    arguments = ["--config", str(RECIPE), "--data", str(data), "--run", str(run), *overrides]
    return parse(TrainConfig, arguments)


@pytest.fixture(scope="session")
def run(digits, workplace):
    """SimpleCNN trained on the digits for three epochs."""
    from pipelines.training.fit import train

    folder = workplace / "runs" / "digits"
    train(digits_config(digits, folder, "--epochs", "3"))
    return folder


@pytest.fixture(scope="session")
def saved_models(run, workplace):
    """A folder with one exported model, `digits`."""
    from pipelines.serving.saved_model import export

    folder = workplace / "saved_models"
    export(ExportConfig(run, folder / "digits"))
    return folder


@pytest.fixture(scope="session")
def command():
    """Runs `python -m ARGUMENTS` in a process of its own and captures what it prints."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)], cwd=cwd, capture_output=True, text=True
        )

    return run
