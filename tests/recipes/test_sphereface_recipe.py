from __future__ import annotations

import re

import pytest
from recipe_runs import run

import tfdml


@pytest.mark.slow
def test_sphereface(tmp_path):
    data = tfdml.datasets.rendered_catalogue(classes=12, views=4, image_size=40)
    for number, item in enumerate(data.ids):
        path = tmp_path / f"{item}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.image_bytes(number))
    options = ["--steps", 4, "--classes", 4, "--size", 32, "--depth", 4, "--pairs", 12, "--folds", 3, "--margins", 1, 4]
    output = run("sphereface.py", "--data", tmp_path, *options)
    assert "24 photographs of 6 products never trained on" in output
    assert len(re.findall(r"m = \d: loss .*; lambda ends at 5\.0", output)) == 2
    rows = re.findall(r"^(.+?) +(\d+\.\d%) ± (\d+\.\d%) +(\d+\.\d%) +(\d+\.\d%)$", output, re.MULTILINE)
    assert [name for name, *_ in rows] == [
        "untrained network",
        "m = 1",
        "m = 1, image and mirror image",
        "m = 4",
        "m = 4, image and mirror image",
    ]
