# Set-up, demo and tests on a fresh machine with Python 3.11, 3.12 or 3.13 (choose one with PYTHON=python3.12).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= $(firstword $(foreach version,3.11 3.12 3.13,$(shell python$(version) -c 'import sys; print(sys.executable)' 2>/dev/null)) python3)
VENV := .venv
INSTALLED := $(VENV)/.installed
# Two at a time: many tests wait for Ray to start. A file's tests stay together, since they share what they set up, and
# files keep the order of tests/conftest.py.
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test test-slow test-slurm test-wheel test-all bench docs lint clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"rayfold needs Python 3.11 to 3.13, {sys.executable} is {v[0]}.{v[1]}: set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[cluster,dev,dicom,samplers]'
	touch $@

demo: setup
	$(VENV)/bin/rayfold demo --run runs/demo

test: setup
	$(VENV)/bin/python -m pytest $(PARALLEL)

test-slow: setup
	$(VENV)/bin/python -m pytest -m slow $(PARALLEL)

test-slurm: setup
	$(VENV)/bin/python -m pytest -m slurm

test-wheel: setup
	$(VENV)/bin/python -m pytest -m wheel

# test, test-slow and test-wheel at once: what they set up is set up once, and no core waits for the end of each.
test-all: setup
	$(VENV)/bin/python -m pytest -m 'not slurm' $(PARALLEL)

bench: setup
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(VENV)/bin/python -m benchmarks

docs: setup
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(VENV)/bin/mkdocs build --strict --quiet

lint: setup
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) runs build *.egg-info
