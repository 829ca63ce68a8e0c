from __future__ import annotations

import re

import pytest
from recipe_runs import run


@pytest.mark.slow
@pytest.mark.one_stack
def test_deep_ranking():
    options = ("--steps", 2, "--batch", 8, "--size", 32, "--pool", 200, "--triplets", 300)
    output = run("deep_ranking.py", "--data", "rendered_catalogue", *options)
    rows = re.findall(
        r"^(.+?) *: similarity precision ([\d.]+)% \(within a category ([\d.]+)%\), score-at-top-30 ([+-]\d+)$",
        output,
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == [
        "raw pixels",
        "colour histogram",
        "one scale, trained",
        "several scales, untrained",
        "several scales, trained",
    ]
    for _, precision, within, score in rows:
        assert 20 < float(precision) < 100
        assert 20 < float(within) < 100
        assert abs(int(score)) <= 300
