# make demo | make test | make bench: each sets up its own environment first. VENV=... keeps it elsewhere.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# pytest markers to select, e.g. MARKERS="not slow" for the real data too; see pyproject.toml
MARKERS ?=

.PHONY: demo test test-ray bench fuzz mutation assets flags lint format clean

demo: $(VENV)/installed
	$(BIN)/python main.py demo

# A process for each core, with one thread each: small data leave threads waiting for one another.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(if $(MARKERS),-m "$(MARKERS)")

# Sweeps and selections on Ray, also over two nodes of this machine: some minutes
test-ray: $(VENV)/installed-tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray

bench: $(VENV)/installed-tests
	$(BIN)/python -m tests.benchmarks --json bench.json

# 22,000 damaged inputs, about 10 minutes on 2 cores; FUZZ="--kinds images --cases 100000" for others
fuzz: $(VENV)/installed-tests
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(FUZZ)

# 300 small changes of the code, and whether the tests notice them, about 40 minutes on 2 cores;
# MUTATION="--number 20 patchcore/coreset.py" for others
mutation: $(VENV)/installed-tests
	$(BIN)/python -m pip install pytest-cov
	$(BIN)/python -m tests.mutation $(MUTATION)

# the images of the README; ASSETS="--weights FILE" gives the weights of the network
assets: $(VENV)/installed
	$(BIN)/python -m assets.make $(ASSETS)

# the table of flags in docs/
flags: $(VENV)/installed-tests
	$(BIN)/python -m tests.test_readme

lint: $(VENV)/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt
	$(BIN)/python -m pip install -r tests/requirements.txt
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info
