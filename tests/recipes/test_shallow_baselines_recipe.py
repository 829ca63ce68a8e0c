from __future__ import annotations

import re

import pytest
from recipe_runs import run

SMALL = ("--data", "rendered_catalogue", "--steps", 2, "--layout", 60, "--pixels", 8, "--dimension", 8, "--components", 20)


@pytest.mark.slow
@pytest.mark.one_stack
def test_shallow_baselines():
    output = run("shallow_baselines.py", *SMALL)
    rows = re.findall(
        r"^(.+?) +(\d+) numbers: Recall@1 +([\d.]+)%, R-Precision +([\d.]+)%, MAP@R +([\d.]+)%", output, re.MULTILINE
    )
    assert [name for name, *_ in rows] == ["raw pixels", "PCA", "LDA", "NCA", "Isomap", "trained embedding"]
    assert [int(numbers) for _, numbers, *_ in rows] == [8 * 8 * 3, 8, 8, 8, 8, 8]
    assert all(0 < float(figure) <= 100 for _, _, *figures in rows for figure in figures)
    for name in ("MDS", "t-SNE"):
        moved = re.search(
            rf"^{name} cannot embed an unseen image; when 6 images join, old points move by (\d+)%", output, re.MULTILINE
        )
        assert moved
    assert re.search(r"^PCA can", output, re.MULTILINE)
