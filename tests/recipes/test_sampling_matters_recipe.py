from __future__ import annotations

import re

import pytest
from recipe_runs import run


@pytest.mark.slow
@pytest.mark.one_stack
def test_sampling_matters():
    options = ["--steps", 2, "--classes", 4, "--sampling", "distance_weighted"]
    output = run("sampling_matters.py", "--data", "rendered_catalogue", *options)
    assert re.search(r"^untrained +: Recall@1 [\d.]+%, MAP@R [\d.]+%$", output, re.MULTILINE)
    rows = re.findall(
        r"^ *(\w+), (\w+) *: Recall@1 ([\d.]+)%, MAP@R ([\d.]+)%(, boundary [\d.]+)?  \[\d+ s\]$", output, re.MULTILINE
    )
    assert [row[:2] for row in rows] == [("triplet", "distance_weighted"), ("margin", "distance_weighted")]
    for loss, _, recall, precision, boundary in rows:
        assert 0 < float(precision) <= float(recall) <= 100
        # Two steps of Adam move it by 0.002 at most.
        assert boundary == (", boundary 0.60" if loss == "margin" else "")


@pytest.mark.slow
@pytest.mark.one_stack
def test_several_seeds_give_a_spread():
    options = ["--losses", "margin", "--sampling", "random", "--seeds", 0, 1, "--judge-classes", 8]
    output = run("sampling_matters.py", "--data", "rendered_catalogue", "--steps", 1, "--classes", 4, *options)
    mean, lowest, highest = map(float, re.search(r"MAP@R ([\d.]+)% \(([\d.]+)% to ([\d.]+)%\)", output).groups())
    assert 0 < lowest <= mean <= highest
