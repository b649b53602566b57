# `make` alone says what there is. Nothing has to be prepared: every target fetches what it needs,
# and a second call does only what has changed.

PYTHON ?= python3
VENV ?= .venv
# What `make test ARGS="-k cpuset"` and the like pass on.
ARGS ?=
QUICK ?=
# The architecture of test-guest; none: those of every run of the tests.
ARCH ?=
# Of those that only test-guest boots, by Debian's name.
OTHER := $(patsubst ppc64le,ppc64el,$(filter-out amd64 arm64,$(ARCH)))
# How many processes run tests: one more than there are cpus, as tests wait much.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

BIN := $(VENV)/bin
CACHE := .cache
WHERE := $(CACHE)/where
# Its own environment, as a user has it: packages only a test wants slow down every start of Python.
BENCH_VENV := $(CACHE)/bench-venv
SOURCES := $(shell find ompbind -name "*.py") scripts/ompbind
PIP_FLAGS := --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-guest test-engines test-faults test-division test-serving test-programs test-pictures test-distributions test-gpu mutants lint format bench readme docs pythons package release clean system-demo system-test system-engines system-programs system-bench system-pictures system-guest-ppc64el system-guest-s390x system-guest-riscv64

help: ## this text
	@echo 'usage: make TARGET'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed $(WHERE) ## see it work: the plan for this machine, then where each OpenMP thread ran
	@PATH=$(CURDIR)/$(BIN):$$PATH; ranks='-n 2'; \
	ompbind show $$ranks --format json >/dev/null 2>&1 || ranks='-n 1'; \
	for command in show run; do \
		printf '\n$$ ompbind %s %s -- %s\n' "$$command" "$$ranks" $(WHERE); \
		ompbind $$command $$ranks -- $(WHERE) || exit; \
	done

test: $(VENV)/.developed system-test ## run all tests (ARGS="-k word" for some)
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(ARGS)

test-guest: $(VENV)/.developed system-test $(if $(OTHER),system-guest-$(OTHER)) ## only the tests in virtual machines (ARCH=arm64 for one kind; ppc64le, s390x, riscv64 are in no other target)
	@OMPBIND_TEST_GUEST=$(if $(OTHER),$(OTHER),$(ARCH)) $(BIN)/python -m pytest -q tests/test_guest.py $(ARGS)

test-engines: $(VENV)/.developed system-engines ## real engines: Slurm, MPI of each kind, torchrun, Ray, Dask (kept in the user's cache: 2 GB)
	@$(BIN)/python -m tests.jobs
	@OMPBIND_TEST_ENGINES=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal tests/jobs tests/exports $(ARGS)

test-faults: $(VENV)/.developed system-test ## make each system call of ompbind fail once (minutes; ARGS="--sample 500" for some)
	@$(BIN)/python -m tests.faults $(ARGS)

test-serving: $(VENV)/.developed system-test ## vLLM itself with a made-up model (kept in the user's cache: 3.5 GB; a quarter of an hour)
	@$(BIN)/python -m tests.serving
	@OMPBIND_TEST_SERVING=1 $(BIN)/python -m pytest -q tests/serving $(ARGS)

test-programs: $(VENV)/.developed system-programs ## what people start with ompbind: C++, NumPy, scikit-learn, torch, llama.cpp, Redis, ... (kept in the user's cache: 3 GB; minutes)
	@$(BIN)/python -m tests.programs
	@OMPBIND_TEST_PROGRAMS=1 $(BIN)/python -m pytest -q tests/programs $(ARGS)

test-pictures: $(VENV)/.developed system-pictures ## pictures of plans and machines in a browser (Chromium; half a minute)
	@OMPBIND_TEST_PICTURES=1 $(BIN)/python -m pytest -q tests/render/picture/test_browser.py $(ARGS)

test-distributions: $(VENV)/.developed system-test ## the wheel on Debian's releases, musl and other Pythons (kept in the user's cache: 600 MB; three minutes)
	@$(BIN)/python -m tests.distributions
	@OMPBIND_TEST_DISTRIBUTIONS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup tests/distributions $(ARGS)

# No prerequisites: it installs nothing, so that it runs on a machine without the network.
test-gpu: ## on a machine with an NVIDIA GPU: against NVML and nvidia-smi (no network; PYTHON=... has pytest)
	@tools/test-gpu $(if $(wildcard $(VENV)/.developed),$(BIN)/python,$(PYTHON)) $(ARGS)

test-division: $(VENV)/.developed ## compare how small machines are divided with every other division (minutes; ARGS="--machines 1000" for some)
	@$(BIN)/python -m tests.planner.divisions $(ARGS)

mutants: $(VENV)/.developed system-test ## small changes in the code, which tests must notice (hours; ARGS="--sample 20" for some)
	@$(BIN)/python -m tests.mutants $(ARGS)

pythons: $(VENV)/.developed system-test ## run a quick part of the tests on every other Python that can be had (ARGS="3.14" for one)
	@tools/test-pythons $(ARGS)

lint: $(VENV)/.developed ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.developed ## let ruff format the code
	@$(BIN)/ruff format .

bench: $(VENV)/.developed $(BENCH_VENV)/.installed system-bench ## measure start-up, planning, reading (QUICK=1: under a minute; ARGS=page writes docs/performance.md; ARGS=compare, ... for other parts)
	@$(BIN)/python -m bench --python $(BENCH_VENV)/bin/python $(if $(QUICK),--quick) $(ARGS)

readme: $(VENV)/.developed ## run the README's commands and put their output into it
	@COLUMNS=96 $(BIN)/python -m tests.test_examples

docs: $(CACHE)/site/.installed ## build the documentation as a site, in build/site, and check its links
	@NO_MKDOCS_2_WARNING=1 $(CACHE)/site/bin/mkdocs build --strict --config-file tools/site/mkdocs.yml
	@echo 'build/site/index.html'

package: $(CACHE)/release/.installed ## build the wheel and the sdist, install each in a clean place and try it
	@$(CACHE)/release/bin/python tools/release.py

release: $(CACHE)/release/.installed ## check that this tree is a release, then package it: all but the tag and the upload
	@$(CACHE)/release/bin/python tools/release.py --release

clean: ## remove all that these targets made
	rm -rf $(VENV) $(CACHE) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What comes from the system's packages; says nothing and takes no time when it is there.
system-demo system-test system-engines system-programs system-bench system-pictures system-guest-ppc64el system-guest-s390x system-guest-riscv64: system-%:
	@tools/setup-system $*

$(VENV)/bin/python: | system-demo
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo 'make: this needs Python 3.10 or newer; name one: make PYTHON=python3.12 …' >&2; exit 1; }
	@echo 'make: setting up $(VENV)' >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml scripts/ompbind | $(VENV)/bin/python
	@echo 'make: installing ompbind into $(VENV)' >&2
	@$(BIN)/python -m pip install $(PIP_FLAGS) --editable .
	@touch $@

# Dependency groups need pip 25.1. Continuous integration runs the tests with torch as well, which
# elsewhere skip unless it is there: some of its builds are gigabytes.
$(VENV)/.developed: pyproject.toml $(VENV)/.installed
	@echo 'make: installing what the tests need into $(VENV)' >&2
	@$(BIN)/python -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install $(PIP_FLAGS) --group dev $(if $(CI),--group torch)
	@touch $@

# What builds and checks a release, apart from what is tested.
$(CACHE)/release/.installed: pyproject.toml | $(VENV)/bin/python
	@$(BIN)/python -m venv $(CACHE)/release
	@$(CACHE)/release/bin/python -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@$(CACHE)/release/bin/python -m pip install $(PIP_FLAGS) --group release
	@touch $@

# What builds the site. It reads the table of options from the source.
$(CACHE)/site/.installed: pyproject.toml | $(VENV)/bin/python
	@echo 'make: installing what builds the site into $(CACHE)/site' >&2
	@$(BIN)/python -m venv $(CACHE)/site
	@$(CACHE)/site/bin/python -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@$(CACHE)/site/bin/python -m pip install $(PIP_FLAGS) --group docs
	@touch $@

# build/ first: setuptools would install what an earlier build has left there.
$(BENCH_VENV)/.installed: pyproject.toml $(SOURCES) | $(VENV)/bin/python
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@rm -rf build
	@$(BENCH_VENV)/bin/python -m pip install $(PIP_FLAGS) --force-reinstall --no-deps .
	@$(BENCH_VENV)/bin/python -m pip install $(PIP_FLAGS) .
	@touch $@

$(WHERE): examples/openmp/where.c | system-demo
	@mkdir -p $(CACHE)
	@gcc -fopenmp -O2 -o $@ $<
