"""Writes the golden bundle, which every later version must read: python make_golden.py TO

The one in the repository was written once, by the first version and under TensorFlow 2.15; it is never written anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle_helpers import gallery_dataset, tiny_model

from tfdml import bundle


def main(to: str) -> None:
    model, data = tiny_model(), gallery_dataset()
    threshold = bundle.Threshold(0.4, 0.3, 0.5, 0.95, "made up for this file")
    evaluation = {"recall_at_1": 0.5}
    with bundle.export(model, data, to, 1, trees=4, evaluation=evaluation, thresholds={"example": threshold}) as published:
        queries = np.array([data.image_bytes(number) for number in (0, 7, 20)], object)
        embeddings = bundle.Embedder(published.path).embed(list(queries))
        ids = [[hit.id for hit in row] for row in published.search(embeddings, k=4)]
    np.savez_compressed(Path(to) / "expected.npz", embeddings=embeddings, ids=np.array(ids, "U"))


if __name__ == "__main__":
    main(sys.argv[1])
