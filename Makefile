# make run: text -> tokens -> 120 s of training, sized to this machine -> model.golf -> its score.
# make test: everything that is checked.   make bench: a training step against plain torch.
# make test-avx2: the suite and the bench as on a processor without AVX-512. ISA=avx2 does so for any target.
# make test-sanitize: its last part alone, the kernels for GPUs on the host with sanitizers.
# make soak MINUTES=60 SEED=1: random trouble over every command: kills, stops, full disks, clock jumps, two at once.
# make fuzz SECONDS=3600 PARSERS="text recipe": searches for bytes that a parser cannot stand; without names, all of them.
# make rehearse: the way from a clone to a score on eight GPUs, on a machine that has none; 10 minutes to half an hour.
# make docs: the documents as a site, in build/docs.
# make simt: builds the module that runs the kernels for GPUs on the host; tests need it, nothing else does.
# make test-arm: the same core for aarch64, emulated; an hour or two.
# All build into .venv and build/; nothing outside them and the user's cache is touched.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Kernels for a GPU are built where one answers; GOLF_CUDA=ON or OFF decides otherwise.
GOLF_CUDA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo AUTO || echo OFF)
# GOLF_WERROR=ON makes the compilers' warnings errors.
GOLF_WERROR ?= OFF
export GOLF_CUDA GOLF_WERROR

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SOURCES := CMakeLists.txt $(wildcard cmake/*) $(shell find csrc -type f)
# An editable install lists the package's modules, so one that came, went or moved is a reason to install again.
MODULES := $(shell find src -name '*.py' | sort | cksum | cut -d ' ' -f 1)
INSTALLED := $(VENV)/.installed-$(GOLF_CUDA)-werror-$(GOLF_WERROR)-$(MODULES)
TESTABLE := $(VENV)/.testable
SIMT := $(VENV)/.simt-werror-$(GOLF_WERROR)
SITE = $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
JOBS ?= 2

# ISA=avx2, or avx512 for AVX-512 without bf16: golfcore, torch, oneDNN and MKL keep to these instructions. Each of the
# four chooses for itself, so each has to be told.
ISA ?=
ifeq ($(ISA),avx2)
export GOLF_ISA := avx2
export ATEN_CPU_CAPABILITY := avx2
export ONEDNN_MAX_CPU_ISA := AVX2
export MKL_ENABLE_INSTRUCTIONS := AVX2
else ifeq ($(ISA),avx512)
export GOLF_ISA := avx512
export ATEN_CPU_CAPABILITY := avx512
export ONEDNN_MAX_CPU_ISA := AVX512_CORE
export MKL_ENABLE_INSTRUCTIONS := AVX512
else ifneq ($(ISA),)
$(error ISA=$(ISA): expected avx2 or avx512, or nothing for all that the processor has)
endif

.PHONY: run install simt bench docs test test-avx2 test-arm test-kills test-sanitize soak fuzz rehearse lint clean

run: $(INSTALLED)
	@$(BIN)/golfcore run

install: $(INSTALLED)

simt: $(SIMT)

bench: $(INSTALLED) $(TESTABLE)
	@$(BIN)/golfcore bench train_step --seconds 12

# The pages that follow from the code are written anew; a broken link or an unknown reference is an error.
docs: $(INSTALLED) $(TESTABLE)
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

test-avx2:
	@$(MAKE) --no-print-directory ISA=avx2 test
	@$(MAKE) --no-print-directory ISA=avx2 bench

test: $(INSTALLED) $(TESTABLE) $(SIMT) lint
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile
	@$(MAKE) --no-print-directory test-sanitize

# Every case of every operation in a Python for aarch64 under qemu, and the module for macOS up to its link:
# docs/results/arm.md.
test-arm: $(INSTALLED) $(TESTABLE)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check cmake ninja pybind11 ziglang
	@PATH="$(abspath $(BIN)):$$PATH" JOBS=$(JOBS) $(BIN)/python tests/arm/cross.py test
	@JOBS=$(JOBS) $(BIN)/python tests/arm/cross.py macos

test-kills: $(INSTALLED) $(TESTABLE)
	@PYTHONPATH=tests $(BIN)/python tests/training/kills.py --times 20

# The suite has a few scenarios of it. A line that it prints says how to repeat that scenario.
MINUTES ?= 60
SEED ?= 1

soak: $(INSTALLED) $(TESTABLE)
	@$(BIN)/python tests/soak/soak.py --minutes $(MINUTES) --seed $(SEED)

# Rewrites tests/fuzz/corpus, which the suite replays; findings are in build/fuzz.
SECONDS ?= 60
PARSERS ?=

fuzz: $(INSTALLED) $(TESTABLE)
	@$(BIN)/python tests/fuzz/guided.py --seconds $(SECONDS) --seed $(SEED) $(PARSERS)

# Builds the wheel with the kernels for GPUs unless GOLF_CUDA says otherwise, into build/rehearse. TORCH=cuda or cpu
# chooses torch's build; auto takes the one with CUDA where the disk has 20 GB.
TORCH ?= auto

rehearse: $(INSTALLED)
	@$(BIN)/python tests/rehearsal/rehearse.py --torch $(TORCH) --cuda $(if $(filter file,$(origin GOLF_CUDA)),ON,$(GOLF_CUDA))

# Every kernel for GPUs on the host (csrc/simt) once, with AddressSanitizer and UBSan; other orders of threads, and the
# faults that only the model itself finds, are the suite's. Leaks are not looked for: Python's.
ASAN := $(shell $${CXX:-c++} -print-file-name=libasan.so 2>/dev/null)

test-sanitize: $(INSTALLED) $(TESTABLE) $(SIMT)
ifeq ($(wildcard $(ASAN)),)
	@echo "sanitizers: left out, this compiler has no libasan.so (gcc's: apt install g++, CXX=g++)" >&2
else
	@echo "building and running the kernels with AddressSanitizer and UBSan" >&2
	@$(BIN)/cmake --build build/simt --target _simt_sanitized -j $(JOBS) >build/simt/log || { cat build/simt/log; exit 1; }
	@LD_PRELOAD="$(ASAN) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  $(BIN)/python tests/sanitized.py build/simt/sanitized tests/simt -k "not every_order" --timeout 1200 --durations 3
endif

lint: $(INSTALLED) $(TESTABLE)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run --Werror $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

# The build tools are installed beside the package, not isolated from it: pip would fetch them into a new folder each
# time, and everything that includes their headers would be compiled again.
$(INSTALLED): $(SOURCES) pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "golfcore needs Python 3.11 or later, and $(PYTHON) is not: make PYTHON=python3.12" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "golfcore needs a C++17 compiler: install g++ or clang++ (on Debian: apt install g++)" >&2; exit 1; }
	@echo "setting up $(VENV) ($(if $(filter OFF,$(GOLF_CUDA)),a minute or two,with nvcc 2 to 10 minutes), later seconds; CUDA: $(GOLF_CUDA))" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/torch_download.py -c constraints.txt
	@$(PIP_INSTALL) cmake ninja \
	  $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-* $(SITE)/golfcore/_simt.* && touch $@  # _simt is older than the package now

# What tests need beside golfcore itself, which pip finds installed and so does not build again.
$(TESTABLE): pyproject.toml constraints.txt | $(INSTALLED)
	@$(PIP_INSTALL) 'golfcore[dev]'
	@touch $@

# A build of its own, installed beside the package's _core, which stays as it is.
$(SIMT): $(SOURCES) $(INSTALLED)
	@echo "building the kernels for GPUs for the host (once; a minute)" >&2
	@mkdir -p build/simt
	@$(BIN)/cmake -S . -B build/simt -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DGOLF_SIMT=ON -DGOLF_CUDA=OFF -DGOLF_WERROR=$(GOLF_WERROR) -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) >build/simt/log || { cat build/simt/log; exit 1; }
	@$(BIN)/cmake --build build/simt --target _simt -j $(JOBS) >>build/simt/log || { cat build/simt/log; exit 1; }
	@$(BIN)/cmake --install build/simt --component simt --prefix $(SITE) >>build/simt/log
	@rm -f $(VENV)/.simt-* && touch $@

clean:
	rm -rf $(VENV) build
