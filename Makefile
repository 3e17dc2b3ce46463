# Two commands: `make demo` and `make test`; `make help` lists the others. Each makes .venv if it is missing and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo

TORTURE := build/torture.jsonl

.PHONY: demo test lint pytest torture coverage bench docs wheel release-check clean help

demo: $(VENV)/.core ## train on 5,000 real digits, fit two densities, sample, score (the default)
	rm -rf $(RUN)
	$(BIN)/expost train rae-l2 --data mnist-5k --width 16 --epochs 20 --out $(RUN)
	$(BIN)/expost fit $(RUN) --density gaussian
	$(BIN)/expost fit $(RUN) --density gmm --components 10
	$(BIN)/expost sample $(RUN) --density gaussian -n 100 --out $(RUN)/samples-gaussian.png
	$(BIN)/expost sample $(RUN) --density gmm -n 100 --out $(RUN)/samples-gmm.png
	$(BIN)/expost reconstruct $(RUN) --out $(RUN)/reconstructions.png
	$(BIN)/expost interpolate $(RUN) --out $(RUN)/interpolations.png
	$(BIN)/expost evaluate $(RUN) --features digits
	@echo "pictures and scores: $(RUN)/*.png, $(RUN)/metrics.json"

test: lint ## lint and test; a part of the tests: make test PYTEST="tests/densities -k gmm"
	@$(MAKE) --no-print-directory pytest

lint: $(VENV)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/lint-imports --no-cache

pytest: $(VENV)/.dev ## the tests alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST)

torture: $(VENV)/.dev ## the long tests of reliability (40 minutes on 2 cores), and a table of what they tried
	mkdir -p $(dir $(TORTURE)) && rm -f $(TORTURE)
	EXPOST_TORTURE=$(abspath $(TORTURE)) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal tests/reliability $(PYTEST)
	$(BIN)/python scripts/torture_table.py $(TORTURE)

coverage: $(VENV)/.dev ## the tests, and how much of the lines and branches they run; no threshold
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term:skip-covered $(PYTEST)

bench: $(VENV)/.dev ## time steps, mixtures, distances, parsing against other packages
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,peers]'
	for script in train_step encode mixture frechet sample end_to_end parse decode; do \
	  echo "== $$script"; $(BIN)/python benchmarks/$$script.py --json || exit 1; done

docs: $(VENV)/.dev ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open site/index.html"

wheel: $(VENV)/.dev ## build source distribution and wheel into dist/
	$(BIN)/python -m build

release-check: $(VENV)/.dev ## version, date and citation agree; then build the wheel, install it elsewhere, train with it
	$(BIN)/python scripts/release_check.py

clean: ## remove what is built: .venv, dist, caches
	rm -rf $(VENV) build dist .coverage .mypy_cache .pytest_cache .ruff_cache

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.core
