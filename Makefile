# `make train` and `make test` set up .venv if there is none; the README shows the plain pip lines they stand for.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
EXTRAS ?= dev

.PHONY: help train test test-slow test-smoke soak third-party lint types check clean

help:
	@echo "make train   install, then clone and fine-tune the built-in curriculum 'rooms' (about a minute)"
	@echo "make test    install, then run the fast tests (under 5 minutes on 2 cores)"
	@echo "make check   lint, types, fast and slow tests"
	@echo "make soak    kill, damage and fuzz runs hundreds and thousands of times; search for new examples in property tests"
	@echo "make third-party   train on environments of other packages, each in a virtual environment of its own"

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"
	$(VENV)/bin/python -m pip install --quiet --no-deps imitation==1.0.1
	@touch $@

train: $(VENV)/installed
	$(VENV)/bin/rlstages train rooms

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest -m "not slow" -n 2

test-slow: $(VENV)/installed
	$(VENV)/bin/python -m pytest -m "slow and not soak" -n 2

# What depends on the versions of gymnasium, stable-baselines3, imitation and NumPy, for the stack of 2023.
SMOKE = tests/test_end_to_end.py tests/demonstrations/test_demonstrations.py tests/play/test_experts.py \
	tests/play/test_saved_policies.py tests/play/test_recording.py tests/play/test_vecnormalize.py \
	tests/training/test_preflight.py tests/environments tests/stages/test_cloning.py \
	tests/learners/test_engines_torch.py \
	--ignore=tests/environments/test_batched_env.py --ignore=tests/environments/test_spaces.py

test-smoke: $(VENV)/installed
	$(VENV)/bin/python -m pytest -m "not slow" -n 2 $(SMOKE)

soak: $(VENV)/installed
	$(VENV)/bin/python -m pytest -m soak -n 2 -rP
	for round in 1 2 3 4 5; do \
		$(VENV)/bin/python -m pytest -m hypothesis --hypothesis-profile=search -n 2 || exit 1; \
	done

third-party:
	sh examples/third_party/run.sh

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo

types: $(VENV)/installed
	$(VENV)/bin/mypy

check: lint types test test-slow

clean:
	rm -rf $(VENV) build *.egg-info
