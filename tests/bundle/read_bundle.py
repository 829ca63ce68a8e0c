"""Reads a bundle and prints what it answers: run under one stack on a bundle that another stack made.

python read_bundle.py BUNDLE IMAGE...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tfdml.bundle import Bundle, BundleError, Embedder, Searcher, verify


def main(path: str, images: list[str]) -> dict[str, object]:
    try:
        verify(path, deep=True)
        files = [Path(image).read_bytes() for image in images]
        embeddings = Embedder(path).embed(files)
        searched = Searcher(path).search(files, k=5).ids
        with Bundle.open(path) as bundle:
            answers = bundle.search(embeddings, k=5)
    except BundleError as error:
        return {"refused": str(error)}
    return {
        "embeddings": embeddings.tolist(),
        "ids": [[hit.id for hit in row] for row in answers],
        "searched": searched.tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))
