# Everything runs in .venv, which the first target makes from nothing but Python 3.11 and pip.
# constraints.txt pins every version; a stamp file in .venv tells that an installation is current.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH  := torch==2.13.0
TRITON := triton==3.7.1; sys_platform == 'linux'

TRITONS := 3.6.0 3.9.0  # beside the one above

VENV := .venv
PY   := $(VENV)/bin/python
PIP  := $(PY) -m pip

# Two workers of one thread each: more threads than cores make torch on a small machine slower, not faster.
WORKERS ?= 2
PYTEST  := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal

export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check test-heavy fuzz test-versions bench bench-memory install clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.runs  ## from a spec to numbers to a model that learns Python and writes some, in minutes
	@$(PY) scripts/demo.py

test: $(VENV)/.develops  ## the test suite on the CPU
	$(PYTEST) -m "not heavy and not gpu" $(ARGS)

check: $(VENV)/.develops  ## ruff, mypy --strict and the import arrows
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict
	$(PY) -m pytest tests/test_arrows.py tests/test_house.py

test-heavy: $(VENV)/.develops  ## the large tests that only CI runs; "no tests" is no failure
	$(PYTEST) -m heavy $(ARGS) || [ $$? -eq 5 ]

fuzz: $(VENV)/.develops  ## a long search for inputs that archc takes badly; COUNT=N inputs instead of a million
	$(PY) -m tests.robustness.fuzz $(COUNT)

test-versions: $(VENV)/.develops  ## every kernel compiled by the oldest and the newest triton that are meant to work
	@for version in $(TRITONS); do \
	  echo "== triton $$version"; folder=build/triton-$$version; \
	  test -d $$folder || PIP_CONSTRAINT= $(PIP) install --quiet --no-deps --target $$folder triton==$$version || exit 1; \
	  PYTHONPATH=$$folder $(PYTEST) tests/kernels/test_compile.py || exit 1; \
	done

bench-memory: $(VENV)/.develops  ## predicted and measured memory of eight models (needs a CUDA device)
	$(PY) bench/memory.py

bench: $(VENV)/.develops  ## start-up time, then every kernel benchmark (needs a CUDA device)
	$(PY) bench/startup.py
	@$(PY) -c "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 'the other benchmarks need a CUDA device')"
	@for script in $(filter-out bench/startup.py bench/estimators.py,$(wildcard bench/*.py)); do echo "== $$script"; $(PY) $$script || exit 1; done

install: $(VENV)/.develops  ## the development environment, without running anything

clean:  ## removes what the other targets made, .venv too
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find archc tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and by its exact version: whatever else asks for it is then content with the one that is there,
# where an open range would fetch the newest build and gigabytes of CUDA with it.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'archc needs Python 3.11 or newer; set PYTHON=')"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install $(TORCH)
	$(VENV)/bin/pip install "$(TRITON)"
	@touch $@

# What the demo needs. hatchling is in the environment, so that the build is pinned like the rest.
$(VENV)/.runs: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet hatchling editables
	$(PIP) install --quiet --no-build-isolation --editable ".[torch]"
	@touch $@

$(VENV)/.develops: $(VENV)/.runs
	$(PIP) install --quiet --no-build-isolation --editable ".[torch,hf,dev]"
	@touch $@
