from __future__ import annotations

import re

import pytest
from recipe_runs import run


@pytest.mark.slow
@pytest.mark.one_stack
def test_deepid2():
    small = ["--steps", 3, "--classes", 6, "--examples", 3, "--size", 39, "--components", 10]
    output = run("deepid2.py", "--data", "rendered_catalogue", *small)
    assert re.search(r"classes: \d+ train the network, \d+ Joint Bayesian; \d+ unseen", output)
    accuracies = {}
    for weight in ("0", "0.05"):
        assert re.search(
            rf"lambda = {weight}: margin 1.00, scatter within classes [\d.]+, between them [\d.]+, ratio [\d.]+", output
        )
        part = output[output.index(f"lambda = {weight}:") :]
        for name in ("L2 distance", "Joint Bayesian"):
            figures = re.search(rf"{name} +accuracy ([\d.]+)% ± [\d.]+%, EER [\d.]+%", part)
            accuracies[weight, name] = float(figures[1])
            assert 40 < float(figures[1]) <= 100
    for name in ("L2 distance", "Joint Bayesian"):
        gain = re.search(rf"joint minus identification alone, {name}: ([+-][\d.]+) points of accuracy", output)
        assert float(gain[1]) == pytest.approx(accuracies["0.05", name] - accuracies["0", name], abs=0.06)
    for weight in ("0", "0.05"):
        gain = re.search(rf"Joint Bayesian minus L2 distance, lambda = {weight}: ([+-][\d.]+) points of accuracy", output)
        expected = accuracies[weight, "Joint Bayesian"] - accuracies[weight, "L2 distance"]
        assert float(gain[1]) == pytest.approx(expected, abs=0.06)
