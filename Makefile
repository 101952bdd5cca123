# Every command a developer needs; each does its own set-up first. `make` alone lists them.
#
# What is installed and built, and when it is done again, is tools/setup.sh's business.

PYTHON ?= python3
export PYTHON
# In the virtual environment; relative, so that the folder may be anywhere.
BIN := .venv/bin
PY := $(BIN)/python

# The test runner's arguments: make test ARGS="-k raft".
ARGS ?=
BENCH ?= replicated --backend uv --outstanding 64 --duration 3
DEMO ?=
FIGURES ?=
COMPARE ?=
SIM ?= --seeds 0:1000 --events 20000
BOUNDS ?= members_count=3,term_max=2,round_max=2,restarts_max=1,states_max=4000000

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-nic pytest lint types bench profile flame figures compare coverage sanitize simulate mutants explore format reference lock clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r t h; do printf '%-18s %s\n' "$$t" "$$h"; done

setup: ## install what is missing and build the compiled modules (nothing to do: under two seconds)
	@sh tools/setup.sh

demo: setup ## a replicated service on three processes: load, a killed leader, proof (about a minute)
	@$(PY) -m r2p2 demo $(DEMO)

bench: setup ## throughput and latency: make bench BENCH="echo --backend uv --outstanding 64"
	@$(PY) -m r2p2 bench $(BENCH)

profile: setup ## nanoseconds a request in each layer of each process (perf): make profile BENCH="echo --backend uv"
	@$(PY) -m r2p2 bench $(if $(filter file,$(origin BENCH)),replicated --backend dpdk --outstanding 512,$(BENCH)) --profile

flame: setup ## a flame graph of each process in out/flame: make flame BENCH="replicated --backend uv --duration 4"
	@PYTHONPATH=. $(PY) benchmarks/flame.py $(if $(filter file,$(origin BENCH)),,-- $(BENCH))

figures: setup ## every figure of docs/performance.md anew (twenty minutes, a quiet machine): make figures FIGURES="--quick"
	@$(PY) -m benchmarks.figures $(FIGURES)

compare: setup ## beside etcd, PySyncObj, gRPC, ...: ratios into docs/performance.md; installs them (a quarter of an hour; COMPARE="--quick")
	@sh tools/compare_setup.sh
	@$(PY) -m benchmarks.compare $(COMPARE)

test: lint types pytest ## lint, types, C warnings as errors, then every test

pytest: setup ## the tests alone: make pytest ARGS="tests/raft -x"
	@sh tools/test.sh $(ARGS)

lint: setup ## ruff, its formatter as a check, and gcc's warnings over every C file
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(PY) tools/make_pyi.py --check
	@$(PY) tools/check_c.py

types: setup ## mypy --strict over the packages, the tools and the tests
	@$(PY) tools/check_types.py

test-nic: setup ## a server on emulated NICs (e1000, e1000e, virtio) in a virtual machine, called from outside; as root, about a minute
	@$(PY) -m tools.nic $(ARGS)

coverage: setup ## lines and branches of raft/ that its tests do not come by; anything under 100 % is a failure
	@$(PY) -m coverage run -m pytest tests/raft -q --ignore=tests/raft/test_coverage.py && $(PY) -m coverage report

sanitize: setup ## the tests with the C modules under AddressSanitizer and UBSan, in a copy (about three minutes)
	@sh tools/sanitize.sh $(ARGS)

simulate: setup ## Raft under faults from seeds, checked: make simulate SIM="--seeds 0:1000 --events 20000" (two minutes)
	@$(PY) -m r2p2 sim $(SIM)

mutants: setup ## known bugs put back into the core, each to be killed by a seed or a scenario (a minute)
	@PYTHONPATH=. $(PY) tests/museum/mutants.py $(ARGS)

explore: setup ## every run of a tiny cluster: make explore BOUNDS="members_count=3,states_max=1000000" (a minute)
	@$(PY) -m r2p2 sim --exhaustive --bounds $(BOUNDS)

format: setup ## rewrite the Python files the way `make lint` wants them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

reference: setup ## make docs/reference anew from the code: counters, limits, the command line
	@$(PY) tools/make_reference.py

lock: setup ## make requirements/*.txt anew from requirements/*.in (asks the package index)
	@sh tools/lock.sh

clean: ## remove what was built and written, keep the virtual environment
	@sh tools/clean.sh

distclean: clean ## remove the virtual environment too
	@rm -rf .venv .venv-compare .stamps
