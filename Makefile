# To start: make demo, or make test. Every target first installs into .venv.

PYTHON ?= python3
AIRFLOW ?= 3.3.2
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL ?= $(BIN)/python -m pip install --disable-pip-version-check
# Downloaded once, then run from npm's cache.
BIOME = npx --yes --prefer-offline @biomejs/biome@2.6.8
INSTALL_HERE = $(INSTALL) --quiet --constraint constraints/airflow-$(AIRFLOW).txt

.PHONY: install demo up test coverage environments test-matrix test-celery lint lint-page format docs bench

install: $(VENV)/installed-$(AIRFLOW)

$(VENV)/installed-$(AIRFLOW): pyproject.toml constraints/airflow-$(AIRFLOW).txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; install Python 3.10 or later, or run: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is older than 3.10; run: make PYTHON=/path/to/a/newer/python"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot create a virtual environment; on Debian and Ubuntu, install the package python3-venv"; exit 1; }
	@echo "Installing Airflow $(AIRFLOW) and this package into $(VENV) …"
	@$(INSTALL_HERE) --editable '.[dev]'
	@rm -f $(VENV)/installed-*
	@touch $@

demo: install
	@$(BIN)/python scripts/demo.py

up: install
	@$(BIN)/python scripts/up.py

test: install
	$(BIN)/python -m tests $(OPTIONS)

coverage: install
	$(BIN)/python -m tests --coverage unit integration browser
	$(BIN)/python -m coverage html --quiet
	@echo "Line-by-line report: .coverage-html/index.html"

environments: install
	@$(BIN)/python -m nox --session environments

test-matrix: environments
	QUICK=$(QUICK) $(BIN)/python -m nox -R

test-celery: install
	@scripts/debian_packages.sh redis-server:redis-server '/usr/lib/postgresql/*/bin/initdb:postgresql'
	$(INSTALL_HERE) apache-airflow-providers-celery asyncpg psycopg2-binary
	$(BIN)/python -m tests celery
	@$(BIN)/python -m tests.matrix --just celery

lint: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory lint-page

# Checks the scripts and styles of the sandbox's page.
lint-page:
	@command -v npx >/dev/null || { echo "npx not found; the linter for the sandbox's page needs it. Install Node.js with npm (Debian and Ubuntu: apt-get install nodejs npm)"; exit 1; }
	$(BIOME) check --error-on-warnings

format: install
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .
	$(BIOME) check --write

docs: install
	@$(INSTALL_HERE) --constraint constraints/docs.txt --editable '.[docs]'
	$(BIN)/python -m sphinx --builder html --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "The pages: docs/_build/html/index.html"

bench: install
	$(INSTALL_HERE) apache-airflow-providers-http apache-airflow-providers-slack apache-airflow-providers-telegram
	@$(BIN)/python -m tests.benchmarks
