# make demo    the main job on the embedded data: prepare, train, evaluate, export
# make test    the tests
# Both make .venv and install what they need the first time, and reuse it afterwards.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint clean

demo: .venv/.installed
	$(BIN)/python -m pipelines --config pipelines/recipes/demo.yaml

test: .venv/.installed-dev
	$(BIN)/python -m pytest

test-slow: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv

.venv/.installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
