# make demo    the main job on the embedded data: prepare, train, evaluate, export
# make test    the tests; test-slow, test-peers and test-beam run those it leaves out
# make docs    the documentation as a site that opens from disk: site/index.html
# They make .venv and install what they need the first time, and reuse it afterwards.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo docs test test-slow test-peers test-beam lint clean

demo: .venv/.installed
	$(BIN)/python -m pipelines --config pipelines/recipes/demo.yaml

test: .venv/.installed-dev
	$(BIN)/python -m pytest

# torchvision and timm without what they depend on: it would replace a CPU build of torch.
test-peers: .venv/.installed-dev
	$(BIN)/python -m pip install --quiet torch==2.13.0 huggingface_hub pyyaml
	$(BIN)/python -m pip install --quiet --no-deps torchvision==0.29.2 timm==1.0.31
	$(BIN)/python -m pytest -m peers

test-slow: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow

# The last in .ci/run: Beam takes an older protobuf into the environment than the rest would.
test-beam: .venv/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[dev,beam]'
	$(BIN)/python -m pytest -m beam

# The variable silences Material's advertisement of its successor.
docs: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv

.venv/.installed: setup.cfg pyproject.toml
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
