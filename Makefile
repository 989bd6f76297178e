# `make` alone lists the words. `make demo` and `make test` do all their own set-up, and none once that is done.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
PY      = $(VENV)/bin/python
BIN     = $(VENV)/bin
CORES  := $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() or 1))')
# By whole files and folders, whose fixtures (Ray, MLflow, browsers) are dear, in the order of tests/conftest.py.
PYTEST  = $(PY) -m pytest --dist loadfile --no-loadscope-reorder

# The CPU build on Linux: the default one there brings gigabytes of CUDA libraries.
# `make setup TORCH=torch==2.13.0` for a machine with GPUs.
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH ?= torch==$(TORCH_VERSION)$(if $(filter Linux,$(shell uname -s)),+cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Named by content: a new checkout of the same files does not install again.
STAMP := $(VENV)/installed-$(shell cat pyproject.toml constraints.txt 2>/dev/null | cksum | cut -d' ' -f1)

# Containers often have it set. Tests start hundreds of processes, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# What some tests need beside Python; where it is not installed they are skipped, and say so.
DEBIAN_PACKAGES := chromium chromium-driver postgresql prometheus
PROGRAMS := $(VENV)/programs-$(shell echo '$(DEBIAN_PACKAGES)' | cksum | cut -d' ' -f1)

# The container image. BASE, and what else a builder takes: `make image BUILD_OPTIONS='--build-arg BASE=...'`.
IMAGE ?= localhost/epochal:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BUILDER ?= $(shell for one in docker podman buildah; do $$one info >/dev/null 2>&1 && echo $$one && break; done)
BUILD_OPTIONS ?=
TORCH_ARGUMENTS := --build-arg TORCH_INDEX=$(TORCH_INDEX) $(if $(filter file,$(origin TORCH)),,--build-arg TORCH=$(TORCH))

# What follows `bench` names sections of it.
ifeq ($(firstword $(MAKECMDGOALS)),bench)
SECTIONS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
.PHONY: $(SECTIONS)
$(SECTIONS): bench
	@:
endif

.DEFAULT_GOAL := help
.PHONY: help demo setup check test-unit test manifests test-all test-kubernetes bench index docs image format constraints clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1	\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

demo: $(STAMP)  ## train a CNN data-parallel on two workers, and show the run
	$(BIN)/epochal run jobs/quickstart.yaml

setup: $(STAMP) $(PROGRAMS)  ## .venv as constraints.txt pins it; as root on Debian also what tests need

check: setup  ## lint, format, types, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(PY) -m epochal.catalog.generate --check
	$(PY) -m epochal.spec.reference --check

# One process more than there are cores: many tests wait, for processes of their own or for each other.
test-unit: setup  ## the unit tests alone: a minute on two cores
	$(PYTEST) -n $$(($(CORES) + 1)) tests/unit -m "not slow and not root"

test: setup  ## the tests, without the slow ones
	$(PYTEST) -n $$(($(CORES) + 1)) -m "not slow and not root"

manifests: setup  ## the chart and the cluster specs: rendered, valid, safe; needs no cluster
	$(PY) -m pytest tests/manifests

test-all: setup  ## every test, with five times the examples; those that need root are skipped without it
	$(PY) -m pytest --hypothesis-profile=thorough

test-kubernetes: setup  ## on the cluster of KUBECONFIG, with the image EPOCHAL_IMAGE that its nodes have
	$(PY) -m pytest tests/kubernetes

bench: setup  ## the promises of the design, measured beside their peers; `make bench scale sweep`: these sections
	$(PY) tests/benchmarks/run.py $(SECTIONS)

index: setup  ## write the catalog's index, from its entries, and MLflow's tables, from its migrations
	$(PY) -m epochal.catalog.generate
	$(PY) -m epochal.tracking.mlflow_schema

docs: setup  ## write the spec reference, what works together, and what of the chart follows from the code
	$(PY) -m epochal.spec.reference
	$(PY) tests/support/covering_array.py --write
	$(PY) tests/support/chart_files.py --write

image:  ## the container image, with docker, podman or buildah
	@$(if $(BUILDER),,echo "none of docker, podman, buildah works here" >&2; exit 2)
	$(BUILDER) build -f cluster/Dockerfile -t $(IMAGE) $(TORCH_ARGUMENTS) $(BUILD_OPTIONS) .

format: setup  ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints:  ## pin the newest versions that fit pyproject.toml
	rm -rf build/fresh && "$(PYTHON)" -m venv build/fresh
	build/fresh/bin/python -m pip install -q '$(TORCH)'
	build/fresh/bin/python -m pip install -q -e '.[image,dev]'
	{ echo '# Every package that make installs, pinned. Written by make constraints; torch stays as it is here.'; \
	  build/fresh/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt && rm -rf build/fresh

clean:  ## remove .venv and what the tools left
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find platform tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(if $(PYTHON),,echo "no python3 here: install Python 3.11 (Debian: apt install python3 python3-venv)" >&2; exit 2)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; name another: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PY) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV) || \
	  { echo "venv is missing (Debian: apt install python3-venv); or name another: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up $(VENV), once; torch is a large download"
	$(PY) -m pip install -q -c constraints.txt '$(TORCH)' 2>/dev/null || \
	  $(PY) -m pip install -q -c constraints.txt --extra-index-url $(TORCH_INDEX) '$(TORCH)'
	$(PY) -m pip install -q -c constraints.txt -e '.[image,dev]'
	@rm -f $(VENV)/installed-*
	@touch $@

$(PROGRAMS): $(STAMP)
	@if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "tests that need one of these are skipped where it is missing: $(DEBIAN_PACKAGES)" >&2; \
	elif ! dpkg -s $(DEBIAN_PACKAGES) >/dev/null 2>&1; then \
	  echo "installing $(DEBIAN_PACKAGES)"; \
	  dpkg -s prometheus >/dev/null 2>&1 || systemctl -q mask prometheus 2>/dev/null; : its own service would serve anybody; \
	  { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    $(DEBIAN_PACKAGES); } >$(VENV)/programs.log 2>&1 || \
	  echo "not installed, their tests will be skipped: see $(VENV)/programs.log" >&2; \
	fi
	@rm -f $(VENV)/programs-*
	@touch $@
