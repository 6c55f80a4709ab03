# make reproduce   run the toy study (the whole paper in miniature) and build its report
# make test        run lint, type checks and the fast tests
# make docs        build the documentation in site/
# Each target builds .venv on its first run. PYTHON=... selects the interpreter (3.11 or newer).

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: reproduce test docs lint clean

reproduce: .venv/core.stamp
	$(BIN)/tldr-lab study run configs/toy.yaml
	$(BIN)/tldr-lab report configs/toy.yaml --beside results/toy

# Three workers on two cores: tests that start a study or a server wait for it a quarter of the time.
test: lint
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow" --durations=15

docs: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/core.stamp: pyproject.toml constraints.txt | .venv
	$(INSTALL) --editable '.[fast-rouge]' || $(INSTALL) --editable .
	touch $@

.venv/docs.stamp: pyproject.toml constraints.txt | .venv
	$(INSTALL) --editable '.[docs]'
	touch $@ .venv/core.stamp

.venv/test.stamp: pyproject.toml constraints.txt | .venv
	$(INSTALL) --editable '.[test]'
	touch $@ .venv/core.stamp

.venv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and none was found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
