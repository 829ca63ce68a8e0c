"""Computes what retrieval's figures are held to: python tests/evaluation_peer_values.py

Run it where pytorch-metric-learning and faiss-cpu are installed, when its cases have changed. The figures are those of its
AccuracyCalculator over the whole ranking, with its own normalised Euclidean search for cosine.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "evaluation" / "accuracy_calculator_values.json"
NAMES = {
    "precision_at_1": "recall_at_1",
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "map_at_r",
    "mean_average_precision": "map",
    "mean_reciprocal_rank": "mrr",
}


def case(metric: str, with_gallery: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries with their labels, items with theirs: numbers that every NumPy draws alike, in classes of different sizes."""
    random = np.random.RandomState(with_gallery + 2 * (metric == "cosine"))
    centres = random.normal(size=(12, 6))
    labels = np.concatenate([np.repeat(np.arange(12), 2), random.randint(0, 12, 126)])
    rows = (centres[labels] + 1.1 * random.normal(size=(150, 6))).astype(np.float32)
    if not with_gallery:
        return rows, labels, rows, labels
    return rows[:50], labels[:50], rows[50:], labels[50:]


def main() -> None:
    import pytorch_metric_learning
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    values: dict[str, object] = {"pytorch-metric-learning": pytorch_metric_learning.__version__}
    for metric in ("cosine", "euclidean"):
        for with_gallery in (False, True):
            queries, labels, items, item_labels = case(metric, with_gallery)
            if metric == "cosine":
                queries, items = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, items))
            calculator = AccuracyCalculator(include=tuple(NAMES), k=None, device=torch.device("cpu"))
            found = calculator.get_accuracy(
                torch.from_numpy(queries),
                torch.from_numpy(labels),
                torch.from_numpy(items),
                torch.from_numpy(item_labels),
                ref_includes_query=not with_gallery,
            )
            key = f"{metric}, {'gallery' if with_gallery else 'leave-one-out'}"
            values[key] = {NAMES[name]: round(float(value), 9) for name, value in found.items()}
    FILE.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
