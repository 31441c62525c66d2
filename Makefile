# The whole of the project's housekeeping. Every target sets up what it needs.
PYTHON := .venv/bin/python
SOURCES := schemas workers jobs cluster
PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: help setup demo test test-all test-cluster bench check format lock clean

help: ## what each target does
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: ## the environment in .venv, from requirements.lock
	@sh tools/setup.sh

demo: setup ## the main job end to end on generated phantoms, or on the images of DATA=dir
	@sh tools/demo.sh $(if $(DATA),"$(DATA)")

test: setup ## the tests, but for the slow ones (PYTEST_ARGS="-k decode")
	@$(PYTHON) -m pytest -n auto --dist loadgroup $(PYTEST_ARGS)

test-all: setup ## all tests
	@$(PYTHON) -m pytest -m "" $(PYTEST_ARGS)

test-cluster: setup ## the tests that take nodes, networks and drivers away (as root on Linux: all of them)
	@$(PYTHON) -m pytest -m nodes tests/cluster/nodes $(PYTEST_ARGS)

bench: setup ## the measured ratios, within 40 minutes (WRITE=1 puts them into README; BENCH_ARGS="--list")
	@$(PYTHON) -m benchmarks $(if $(WRITE),--write) $(BENCH_ARGS)

check: setup ## format, lint, types, layers
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: setup ## rewrite the sources in the project's format
	@.venv/bin/ruff check --fix --exit-zero .
	@.venv/bin/ruff format .

lock: setup ## requirements.lock anew from pyproject.toml (add UPGRADE=1 for newer versions)
	@.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	    $(if $(UPGRADE),--upgrade) --group dev pyproject.toml -o requirements.lock

clean: ## everything that can be made again
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find $(SOURCES) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
