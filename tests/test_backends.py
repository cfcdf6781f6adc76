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


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_weights_give_the_same_logits_under_another_backend(backend, folder):
    if backend == keras.backend.backend():
        pytest.skip("the backend that the others are compared with")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    subprocess.run(
        [sys.executable, TESTS / "backend_logits.py", folder],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(TESTS.parent)},
        check=True,
    )
    here, there = np.load(folder / "here.npz"), np.load(folder / f"{backend}.npz")
    for name in backend_logits.SIZES_PX:
        difference = np.abs(here[name] - there[name]).max() / np.abs(here[name]).max()
        print(f"{name} {difference:.1e}")
        assert difference < 1e-5, name
