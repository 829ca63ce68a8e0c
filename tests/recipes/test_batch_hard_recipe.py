from __future__ import annotations

import re

import pytest
from recipe_runs import run

import tfdml


@pytest.mark.slow
@pytest.mark.one_stack
def test_batch_hard(tmp_path):
    data = tfdml.datasets.rendered_catalogue(classes=10, views=4, image_size=40)
    for number, item in enumerate(data.ids):
        path = tmp_path / f"{item}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.image_bytes(number))
    options = ["--steps", 4, "--classes", 4, "--examples", 2, "--size", 32]
    output = run("batch_hard.py", "--data", tmp_path, *options)
    assert "20 photographs of 5 products never trained on" in output
    assert len(re.findall(r"mining='(?:random|hard)': loss \d", output)) == 2
    figures = dict(re.findall(r"^(.+?) +(\d+\.\d%) +\d+\.\d%$", output, re.MULTILINE))
    assert list(figures) == [
        "untrained network",
        "plain triplets, random negatives",
        "batch hard",
        "batch hard, mirror image averaged",
        "batch hard, five crops and mirror images",
        "... and k-reciprocal re-ranking",
    ]
