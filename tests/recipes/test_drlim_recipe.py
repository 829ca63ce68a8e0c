from __future__ import annotations

import re

import pytest
from PIL import Image
from recipe_runs import run

SMALL = ("--data", "rendered_catalogue", "--steps", 3, "--images", 60, "--pairs", 16)


@pytest.mark.slow
@pytest.mark.one_stack
def test_drlim(tmp_path):
    output = run("drlim.py", *SMALL, "--out", tmp_path)
    rows = re.findall(r"^(.+?) *: 5 nearest neighbours ([\d.]+)% right, R-Precision ([\d.]+)%$", output, re.MULTILINE)
    assert [name for name, _, _ in rows] == ["raw pixels (1,024 numbers)", "PCA (2 numbers)", "DrLIM (2 numbers)"]
    for _, right, precision in rows:
        assert 20 < float(right) <= 100
        assert 20 < float(precision) <= 100
    assert min(Image.open(tmp_path / "drlim.png").size) > 500


@pytest.mark.slow
@pytest.mark.one_stack
def test_drlim_shifted(tmp_path):
    output = run("drlim.py", *SMALL, "--shifted", "--out", tmp_path)
    rows = re.findall(r"^(.+?) *: an image is ([\d.]+) from its shifted copies", output, re.MULTILINE)
    assert [name for name, _ in rows] == ["neighbours in pixels", "shifts declared neighbours"]
    assert all(0 < float(ratio) < 3 for _, ratio in rows)
    assert len(list(tmp_path.glob("drlim_*.png"))) == 2
