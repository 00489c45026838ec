# The commands of this repository. `make` without arguments lists them.
# Everything is installed into $(VENV); nothing else on the machine is changed.

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The newest Python that the wheel of Redis supports, or else any supported version.
PYTHON ?= $(shell for python in python3.12 python3.11 python3 python3.13 python3.14; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help run compose test test-slow test-replica test-all coverage e2e fuzz bench bench-peers bench-smoke lint format types schema web web-check helm lock check

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv installs in a tenth of pip's time. If uv is not on PATH, pip installs the locked uv first; if uv
# fails (it does not read pip's configuration), pip installs everything.
# The lock file is complete. Without --no-deps an older pip looks for the newest version of a
# package that has an extra, and then rejects it because another version is locked.
LOCKED := --no-deps --require-hashes --requirement requirements-dev.lock
PIP := $(BIN)/python -m pip --disable-pip-version-check

$(INSTALLED): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed (with venv)"; exit 1; }
	@echo "1/2 Installing the locked packages into $(VENV): once, usually 15 to 60 seconds ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@uv=$$(command -v uv) || { \
		sed -n '/^uv==/,/[^\]$$/p' requirements-dev.lock > $(VENV)/uv.lock; \
		$(PIP) install --no-deps --require-hashes --requirement $(VENV)/uv.lock; \
		uv=$(BIN)/uv; \
	}; \
	VIRTUAL_ENV=$(VENV) $$uv pip install --compile-bytecode $(LOCKED) || { \
		echo "uv failed; installing with pip, usually in one to three minutes ..."; \
		$(PIP) install $(LOCKED); \
	}
	@echo "2/2 Installing SegmentQL itself ..."
	@$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	@$(PIP) check --quiet
	@$(BIN)/python -m compileall -q src  # imports take most of the time of a start
	@touch $@

run: $(INSTALLED) ## Run everything on this machine: PostgreSQL, Redis, store, worker, API, console
	@$(BIN)/python web/build.py --if-stale
	@exec $(BIN)/segmentql up $(ARGS)

compose: ## Run everything in containers: needs Docker; writes .env with passwords once
	@$(PYTHON) compose/write_env.py
	docker compose up --build --wait --remove-orphans

# Each process has its own servers. T chooses files or tests: make test T=tests/users
PYTEST := $(BIN)/python -m pytest --numprocesses auto

test: $(INSTALLED) ## Run the tests against a real PostgreSQL, Redis and store; T=path runs one file or test
	$(if $(T),$(BIN)/python -m pytest -m "" $(ARGS) $(T),$(PYTEST) $(ARGS))

test-slow: $(INSTALLED) ## Run the slow tests: those that wait for timeouts or stop servers
	$(PYTEST) -m "slow and not e2e" $(ARGS)

test-replica: $(INSTALLED) ## Run the tests of the features with a synchronous standby that serves the reads
	SEGMENTQL_TEST_REPLICA=1 $(PYTEST) $(addprefix tests/,graphql users segments memberships rollouts history explain feed ofrep) $(ARGS)

test-all: $(INSTALLED) ## Run the tests and the slow tests
	$(PYTEST) -m "not e2e" $(ARGS)

coverage: $(INSTALLED) ## Run the tests and the slow tests, and measure their branch coverage
	$(PYTEST) -m "not e2e" --cov --cov-report=term $(ARGS)

e2e: $(INSTALLED) ## Test the whole service: processes, signals, crashes and a browser
	@$(BIN)/python web/build.py --if-stale --strict
	$(BIN)/python -m pytest -m e2e $(ARGS)

fuzz: $(INSTALLED) ## Send ten thousand valid and invalid requests to a server, and check its memory
	$(BIN)/python -m pytest -m e2e tests/e2e/test_fuzz.py -o log_cli=true -o log_cli_level=INFO $(ARGS)

bench: $(INSTALLED) ## Compare with peers and print a table of ratios, then run 100 rounds of random kills
	$(BIN)/python -m bench run $(ARGS)
	$(BIN)/python -m bench chaos

bench-peers: $(INSTALLED) ## Install PostGraphile for the benchmark, and a Node that it supports
	$(BIN)/python -m bench peers

bench-smoke: $(INSTALLED) ## Run the whole benchmark at toy size, without targets
	@$(BIN)/python -m bench run --smoke $(ARGS)

lint: $(INSTALLED) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED) ## Fix style and formatting where possible
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED) ## Check the types
	$(BIN)/mypy

schema: $(INSTALLED) ## Write the GraphQL schema to schema.graphql
	$(BIN)/segmentql schema > schema.graphql

web: $(INSTALLED) ## Build the console and the GraphiQL page
	$(BIN)/python web/build.py --strict

web-check: $(INSTALLED) ## Check the sources of the pages, and build them
	$(BIN)/python web/build.py --check

helm: $(INSTALLED) ## Download helm and the schemas of Kubernetes, for the tests of the chart
	$(BIN)/python helm/install_tools.py

lock: $(INSTALLED) ## Update the lock files to the newest versions
	{ echo hatchling; sed -n 's/^NODE_WHEEL = "\(.*\)"$$/\1/p' web/build.py; } \
		| $(BIN)/uv pip compile - --quiet --upgrade --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file requirements-build.lock
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
		--extra tracing \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
		--extra tracing --extra local --extra dev --constraint requirements.lock \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--output-file requirements-dev.lock

check: test lint types ## Run the tests, the linter and the type checker
