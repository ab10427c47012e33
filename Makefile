# Everything a developer runs. Each target installs what it needs into .venv; `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
WERROR ?= OFF
# Further options for pip, for example an index that has a CPU-only torch.
PIP_ARGS ?=
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 60
# The tests start hundreds of interpreters: one that compiles each package again takes four times as long.
export PYTHONDONTWRITEBYTECODE =

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile $(PIP_ARGS)
CMAKE = $(BIN)/cmake -G Ninja -S . -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
  -DPython_EXECUTABLE=$(abspath $(BIN)/python) -DSPARSERT_WERROR=$(WERROR)
DEV := build/dev
ASAN := build/asan
CROSS := build/aarch64
ARM := build/arm
CXX_FILES = $(shell find csrc tests/cpp -name '*.h' -o -name '*.cc' 2>/dev/null)
# The part of the Python suite that runs once more under the sanitizers: files and runs of the core.
ASAN_TESTS ?= $(filter-out %/test_huge_sizes.py,$(wildcard tests/regressions/test_*.py)) \
  $(wildcard $(patsubst %,tests/%.py,modelfile/test_bad_files \
  modelfile/test_levels modelfile/test_round_trip runtime/test_capi runtime/test_fallback \
  runtime/test_mapped_file runtime/test_plans runtime/test_tuning_cache))

.PHONY: help build build-all demo test test-numba check format bench peers peers-short sweep performance pruning pruning-until fuzz \
  asan tsan cross embedded arm arm-short arm-report coverage clean distclean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.stamp-venv:
	@test -n "$(PYTHON)" || { echo "sparsert needs Python 3.10 or newer: set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

# .stamp-NAME: this package, editable, with the extra NAME and the build tools; CMake compiles the
# extension separately, so that a change in csrc/ recompiles only itself. The build tools come first:
# make -j then compiles while pip installs the rest.
INSTALL = SPARSERT_SKIP_EXTENSION=1 $(PIP) -e
$(VENV)/.stamp-build: pyproject.toml setup.py | $(VENV)/.stamp-venv
	$(INSTALL) '.[build]'
	@touch $@

$(VENV)/.stamp-%: pyproject.toml setup.py | $(VENV)/.stamp-build
	$(INSTALL) '.[build,$*]'
	@touch $@

$(DEV)/build.ninja: CMakeLists.txt pyproject.toml $(VENV)/.stamp-build
	$(CMAKE) -B $(DEV) -DSPARSERT_BUILD_TESTS=ON -DSPARSERT_PYTHON_DIR=$(abspath sparsert/runtime)

build: $(DEV)/build.ninja ## compile the extension into sparsert/runtime
	$(BIN)/cmake --build $(DEV) -j $(JOBS) --target _core sparsert_shared

build-all: $(DEV)/build.ninja
	$(BIN)/cmake --build $(DEV) -j $(JOBS)

demo: $(VENV)/.stamp-demo build ## train, prune, convert, run and report a small CNN
	$(BIN)/sparsert demo

test: $(VENV)/.stamp-dev build-all ## every test, C++ and Python
	$(BIN)/ctest --test-dir $(DEV) --output-on-failure -j $(JOBS)
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not timing" \
	  $(PYTEST_ARGS) tests
	$(BIN)/python -m pytest -q -m timing $(PYTEST_ARGS) $$(grep -rl --include='test_*.py' mark.timing tests) \
	  || [ $$? = 5 ] # 5: PYTEST_ARGS leaves none

test-numba: $(VENV)/.stamp-dev build-all ## every case of tests/suite on Numba too
	SPARSERT_TEST_NUMBA=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(PYTEST_ARGS) tests/suite

check: $(VENV)/.stamp-dev build-all ## style, types, layout, dependencies, ISA objects
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(CXX_FILES),$(BIN)/clang-format --dry-run -Werror $(CXX_FILES))
	$(BIN)/python .ci/check_layout.py
	$(BIN)/python .ci/check_dependencies.py
	$(BIN)/python .ci/check_isa_objects.py $(DEV)
	$(BIN)/python .ci/check_paths.py

format: $(VENV)/.stamp-dev ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(CXX_FILES),$(BIN)/clang-format -i $(CXX_FILES))

bench: $(VENV)/.stamp-bench build ## pytest-benchmark suites per kernel and per model
	$(BIN)/python -m pytest -q $(PYTEST_ARGS) --benchmark-only bench

peers: $(VENV)/.stamp-bench .venv-deepsparse/.stamp build ## the full race against other engines
	$(BIN)/python -m bench.peers --published

peers-short: $(VENV)/.stamp-bench .venv-deepsparse/.stamp build ## a race of a few minutes
	$(BIN)/python -m bench.peers --short

SWEEP ?= resnet50 mobilenet_v1 mobilenet_v2 small_cnn
sweep: $(VENV)/.stamp-bench build ## zeros x patterns, batches, threads of the networks SWEEP, with plots
	$(BIN)/python -m bench.sweep $(SWEEP)

performance: $(VENV)/.stamp-bench build-all ## the tables of docs/performance.md
	for model in resnet50 mobilenet_v1; do for zeros in 0 0.9; do \
	  $(BIN)/python -m bench.layers $$model --sparsity $$zeros --publish || exit 1; done; done
	$(BIN)/python -m bench.threads resnet50 mobilenet_v1 --publish

pruning: $(VENV)/.stamp-demo build ## what each way to prune costs and brings: the tables of docs/pruning.md
	$(BIN)/python -m bench.pruning --jobs $(JOBS) --state build/pruning/grid --publish
	$(BIN)/python -m bench.structure --jobs $(JOBS) --state build/pruning/structure --publish

pruning-until: $(VENV)/.stamp-demo build ## prune_until against uniform pruning: the other table of docs/pruning.md
	$(BIN)/python -m bench.until --jobs $(JOBS) --state build/pruning/until --publish

# DeepSparse needs an old NumPy and Python 3.11 at most; without it the race goes on and says so.
.venv-deepsparse/.stamp: bench/peers/requirements-deepsparse.txt
	$(PYTHON) -m venv .venv-deepsparse
	.venv-deepsparse/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_ARGS) \
	  -r $< && touch $@ || echo "DeepSparse cannot be installed here: the race runs without it"

coverage: $(VENV)/.stamp-dev build ## docs/coverage.md: onnx's node tests, operator by operator
	$(BIN)/python -m tests.compat.coverage

# ---- sanitizers: a second build, with the Python files copied beside the instrumented module ----
ASAN_ENV = LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) \
  $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc

# --capture=sys: a report of a sanitizer ends the process and must not stay in a captured file.
ASAN_PATH = --capture=sys -o pythonpath="$(ASAN)/site ."

asan: $(VENV)/.stamp-dev $(ASAN)/.built ## C++ tests and part of the Python suite under ASan and UBSan
	$(BIN)/ctest --test-dir $(ASAN) --output-on-failure -j $(JOBS)
	$(ASAN_ENV) $(BIN)/pytest -q -n $(JOBS) $(PYTEST_ARGS) -m "not slow and not timing" \
	  $(ASAN_PATH) $(ASAN_TESTS)

fuzz: $(VENV)/.stamp-dev $(ASAN)/.built ## malformed files into the reader, under the sanitizers
	$(ASAN_ENV) SPARSERT_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest -q $(PYTEST_ARGS) -m fuzz $(ASAN_PATH) tests

.PHONY: $(ASAN)/.built
$(ASAN)/.built: $(VENV)/.stamp-build
	@mkdir -p $(ASAN)/site
	rm -rf $(ASAN)/site/sparsert && cp -r sparsert $(ASAN)/site/
	$(CMAKE) -B $(ASAN) -DSPARSERT_BUILD_TESTS=ON -DSPARSERT_SANITIZE=address,undefined \
	  -DSPARSERT_PYTHON_DIR=$(abspath $(ASAN)/site/sparsert/runtime)
	rm -f $(ASAN)/site/sparsert/runtime/_core*.so
	$(BIN)/cmake --build $(ASAN) -j $(JOBS)

TSAN_SOURCES = tests/cpp/thread_pool_test.cc csrc/base/thread_pool.cc csrc/base/platform.cc
tsan: ## the thread pool's test under ThreadSanitizer
	@mkdir -p build/tsan
	$${CXX:-c++} -std=c++17 -O1 -g -fsanitize=thread -Icsrc $(TSAN_SOURCES) -o build/tsan/thread_pool_test \
	  -lpthread
	build/tsan/thread_pool_test

# ---- 64-bit ARM: cross-compiled, and run by qemu-aarch64; see docs/arm.md -------------------------
# Cores whose instruction sets the tests run on.
ARM_CPUS ?= cortex-a53 cortex-a72 cortex-a76 neoverse-n1
CROSS_CMAKE = $(CMAKE) -B $(CROSS) -DCMAKE_TOOLCHAIN_FILE=$(abspath .ci/toolchain-aarch64.cmake) \
  -DSPARSERT_BUILD_TESTS=ON

cross: $(VENV)/.stamp-build ## cross-compile for aarch64; the C++ tests run where there is qemu-aarch64
	@.ci/need.sh aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
	$(CROSS_CMAKE) -DSPARSERT_PYTHON=OFF
	$(BIN)/cmake --build $(CROSS) -j $(JOBS)
	$(BIN)/python .ci/check_isa_objects.py --nm aarch64-linux-gnu-nm $(CROSS)
	$(BIN)/python .ci/check_archive.py --tools aarch64-linux-gnu- --kib 1024 $(CROSS)/libsparsert.a
	@if .ci/need.sh qemu-aarch64 qemu-user; then \
	  QEMU_CPU=cortex-a76 $(BIN)/ctest --test-dir $(CROSS) --output-on-failure -j $(JOBS); \
	else echo "qemu-aarch64 is not installed: compiled only"; fi

# Python, NumPy and cffi of the other architecture.
$(ARM)/.stamp-sysroot: .ci/arm_sysroot.sh | $(VENV)/.stamp-build
	PIP_ARGS="$(PIP_ARGS)" .ci/arm_sysroot.sh $(ARM) $(BIN)/python
	@touch $@

# This package beside its C library, and beside its extension if there is one.
ARM_PACKAGE = rm -rf $(ARM)/package && mkdir -p $(ARM)/package && cp -r sparsert $(ARM)/package/ && \
  rm -f $(ARM)/package/sparsert/runtime/_core*.so
ARM_RUN = PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$(abspath $(ARM))/package:$(abspath $(ARM))/site \
  SPARSERT_LIBRARY=$(abspath $(CROSS))/libsparsert.so $(ARM)/python
# Of the cases of tests/suite, every so many.
ARM_EVERY ?= 8
ARM_CASES = rm -rf $(ARM)/cases && $(BIN)/python -m tests.arm.write_cases $(ARM)/cases --every

arm: cross $(VENV)/.stamp-dev build $(ARM)/.stamp-sysroot ## and the Python package, on several cores
	$(CROSS_CMAKE) -DSPARSERT_PYTHON=ON -DPython_INCLUDE_DIR=$(abspath $(ARM))/include
	$(BIN)/cmake --build $(CROSS) -j $(JOBS) --target _core
	$(ARM_PACKAGE) && cp $(CROSS)/_core*.so $(ARM)/package/sparsert/runtime/_core.so
	$(ARM_CASES) $(ARM_EVERY)
	set -e; for cpu in $(ARM_CPUS); do echo "==== $$cpu"; export QEMU_CPU=$$cpu; \
	  $(BIN)/ctest --test-dir $(CROSS) --output-on-failure -j $(JOBS); \
	  $(ARM_RUN) tests/arm/run_cases.py $(ARM)/cases native; \
	  $(ARM_RUN) tests/arm/run_cases.py $(ARM)/cases capi --every 4; \
	  $(ARM_RUN) -m sparsert bench $(ARM)/cases/0001.sprt --threads 1 --runs 7; done

arm-short: cross $(VENV)/.stamp-dev build $(ARM)/.stamp-sysroot ## part of it, and counted instructions
	$(ARM_PACKAGE)
	$(ARM_CASES) 60
	QEMU_CPU=cortex-a53 $(ARM_RUN) tests/arm/run_cases.py $(ARM)/cases capi --isa neon
	$(BIN)/python -m bench.arm --check

arm-report: $(VENV)/.stamp-bench cross ## the tables of docs/arm.md
	@.ci/need.sh llvm-mca-19 llvm-19
	@test -d $(CROSS)/bench/osaca || $(PIP) --target $(CROSS)/bench/osaca osaca
	$(BIN)/python -m bench.arm --publish

# ---- no operating system: the library wants nothing but what a C compiler brings ----------------
embedded: $(VENV)/.stamp-build ## compile for 64-bit ARM and ARMv7 with NEON, without an operating system
	@for name in aarch64-linux-gnu arm-linux-gnueabihf; do \
	  .ci/need.sh $$name-g++ g++-$$name || exit 1; \
	  $(CMAKE) -B build/bare-$$name -DCMAKE_TOOLCHAIN_FILE=$(abspath .ci/)/toolchain-$${name%%-*}.cmake \
	    -DSPARSERT_PYTHON=OFF -DSPARSERT_BARE=ON && \
	  $(BIN)/cmake --build build/bare-$$name -j $(JOBS) --target sparsert_static && \
	  $(BIN)/python .ci/check_archive.py --bare --tools $$name- build/bare-$$name/libsparsert.a || exit 1; \
	done

clean: ## remove what was built
	rm -rf build dist *.egg-info sparsert/runtime/_core*.so .benchmarks .pytest_cache .mypy_cache \
	  .ruff_cache .hypothesis
	find sparsert tests bench .ci -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## and the virtual environments
	rm -rf $(VENV) .venv-deepsparse
