# make run: text -> tokens -> 120 s of training -> model.golf -> its score.   make test: everything that is checked.
# make test-sanitize: its last part alone, the kernels for GPUs on the host with sanitizers.
# make test-arm: the same core for aarch64, emulated; an hour or two.
# All build into .venv and build/; nothing outside them and the user's cache is touched.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Kernels for a GPU are built where one answers; GOLF_CUDA=ON or OFF decides otherwise.
GOLF_CUDA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo AUTO || echo OFF)
export GOLF_CUDA

BUILT_FROM := CMakeLists.txt pyproject.toml constraints.txt $(shell find csrc -type f)
INSTALLED := $(VENV)/.installed-$(GOLF_CUDA)
TESTABLE := $(VENV)/.testable-$(GOLF_CUDA)

SANITIZED := build/sanitize
JOBS ?= 2

.PHONY: run test test-arm test-kills test-sanitize lint clean

run: $(INSTALLED)
	@$(BIN)/golfcore run pocket

test: $(TESTABLE) lint
	@$(BIN)/python -m pytest
	@$(MAKE) --no-print-directory test-sanitize

# Every case of every operation in a Python for aarch64 under qemu, and the module for macOS up to its link: docs/arm.md.
test-arm: $(TESTABLE)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check cmake ninja pybind11 ziglang
	@PATH="$(abspath $(BIN)):$$PATH" JOBS=$(JOBS) $(BIN)/python tests/arm/cross.py test
	@JOBS=$(JOBS) $(BIN)/python tests/arm/cross.py macos

test-kills: $(TESTABLE)
	@PYTHONPATH=tests $(BIN)/python tests/train/kills.py --times 20

# Every kernel for GPUs on the host (csrc/simt) once, with AddressSanitizer and UBSan; other orders of threads, and the
# faults that only the model itself finds, are the suite's. Leaks are not looked for: Python's.
ASAN := $(shell $${CXX:-c++} -print-file-name=libasan.so 2>/dev/null)

test-sanitize: $(TESTABLE)
ifeq ($(wildcard $(ASAN)),)
	@echo "sanitizers: left out, this compiler has no libasan.so (gcc's: apt install g++, CXX=g++)" >&2
else
	@echo "building and running the kernels with AddressSanitizer and UBSan" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check cmake ninja pybind11
	@mkdir -p $(SANITIZED)
	@$(BIN)/cmake -S . -B $(SANITIZED) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DGOLF_CUDA=OFF \
	  -DGOLF_SANITIZE=address,undefined -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) >$(SANITIZED)/log || { cat $(SANITIZED)/log; exit 1; }
	@$(BIN)/cmake --build $(SANITIZED) --target _simt -j $(JOBS) >>$(SANITIZED)/log || { cat $(SANITIZED)/log; exit 1; }
	@LD_PRELOAD="$(ASAN) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  $(BIN)/python tests/sanitized.py $(SANITIZED) tests/simt -k "not every_order" --timeout 1200 --durations 3
endif

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
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.$(EXTRAS)'
	@rm -f $(VENV)/.installed-* $(VENV)/.testable-* && touch $@
	@$(if $(EXTRAS),touch $(TESTABLE))

# Beside what runs, what tests: in the same go where nothing is installed yet, since each go compiles.
$(TESTABLE): EXTRAS := [dev]
$(TESTABLE): $(INSTALLED)
	@test -e $@ || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build
