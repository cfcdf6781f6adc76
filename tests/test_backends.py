"""The same weights file gives the same logits whatever Keras computes with."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import backend_logits
import formula
import keras
import numpy as np
import pytest

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights by formula of one network of each family, and their logits under this backend."""
    folder = tmp_path_factory.mktemp("weights")
    answers = {}
    for name in backend_logits.SIZES_PX:
        model = backend_logits.small(name)
        for layer in model.layers:
            for variable in layer.weights:
                path = f"{layer.name}/{variable.name}"
                variable.assign(formula.weight(path, tuple(variable.shape)))
        model.save_weights(folder / f"{name}.weights.h5")
        answers[name] = backend_logits.logits(name, model)
        keras.utils.clear_session()
    np.savez(folder / "here.npz", **answers)
    yield folder
    for path in folder.iterdir():
        path.unlink()


def other(backend: str):
    """A parameter, skipped where there is nothing to compare."""
    reason = (
        "the others are compared with it"
        if backend == keras.backend.backend()
        else "not installed"
        if importlib.util.find_spec(backend) is None
        else ""
    )
    return pytest.param(backend, marks=pytest.mark.skipif(bool(reason), reason=reason))


@pytest.mark.slow
@pytest.mark.parametrize("backend", [other("tensorflow"), other("jax"), other("torch")])
def test_weights_give_the_same_logits_under_another_backend(backend, folder):
    environment = {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(TESTS.parent),
        # Compiling the initialisers is most of the time under JAX: compile them quickly.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    subprocess.run(
        [sys.executable, TESTS / "backend_logits.py", folder],
        env=os.environ | environment,
        check=True,
    )
    here, there = np.load(folder / "here.npz"), np.load(folder / f"{backend}.npz")
    for name in backend_logits.SIZES_PX:
        difference = np.abs(here[name] - there[name]).max() / np.abs(here[name]).max()
        print(f"{name} {difference:.1e}")
        assert difference < 1e-5, name
