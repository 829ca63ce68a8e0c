"""Reads a bundle and prints what it answers: run under one stack on a bundle that another stack made.

python read_bundle.py BUNDLE IMAGE...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tfdml.bundle import Bundle, BundleError, Embedder, verify


def main(path: str, images: list[str]) -> dict[str, object]:
    try:
        verify(path, deep=True)
        embeddings = Embedder(path).embed([Path(image).read_bytes() for image in images])
        with Bundle.open(path) as bundle:
            answers = bundle.search(embeddings, k=5)
    except BundleError as error:
        return {"refused": str(error)}
    return {"embeddings": embeddings.tolist(), "ids": [[hit.id for hit in row] for row in answers]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))
