# Everything runs in a virtual environment of its own, .venv. `make help` lists what there is.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; `python3` first because it is what the machine's owner chose.
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# api.gen.ts is written by the front end's own build and check: it must not make the page look out of date.
WEB := $(shell find web -type f -not -path '*/node_modules/*' -not -name api.gen.ts 2>/dev/null)
PORT ?= 8765
export PORT NO_BROWSER

.PHONY: run test check fix docs clean help

run: $(VENV)/.installed ## set up if needed, and open the web app
	@$(BIN)/neuralmine serve

test: $(VENV)/.test ## set up what tests need, and run them all
	@CHROME="$$(scripts/find-chrome)" && export CHROME && $(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(VENV)/.dev ## lint, types, imports, front end
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-cache
	@cd web && ../$(BIN)/python ../scripts/npm.py run check

fix: $(VENV)/.dev ## format and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.installed ## write the documentation into docs/site
	@$(BIN)/python docs/build.py

clean: ## remove what was installed and built
	rm -rf $(VENV) web/node_modules src/neuralmine/web docs/site

help: ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "Neuralmine needs Python 3.11 or newer. Install it (python.org, or your system's package manager) and try again."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }

# torch first and pinned: left to itself pip takes the build with gigabytes of CUDA.
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt hatch_build.py $(WEB)
	@echo "Installing Neuralmine into $(VENV) …"
	@$(PIP) torch==2.13.0
	@$(PIP) -e '.[text,vision]'
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	@$(PIP) -e '.[text,vision,test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@$(PIP) -e '.[text,vision,dev,test]'
	@touch $@
