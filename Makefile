# make train   learn the handwritten digits that come with the package (about a minute)
# make test    run every test; TESTS="cpu" runs one part of them
# make lint    ruff, and mypy on the built wheel
# make env     only make .venv
# make dev     add to it what the tests, lint and the notebooks need
# make clean   delete everything that make made, trained models excepted
#
# PYTHON=python3.12 chooses the interpreter; ARGS="..." goes to the command that is run. Tests run
# in a process for each core, up to four; ARGS="-n 0" keeps them in one, ARGS=--pdb too.

PYTHON ?= python3
VENV ?= .venv
TESTS ?= cpu reference emulator
ARGS ?=

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
# Tests that follow one another need the same kernels. So each process begins with a stretch of
# neighbours, and who has none left takes half of what another has yet to do. NumPy's own threads
# would spin on the other processes' cores: with them the reference takes twice as much time.
PYTEST := OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
HERE := $(shell $(PYTHON) -c "import platform; print(platform.system(), platform.machine())")
EMULATES := Linux x86_64
ifeq ($(HERE),$(EMULATES))
TEST_SIZE := Installing pytest, Hypothesis, SciPy and NVIDIA's CUDA compilers into $(VENV): about 245 MB to download, 660 MB on disk.
else
TEST_SIZE := Installing pytest, Hypothesis and SciPy into $(VENV): about 40 MB.
endif

.PHONY: train test lint env dev clean test-cpu test-reference test-emulator test-download
.NOTPARALLEL:

train: env
	$(BIN)/minidl train mnist-cnn $(ARGS)

test: $(TESTS:%=test-%)

# slow: the packages, each installed into an environment of its own; the definitions themselves are
# held to their properties by test-reference
test-cpu: $(VENV)/stamp-test
	MINIDL_TEST_BACKENDS=cpu $(PYTEST) -m "not emulator and not gpu and not download" $(ARGS)

# the same suite on NumPy alone, Numba never imported
test-reference: $(VENV)/stamp-test
	MINIDL_CPU=reference $(PYTEST) -m "not slow and not emulator and not gpu and not download" $(ARGS)

ifeq ($(HERE),$(EMULATES))
test-emulator: $(VENV)/stamp-test
	MINIDL_CUDA=emulate $(PYTEST) -m "emulator and not gpu" $(ARGS)
else
test-emulator:
	@echo "Not run: the tests of the CUDA kernels. They are emulated on Linux x86_64 only, and this is $(HERE)."
endif

# after `minidl data fetch mnist`, `fashion_mnist` and `cifar10`
test-download: $(VENV)/stamp-test
	$(BIN)/pytest -m download $(ARGS)

lint: $(VENV)/stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build $(VENV)/wheel $(VENV)/types
	$(PIP) wheel --no-deps -w $(VENV)/wheel .
	$(PIP) install --no-deps --target $(VENV)/types $(VENV)/wheel/minidl-*.whl
	cd $(VENV)/types && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml

env: $(VENV)/stamp-light

dev: $(VENV)/stamp-dev

# Stamps: each says that a group of packages is installed as pyproject.toml asks.
$(VENV)/stamp-made:
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('minidl needs Python 3.11 or newer, and $(PYTHON) is %d.%d: try make PYTHON=python3.12' % sys.version_info[:2])"
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/stamp-light: $(VENV)/stamp-made pyproject.toml
	@echo "Installing NumPy, Numba, safetensors, tqdm and Matplotlib into $(VENV): about 100 MB to download, 400 MB on disk."
	$(PIP) install -e ".[plot]"
	@echo "Compiling the kernels for this CPU, once: about 20 s on two cores."
	-$(BIN)/minidl cache warm
	@touch $@

$(VENV)/stamp-test: $(VENV)/stamp-light
	@echo "$(TEST_SIZE)"
	$(PIP) install -e ".[test]"
	@touch $@

$(VENV)/stamp-dev: $(VENV)/stamp-test
	@echo "Installing ruff, mypy and what runs the notebooks into $(VENV): about 50 MB to download."
	$(PIP) install -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .ci/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
