"""Writes a golden bundle, which every later version must read: python make_golden.py TO

Those in the repository were written under TensorFlow 2.15, each by the first version with its manifest schema (`golden` has
schema 1, `golden_2` schema 2, `golden_3` schema 3), and are never written anew.
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
    options = {"evaluation": evaluation, "thresholds": {"example": threshold}}
    searching = {"search": "ivf", "search_fields": ["label", "price"], "max_k": 20}
    with bundle.export(model, data, to, 1, trees=4, thumbnails=0, **options, **searching) as published:
        queries = [data.image_bytes(number) for number in (0, 7, 20)]
        embeddings = bundle.Embedder(published.path).embed(queries)
        ids = [[hit.id for hit in row] for row in published.search(embeddings, k=4)]
        found = bundle.Searcher(published.path).search(queries, k=4)
    arrays = {"embeddings": embeddings, "ids": np.array(ids, "U"), "searched": found.ids.astype("U")}
    np.savez_compressed(Path(to) / "expected.npz", **arrays, distances=found.distances)


if __name__ == "__main__":
    main(sys.argv[1])
