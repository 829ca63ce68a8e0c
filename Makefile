# `make demo` and `make test` set up everything they need in .venv; `make help` lists the rest.

PYTHON ?= python3
# TF 2.15 has no wheels for Python above 3.11.
PYTHON311 ?= $(shell command -v python3.11 2>/dev/null || echo python3.11)
# One more than the cores: tests of the service and of processes wait much of their time.
TEST_JOBS ?= 3
# A file's tests share models and bundles, so they stay together; what takes long begins first (tests/conftest.py).
PYTEST = -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

KERAS3 = .venv/.installed
KERAS2 = .venv-keras2/.installed
PEERS = .venv-peers/.installed

.PHONY: help demo test test-all test-keras2 test-all-keras2 lint setup setup-keras2 setup-peers bench clean

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 20

demo: $(KERAS3)  ## the main job: train on photographs, judge on unseen products, publish a bundle, search it
	.venv/bin/tfdml demo --out demo

test: $(KERAS3)  ## the quick tests on the newest TensorFlow with Keras 3
	.venv/bin/python $(PYTEST) -m "not slow"

test-all: $(KERAS3)  ## these and the tests that need minutes
	.venv/bin/python $(PYTEST)

# What is marked one_stack is the same here.
test-keras2: $(KERAS2)  ## the quick tests on TF 2.15 with Keras 2.15, TF Addons and TF Similarity
	.venv-keras2/bin/python $(PYTEST) -m "not slow and not one_stack"

test-all-keras2: $(KERAS2)
	.venv-keras2/bin/python $(PYTEST) -m "not one_stack"

lint: $(KERAS3)  ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

setup: $(KERAS3)  ## .venv: the newest TensorFlow, Keras 3
setup-keras2: $(KERAS2)  ## .venv-keras2: TF 2.15.1, Keras 2.15, TF Addons, TF Similarity (needs Python 3.11)
setup-peers: $(PEERS)  ## .venv-peers: pytorch-metric-learning, for the benchmarks

$(KERAS3): pyproject.toml constraints/keras3.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/keras3.txt -e '.[vision,dev]'
	touch $@

$(KERAS2): pyproject.toml constraints/keras2.txt
	test -x .venv-keras2/bin/python || $(PYTHON311) -m venv .venv-keras2
	.venv-keras2/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/keras2.txt -e '.[keras2,test]'
	touch $@

$(PEERS):
	test -x .venv-peers/bin/python || $(PYTHON311) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check pytorch-metric-learning==2.9.0 faiss-cpu==1.15.1
	touch $@

bench: $(KERAS3) $(KERAS2) $(PEERS)  ## every benchmark beside its peers, in less than an hour: build/bench/README.md
	.venv/bin/python benchmarks/suite.py

clean:
	rm -rf .venv .venv-keras2 .venv-peers demo build dist
