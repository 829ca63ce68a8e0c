"""Reads docs/migration.md, and makes the batches that it speaks of.

NumPy only: the values of pytorch-metric-learning, which has no TensorFlow beside it, are made with this module too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

PAGE = Path(__file__).resolve().parents[1] / "docs" / "migration.md"
DIMENSION = 6
CLASSES = 8


class Row(NamedTuple):
    library: str
    theirs: str
    ours: str
    batch: str
    why: str

    def __str__(self) -> str:
        return f"{self.theirs} [{self.batch}]"


def rows() -> list[Row]:
    """All rows of all tables whose second column is tfdml."""
    found, library, width = [], "", 0
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            library = ""
        elif len(cells) > 1 and cells[1] == "tfdml":
            library, width = cells[0], len(cells)
        elif library and not set(line) <= set("|- :"):
            assert len(cells) == width, f"a cell too many or too few: {line}"
            theirs, ours = (re.fullmatch("`([^`]+)`", cell)[1] for cell in cells[:2])
            found.append(Row(library, theirs, ours, cells[2], cells[3] if width > 3 else ""))
    return found


def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels, below CLASSES, and embeddings."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((24, DIMENSION)).astype(np.float32)
    if name == "given pairs":
        return np.arange(24) % 3 % 2, rng.standard_normal((24, 2, DIMENSION)).astype(np.float32)
    labels = {
        "any": np.array([0, 1, 2, 3, 0, 1, 0, 4, 2, 0, 1, 3, 5, 0, 2, 1, 1, 0, 6, 3, 2, 0, 1, 7]),
        "P x K": np.repeat(np.arange(6), 4),
        "pairs": np.repeat(np.arange(12), 2),
        "views": np.tile(np.arange(12), 2),
        "all different": np.arange(24),
        "one class": np.zeros(24, int),
    }[name]
    return labels, x


def class_weights(classes: int) -> np.ndarray:
    return np.random.default_rng(6).standard_normal((classes, DIMENSION)).astype(np.float32)
