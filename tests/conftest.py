"""Shared set-up: quiet TensorFlow, and the tests' own helper modules on the path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

TESTS = Path(__file__).resolve().parent
for folder in (TESTS, TESTS.parent, TESTS.parent / "serving"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

# Docstring examples are looked for in every module, and two files named conftest cannot both be imported as modules.
collect_ignore_glob = ["*conftest.py"]

from bundle_fixtures import exported, exported_with_lists, packed  # noqa: E402, F401
