# Every target works in a fresh clone: it makes its own virtual environment, installs what it needs,
# builds what has changed, and runs. Needs Python >= 3.10, g++ and make.
#
#   make demo           train the same model with this library and with nn.LSTM, draw its memory
#   make test           all tests that need no GPU
#   make bench          the CPU benchmarks
#   make memory         what trained LSTMs keep in their cell and hidden states
#   make gpu            build, test and benchmark on the NVIDIA GPU of this machine
#   make lint           formatting, static analysis and types
#   make docs           the documentation site, into build/site
#   make wheels         the wheels of every platform and the source distribution, into dist/
#   make wheel-check    the same, and run those that this machine can run
#   make test-clients   libraries that build on nn.LSTM, run with this one, in their own environment
#
# ARGS goes to the program (make demo ARGS=--help); TORCH ("newest" too) and PYTHON choose the versions.

PYTHON ?= python3
TORCH ?= 2.13.0
ARGS ?=

TORCH_VERSION := $(if $(filter newest,$(TORCH)),torch,torch==$(TORCH))
VENV := .venv
CLIENTS := .venv-clients
DOCS := .venv-docs
WHEELS := .venv-wheels
BIN := $(VENV)/bin
# Quiet where it only repeats that a requirement is already there.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
BASE := $(VENV)/torch-$(TORCH)
CPP := csrc tests benchmarks
# cmake and ninja come from there too.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test bench memory gpu lint format docs wheels wheel-check test-clients build clean
.NOTPARALLEL:

test: build $(VENV)/with-test
	$(BIN)/python -m pytest $(ARGS)

demo: build $(VENV)/with-demo
	$(BIN)/python -m lstm_kernels.demo $(ARGS)

bench: build $(VENV)/with-bench
	$(BIN)/python -m benchmarks.cpu $(ARGS)

memory: build $(VENV)/with-memory
	$(BIN)/python -m lstm_kernels.memory $(ARGS)

gpu:
	bash benchmarks/gpu.sh $(ARGS)

lint: build $(VENV)/with-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	find $(CPP) -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \
	  | xargs $(BIN)/clang-format --dry-run -Werror

format: build $(VENV)/with-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find $(CPP) -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \
	  | xargs $(BIN)/clang-format -i

# The site needs no torch: it reads the docstrings from the sources.
docs: $(DOCS)/installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build $(ARGS)

# An environment for a group of pyproject.toml that needs no torch.
.venv-%/installed: pyproject.toml
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --group $*
	@touch $@

wheels: $(WHEELS)/installed
	$(WHEELS)/bin/python .ci/wheels.py $(ARGS)

wheel-check: $(WHEELS)/installed
	$(WHEELS)/bin/python .ci/wheel_check.py $(ARGS)

# The clients pull in much else: they get an environment of their own. Torch is named again with them,
# or pip would take the newest torchvision, and the torch that it needs.
test-clients:
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet \
	  $(TORCH_VERSION) setuptools 'cmake>=3.26' ninja
	$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet \
	  --no-build-isolation --editable '.[clients]' $(TORCH_VERSION)
	$(CLIENTS)/bin/python -m pytest tests/clients $(ARGS)

build: $(BASE)
	$(BIN)/python setup.py --quiet build_ext --inplace

# One extra of pyproject.toml, and the package itself, which stays this folder.
$(VENV)/with-%: pyproject.toml $(BASE)
	$(PIP) --no-build-isolation --editable '.[$*]'
	@touch $@

$(BASE):
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo; \
	  echo "$(PYTHON) cannot make a virtual environment. Run:"; \
	  echo "    apt-get install python3-venv"; exit 1; } >&2
	$(PIP) $(TORCH_VERSION) numpy setuptools 'cmake>=3.26' ninja
	@rm -f $(VENV)/torch-* && touch $@

clean:
	rm -rf build dist $(VENV) $(CLIENTS) $(DOCS) $(WHEELS) lstm_kernels/*.so
