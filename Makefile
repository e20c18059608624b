# Skyward for Kubernetes. `make help` lists the targets; `make hello` and `make test` are the two to begin with.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# every run uses the lock file; tests and the program itself see the same environment
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
RUN := $(UV) run --no-sync
LAYERS := unit fake cluster chaos
PYTEST := $(RUN) python -m pytest
# Real processes on a busy machine meet real time-outs: a failure is run once more, and shown as RERUN.
AGAIN := --reruns 1

.PHONY: help install hello hello-aws test lint $(LAYERS) crds build bench system-packages s3-server clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: .venv/.installed ## create .venv from the lock file

.venv/.installed: uv.lock pyproject.toml sdk/pyproject.toml operator/pyproject.toml | $(UV)
	@echo "install: Python environment from uv.lock"
	$(UV) sync --locked
	@touch $@

.tools/bin/uv:
	@echo "install: uv, into .tools (no uv on the PATH)"
	python3 -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check "uv>=0.9"

hello: install ## train a classifier on two local nodes: installs, starts a control plane, runs examples/digits.py
	$(RUN) python examples/digits.py

hello-aws: install ## the same on "AWS": a double of EC2 on this computer, with real SSH servers; prints what it cost
	$(RUN) python -m tests.aws_double.hello

test: lint $(LAYERS) ## run everything: lint, types, import contracts, and every layer of tests
	@$(RUN) python tests/report.py $(LAYERS)

lint: install ## format check, lint, strict types, import contracts
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy sdk/src operator/src tests benchmarks
	$(RUN) lint-imports

unit: install ## pure code: no processes, no network
	$(PYTEST) tests/unit --junitxml=reports/unit.xml

fake: install system-packages s3-server ## one real part at a time, against a fake of what is around it
	$(PYTEST) tests/fake $(AGAIN) --junitxml=reports/fake.xml

cluster: install system-packages s3-server ## a real API server, the real operator, real SSH, the front door
	$(PYTEST) tests/cluster $(AGAIN) --junitxml=reports/cluster.xml

chaos: install system-packages ## kill each part while work is under way; SEEDS=300 adds as many random rounds
	SEEDS=$(SEEDS) $(PYTEST) tests/chaos $(AGAIN) --junitxml=reports/chaos.xml

crds: install ## write crds/*.yaml and docs/errors.md from the code
	$(RUN) python -m skyward.contract crds
	$(RUN) python docs/write_errors.py

build: install ## build both wheels into dist/
	rm -rf dist
	$(UV) build --all-packages --wheel --out-dir dist

bench: install ## measure beside limits and peers, one table and reports/bench.json; ARGS="call map --quick" for less
	mkdir -p reports
	$(RUN) python -m benchmarks --json reports/bench.json $(ARGS)

system-packages: # OpenSSH's server, which some tests run beside the built-in one
	@command -v sshd >/dev/null || test -x /usr/sbin/sshd || { \
	  echo "install: openssh-server (needed by the tests)"; \
	  as_root=""; [ "$$(id -u)" = 0 ] || as_root="sudo"; \
	  $$as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -y -qq openssh-server >/dev/null; }

s3-server: install # a real S3 server, for the tests of the blob store; built with Go, once per machine
	@$(RUN) python -m tests.fake.s3_server

clean: ## remove what was built here (never the state of a running control plane)
	rm -rf .venv .tools dist build reports .mypy_cache .ruff_cache .pytest_cache .hypothesis
