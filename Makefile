# make demo, make test: all that a fresh machine needs is python3 (3.11 or newer) and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
SHIPPED := flows slackbot deployments
ARGS ?= win
PYTEST_ARGS ?= -n 2 --dist loadfile

export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# containers often set it; then each of the many processes compiles all that it imports, for seconds
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test coverage lint format lock simulate-verdicts mutation bench-verdict bench-emergency bench-slack bench-drift fuzz-slack faults races planted-causes pictures clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## create .venv and install the pinned, hash-checked requirements

$(INSTALLED): requirements.txt requirements-uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "fraud-ab needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	$(BIN)/uv pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## the whole story on the embedded stack; ARGS="win --decide confirm --no-browser"
	@$(BIN)/fraud-ab demo $(ARGS)

test: setup  ## all tests; those that need Chromium, Prometheus or the shared API server skip by name where these are missing
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: setup  ## the unit tests alone must take every branch of the domain
	$(BIN)/python -m pytest -q tests/unit/flows tests/unit/slackbot --cov=flows.domain --cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered

lint: setup  ## ruff, pyright, the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup  ## let ruff format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench-verdict: setup  ## counts of 50 million rows beside bare DuckDB, pandas, Polars and PostgreSQL; QUICK=1: 2 million
	$(BIN)/uv pip install --quiet --group bench
	PYTHONPATH=. $(BIN)/python benchmarks/bench_verdict.py

bench-emergency: setup  ## from an emergency command to the accepted patch, beside kubectl and a Prefect deployment run; QUICK=1: fewer runs
	@$(BIN)/python -m benchmarks.bench_emergency

bench-slack: setup  ## how soon presses in Slack are acknowledged at 1 to 100 a second, and 100 at once; QUICK=1: shorter
	@$(BIN)/python -W ignore -m benchmarks.bench_slack

bench-drift: setup  ## drift of 30 features × 1 million rows a side beside Evidently's preset and scipy; QUICK=1: 100,000 rows
	@PYTHONPATH=. $(BIN)/python benchmarks/bench_drift.py

fuzz-slack: setup  ## hostile requests to the app's HTTP endpoint; SEED=2: others; QUICK=1: fewer
	@$(BIN)/python -W ignore -m benchmarks.fuzz_slack

lock: setup  ## resolve pyproject.toml again, keeping today's pins where they still fit
	$(BIN)/uv pip compile pyproject.toml --group sandbox --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.txt
	echo "uv" | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements-uv.txt

simulate-verdicts: setup  ## how often the rules err, by simulated tests with a known truth; QUICK=1: fewer
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.simulate_verdicts

mutation: setup  ## break the verdict's code on purpose: how much of it the unit tests notice; QUICK=1: a sample
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.mutation

faults: setup  ## kill every step of a change and let every outside system fail at it; QUICK=1: a sample
	@$(BIN)/python -W ignore -m benchmarks.faults

races: setup  ## a promotion and an emergency at the same time, at each step; SEED=2: other moments; QUICK=1: fewer
	@$(BIN)/python -W ignore -m benchmarks.races

planted-causes: setup  ## plant the causes of a lost test, one at a time: does the investigation find them? SEED=2: others; QUICK=1: fewer
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.planted_causes

pictures: setup  ## draw the pictures of README and docs/ anew, by Chromium; all of them lie in build/pictures then
	FRAUD_AB_PICTURES=1 $(BIN)/python -m pytest -q tests/e2e/test_pictures.py tests/e2e/test_document_pictures.py

clean:  ## remove the environment and every cache
	rm -rf .venv .cache build mutants *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
