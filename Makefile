# Two commands: `make demo` and `make test`. Each makes .venv if it is missing and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo

.PHONY: demo test bench docs wheel clean

demo: $(VENV)/.core
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

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST)

bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,peers]'
	for script in train_step encode mixture frechet sample end_to_end parse decode; do \
	  echo "== $$script"; $(BIN)/python benchmarks/$$script.py --json || exit 1; done

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open site/index.html"

wheel: $(VENV)/.dev
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

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
