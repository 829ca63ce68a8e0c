"""Shared set-up: quiet TensorFlow, and the tests' own helper modules on the path."""

from __future__ import annotations

import gc
import inspect
import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers are about as many as the cores: threads of their own would only wait for each other.
    for threads in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(threads, "1")

TESTS = Path(__file__).resolve().parent
for folder in (TESTS, TESTS.parent, TESTS.parent / "serving"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

# Docstring examples are looked for in every module, and two files named conftest cannot both be imported as modules.
collect_ignore_glob = ["*conftest.py"]

from bundle_fixtures import exported, exported_with_lists, packed  # noqa: E402, F401

# These rooms load no TensorFlow, and neither do their tests.
ONE_STACK_ROOMS = (TESTS / "index", TESTS / "serving")

# A test of a sampler that names one of these meets Keras, or asks that every version draws the same.
OF_EACH_STACK = ("keras", ".fit(", "callback", "every_version")

# Grappler takes a sixth of the time of all tests. What it may spoil is arithmetic, so the newest TensorFlow has it where that
# is tested; and so has every process of its own, on both stacks.
KERAS_2 = metadata.version("tensorflow").startswith("2.15.")
GRAPPLER_ROOMS = () if KERAS_2 else (TESTS / "layers", TESTS / "losses", TESTS / "mining")


def same_on_both_stacks(item: pytest.Item) -> bool:
    if isinstance(item, pytest.DoctestItem) or any(room in item.path.parents for room in ONE_STACK_ROOMS):
        return True
    if "xla" in item.name:  # it compiles what both stacks trace alike, and takes seconds each time
        return True
    # Samplers draw integers with no Keras; that every version draws the same is asked of both.
    of_samplers = item.path.parent == TESTS / "samplers" and isinstance(item, pytest.Function)
    return of_samplers and not any(word in inspect.getsource(item.function) for word in OF_EACH_STACK)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is the same on both stacks. What takes long begins first, so that no core is idle at the end."""
    for item in items:
        if same_on_both_stacks(item):
            item.add_marker("one_stack")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Leaves what the imports made out of every garbage collection: a million objects, and traces of graphs ask for many."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Switches Grappler on or off for the test's room, where a test module has loaded TensorFlow."""
    if "tensorflow" in sys.modules:
        optimizer = sys.modules["tensorflow"].config.optimizer
        off = not any(room in item.path.parents for room in GRAPPLER_ROOMS)
        if optimizer.get_experimental_options().get("disable_meta_optimizer") != off:
            optimizer.set_experimental_options({"disable_meta_optimizer": off})
