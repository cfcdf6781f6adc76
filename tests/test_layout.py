"""The direction of imports: keras_zoo <- pipelines <- tuning."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "keras_zoo": {"tensorflow", "torch", "torchvision", "timm", "jax", "pipelines", "tuning"},
    "pipelines": {"tuning"},
    "tuning": set(),
}


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_nothing_imports_upward(package):
    for file in (ROOT / package).rglob("*.py"):
        assert not imported(file) & FORBIDDEN[package], file


def test_a_stage_never_imports_another_stage():
    stages = {f"pipelines.{file.stem}" for file in (ROOT / "pipelines").glob("*.py")}
    names = ("atomic", "command", "config", "errors", "stage_log")
    shared = {f"pipelines.{name}" for name in names}
    for file in (ROOT / "pipelines").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in stages - shared, (file, node.module)
