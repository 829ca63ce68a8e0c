from __future__ import annotations

import re

import pytest
from recipe_runs import run


@pytest.mark.slow
@pytest.mark.one_stack
def test_n_pair():
    options = ("--steps", 2, "--classes", 4, "--candidates", 20, "--judge-classes", 20)
    rows = ("triplet", "mc-nm")
    output = run("n_pair.py", "--data", "rendered_catalogue", *options, "--rows", *rows)
    found = re.findall(r"^(.+?) *: Recall@1 ([\d.]+)%, MAP@R ([\d.]+)%  \[\d+ s\]$", output, re.MULTILINE)
    assert [row[0] for row in found] == ["triplet, random negatives", "N-pair-mc, mined classes"]
    for _, recall, precision in found:
        assert 0 < float(precision) <= float(recall) <= 100
