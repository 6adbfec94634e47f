# make run: text -> tokens -> 120 s of training -> model.golf -> its score.   make test: everything that is checked.
# Both build into .venv; nothing outside it and the user's cache is touched.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Kernels for a GPU are built where one answers; GOLF_CUDA=ON or OFF decides otherwise.
GOLF_CUDA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo AUTO || echo OFF)
export GOLF_CUDA

BUILT_FROM := CMakeLists.txt pyproject.toml constraints.txt $(shell find csrc -type f)
INSTALLED := $(VENV)/.installed-$(GOLF_CUDA)
TESTABLE := $(VENV)/.testable-$(GOLF_CUDA)

.PHONY: run test test-kills lint clean

run: $(INSTALLED)
	@$(BIN)/golfcore run pocket

test: $(TESTABLE) lint
	@$(BIN)/python -m pytest

test-kills: $(TESTABLE)
	@PYTHONPATH=tests $(BIN)/python tests/train/kills.py --times 20

lint: $(TESTABLE)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run --Werror $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

$(INSTALLED): $(BUILT_FROM)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "golfcore needs Python 3.11 or later, and $(PYTHON) is not: make PYTHON=python3.12" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "golfcore needs a C++17 compiler: install g++ or clang++ (on Debian: apt install g++)" >&2; exit 1; }
	@echo "setting up $(VENV) (once; a minute or two, CUDA: $(GOLF_CUDA))" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable .
	@rm -f $(VENV)/.installed-* $(VENV)/.testable-* && touch $@

$(TESTABLE): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build
