"""Recipes as a user runs them, on little data and for a few steps."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import keras

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def run(name: str, *arguments: object) -> str:
    """What the recipe `name` prints, run as a script in this process, which has imported TensorFlow already."""
    command = [str(RECIPES / name), *map(str, arguments)]
    printed = io.StringIO()
    keras.utils.set_random_seed(0)
    with mock.patch.object(sys, "argv", command), contextlib.redirect_stdout(printed):
        runpy.run_path(command[0], run_name="__main__")
    keras.backend.clear_session()
    return printed.getvalue()


def run_alone(name: str, *arguments: object) -> str:
    """The same in a process of its own, in which nothing is imported that the recipe does not import."""
    command = [sys.executable, str(RECIPES / name), *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout
