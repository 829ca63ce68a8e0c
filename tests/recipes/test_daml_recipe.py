from __future__ import annotations

import re

import pytest
from recipe_runs import run


@pytest.mark.slow
@pytest.mark.one_stack
def test_daml():
    small = ["--data", "rendered_catalogue", "--steps", 20, "--classes", 4, "--filters", 4, 8]
    output = run("daml.py", *small)
    rows = dict(re.findall(r"^ +(.+?)  ([\d.]+)%  \(", output, re.M))
    assert list(rows) == [
        "triplet, random negatives",
        "triplet, semi_hard negatives",
        "DAML, generator at rest",
        "DAML",
    ]
    assert all(0 < float(value) < 100 for value in rows.values())
    assert output.count("seed 0, ") == 4
    shares = [float(x) for x in re.findall(r"harder synthetic negatives ([\d.]+)%", output)]
    assert len(shares) == 2
    assert shares[1] > 50
