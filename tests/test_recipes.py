"""Every recipe runs as a user would run it, on little data and for a few steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tfdml

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(RECIPES / name), *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["small", "resnet18_v2"])
def test_product_retrieval(tmp_path, backbone):
    pytest.importorskip("keras_cv")
    photos = tmp_path / "photos"
    data = tfdml.datasets.rendered_catalogue(classes=8, views=4, image_size=64)
    for number, item in enumerate(data.ids):
        path = photos / f"{item}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.image_bytes(number))
    options = ["--steps", 3, "--classes", 4, "--examples", 2, "--backbone", backbone]
    output = run("product_retrieval.py", "--photos", photos, "--to", tmp_path / "exports", *options)
    assert "untrained: Recall@1" in output
    assert "trained: Recall@1" in output
    assert output.count("product-") >= 6
    assert len(tfdml.bundle.Bundle.open(tmp_path / "exports")) == 15


def test_recipes_are_short():
    for path in RECIPES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 150, path.name
