# Every verb of this repository; `make` alone explains them.
# All that is installed goes into $(VENV); nothing else on the machine is changed.

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The newest Python that Redis' wheel covers, else any that is new enough.
PYTHON ?= $(shell for python in python3.12 python3.11 python3 python3.13 python3.14; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help run compose test e2e fuzz bench bench-smoke lint format types schema explorer lock check

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The lock file is complete. Without --no-deps an older pip looks for the newest of a package that
# is asked for with an extra, and refuses it for not being the one that is locked.
$(INSTALLED): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed (with venv)"; exit 1; }
	@echo "Installing into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --require-hashes --requirement requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --no-deps --editable .
	@$(BIN)/python -m pip check --quiet --disable-pip-version-check
	@$(BIN)/python -m compileall -q src  # a start spends its time on imports
	@touch $@

run: $(INSTALLED) ## Run everything on this machine: PostgreSQL, Redis, store, worker, API, GraphiQL
	@$(BIN)/python explorer/build.py --if-stale
	@exec $(BIN)/segmentql up $(ARGS)

compose: ## Run everything in containers: needs Docker; writes .env with passwords once
	@$(PYTHON) compose/write_env.py
	docker compose up --build --wait

test: $(INSTALLED) ## Run the tests against a real PostgreSQL, Redis and store; prints branch coverage
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

e2e: $(INSTALLED) ## Run the whole service as a user would: processes, signals, crashes, a browser
	@$(BIN)/python explorer/build.py --if-stale --strict
	$(BIN)/python -m pytest -m e2e $(ARGS)

fuzz: $(INSTALLED) ## Send a server ten thousand requests, right and wrong ones, and watch its memory
	$(BIN)/python -m pytest -m e2e tests/e2e/test_fuzz.py -o log_cli=true -o log_cli_level=INFO $(ARGS)

bench: $(INSTALLED) ## Measure against peers and print a table of ratios, then 100 rounds of random kills
	$(BIN)/python -m bench run $(ARGS)
	$(BIN)/python -m bench chaos

bench-smoke: $(INSTALLED) ## Try the whole benchmark at toy size, judging no time
	@$(BIN)/python -m bench run --smoke $(ARGS)

lint: $(INSTALLED) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED) ## Mend style and formatting where that can be done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED) ## Check types, strictly
	$(BIN)/mypy

schema: $(INSTALLED) ## Print the GraphQL schema into schema.graphql
	$(BIN)/segmentql schema > schema.graphql

explorer: $(INSTALLED) ## Build the GraphiQL page
	$(BIN)/python explorer/build.py --strict

lock: $(INSTALLED) ## Choose the newest versions and write the lock files
	echo hatchling | $(BIN)/uv pip compile - --quiet --upgrade --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file requirements-build.lock
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
		--extra local --extra dev --constraint requirements.lock \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--output-file requirements-dev.lock

check: test lint types ## All that must pass before a change is done
