# The two commands are `make demo` and `make test`; `PYTHON=python3.13 make test` picks another interpreter.

PYTHON ?= python3
INTERPRETER := $(shell $(PYTHON) -c 'import sys; print(sys.executable)' 2>/dev/null || \
	ls -1 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/*/bin/$(notdir $(PYTHON)) 2>/dev/null | tail -n 1)
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# Most tests wait for a server or a deadline, so that more of them than cores run side by side.
JOBS ?= 4
CODE := asgi_ws_guard tests examples benchmarks docs

FOREIGN := a2wsgi anyio httptools httpx httpx2 itsdangerous jinja2 pytest pytest-mock python-dotenv python-multipart pyyaml \
	trio trustme typing_extensions watchfiles wsproto cryptography

# Every interpreter that is supported, the lowest first.
PYTHONS := python3.10 python3.11 python3.12 python3.13
LOWEST := $(VENV)-lowest
# What servers and frameworks of old warn of is theirs; what we call that is deprecated stays an error.
define OLD_WARNINGS
filterwarnings=error
ignore::DeprecationWarning
error::DeprecationWarning:asgi_ws_guard
endef
export OLD_WARNINGS
LOWEST_TESTS := tests/unit tests/interop/test_admission_servers.py tests/interop/test_auth_servers.py \
	tests/interop/test_framework_adapters.py tests/interop/test_from_outside.py tests/interop/test_guarded_servers.py \
	tests/interop/test_health_servers.py tests/interop/test_limits_redis.py tests/interop/test_limits_servers.py \
	tests/interop/test_policy_servers.py tests/interop/test_ticket_race.py

.PHONY: demo test test-all test-lowest lint types unit transparency compatibility model mutants fuzz bench bench-more \
	chaos chaos-hub interpreter venv clean

demo: $(VENV)/.demo
	$(BIN)/asgi-ws-guard demo

test: lint types unit

# Everything that is promised to work: each interpreter with the newest of all, and the oldest of all on the lowest one.
test-all:
	@missing=""; for python in $(PYTHONS); do \
		test -n "$$($(MAKE) --silent interpreter PYTHON=$$python)" || missing="$$missing $$python"; \
	done; test -z "$$missing" || { echo "make test-all needs interpreters that are not here:$$missing"; exit 2; }
	set -e; for python in $(PYTHONS); do $(MAKE) test PYTHON=$$python; done
	$(MAKE) test-lowest PYTHON=$(firstword $(PYTHONS))

# The lowest versions of what is required, of the extras, and of each server and framework, from pyproject.toml.
test-lowest: $(LOWEST)/.lowest
	$(LOWEST)/bin/pytest --numprocesses $(JOBS) --dist loadfile -o "$$OLD_WARNINGS" $(LOWEST_TESTS)

lint: $(VENV)/.dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --cov --cov-report=
	$(BIN)/coverage report --fail-under=100 --include='*/_close.py,*/_exceptions.py,*/_events.py,*/_state.py,*/_connection.py'
	$(BIN)/coverage report --fail-under=95 --omit='*/cli/*'

# The websocket tests of uvicorn and Starlette themselves, behind a transparent guard.
transparency: $(VENV)/.dev
	$(INTERPRETER) -m venv $(VENV)-transparency
	$(VENV)-transparency/bin/python -m pip install --quiet --editable ".[cli]" $(FOREIGN)
	$(VENV)-transparency/bin/python -m tests.transparency

# Every framework on every server, bare and guarded: writes docs/compatibility.md. About ten minutes.
compatibility: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m compatibility

# Writes docs/benchmarks.md and its pictures, in an environment of its own. About ten minutes; `BENCH=--quick`: one.
bench:
	@test -n "$(INTERPRETER)" || { echo "PYTHON=$(PYTHON): there is no such interpreter"; exit 2; }
	$(INTERPRETER) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --upgrade "pip >= 25.1"
	$(VENV)-bench/bin/python -m pip install --quiet --editable ".[cli,otel]" --group bench
	$(VENV)-bench/bin/python -m benchmarks.report $(BENCH)

# What the report does not have: the timers of idle connections, what limits cost and hold back, and the hub, also through Redis.
bench-more: $(VENV)/.dev
	$(BIN)/python -m benchmarks.watch
	$(BIN)/python -m benchmarks.limits
	$(BIN)/python -m benchmarks.flood
	$(BIN)/python -m benchmarks.hub
	PYTHONPATH=tests $(BIN)/python -m benchmarks.hub_redis

# 100,000 seeded clients over all servers; CHAOS="--seed 7 --connections 20000 --servers hypercorn" replays or narrows.
chaos: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m chaos $(CHAOS)

# Three processes that share a Redis, for a minute; CHAOS="--seed 7 --seconds 600" replays or lengthens.
chaos-hub: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m chaos.hub_storm $(CHAOS)

# Whole connections under every interleaving that seeds make; `make model SEED=1 STEPS=1000000`. About two minutes.
STEPS ?= 1000000
model: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m model --steps $(STEPS) $(if $(SEED),--seed $(SEED))

# The guard, broken in one line at a time: the model must find each. About twenty minutes.
mutants: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m model.mutants --steps $(STEPS)

# Foreign input of every kind; `make fuzz EXAMPLES=20000`.
EXAMPLES ?= 5000
fuzz: $(VENV)/.dev
	FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/pytest tests/fuzz --hypothesis-show-statistics

$(VENV)/bin/python:
	@test -n "$(INTERPRETER)" || { echo "PYTHON=$(PYTHON): there is no such interpreter"; exit 2; }
	$(INTERPRETER) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip >= 25.1"

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[cli]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[cli]" --group dev
	touch $@ $(VENV)/.demo

$(LOWEST)/.lowest: pyproject.toml $(VENV)/.dev
	$(INTERPRETER) -m venv --clear $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable ".[auth,cli,limits,msgspec,orjson,otel,redis]" --group lowest
	touch $@

# What the name in PYTHON stands for; nothing when there is no such interpreter.
interpreter:
	@echo $(INTERPRETER)

# Where the environment of this interpreter is.
venv:
	@echo $(VENV)

clean:
	rm -rf .venv .venv-* build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
