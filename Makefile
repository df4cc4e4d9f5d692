# One environment, .venv/ in this folder. PYTHON=... chooses the Python it is made from.
# On Linux pip takes the CUDA build of torch (4 GB more), unless it is shown one without:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make quickstart

PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet
USER_STAMP = .venv/tercet-installed
DEV_STAMP = .venv/tercet-dev-installed

.PHONY: quickstart test test-all check benchmark
.DELETE_ON_ERROR:

quickstart: $(USER_STAMP)
	.venv/bin/python -m tercet quickstart

# A file of tests stays in one process, with what its tests share; processes of a thread each.
PYTEST = .venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

test: $(DEV_STAMP)
	$(PYTEST) -m "not slow"

test-all: $(DEV_STAMP)
	$(PYTEST)

check: $(DEV_STAMP)
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m pyright

JOBS = encode latency decode generate translate train_char train_char_loss train_gpt2 train_masked \
	finetune index topics

# JOB=encode: one of them; else all in turn. JOB=finetune_quality takes hours, and is no part of all.
# TERCET_PEERS: where the peers' environments are made.
benchmark: $(DEV_STAMP)
	@for job in $(or $(JOB),$(JOBS)); do .venv/bin/python benchmarks/$$job.py || exit 1; done

# Debian's Python can lack ensurepip; then its own pip fills the environment.
.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Tercet needs Python 3.11 or newer: make PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --without-pip .venv \
		&& $(PYTHON) -m pip --python .venv/bin/python install --quiet pip; }

$(USER_STAMP): pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing Tercet into .venv (a few minutes the first time) ..."
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing Tercet and what its tests need into .venv ..."
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(USER_STAMP)
