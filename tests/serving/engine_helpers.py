"""Small bundles for the tests of the engine, and what they should answer, by definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bundle_helpers import fake_record
from tfdml_serving.engine import base_search

from tfdml.bundle.packing import Gallery, pack

FIELDS = {"kind": "text", "stock": "integer", "price": "real"}
CONDITIONS = {
    "kind = milk": lambda f: f["kind"] == "milk",
    "kind = milk and stock = 1": lambda f: f["kind"] == "milk" and f["stock"] == 1,
    "not kind = milk": lambda f: f["kind"] is not None and f["kind"] != "milk",
    "price < 3 or kind is null": lambda f: (f["price"] is not None and f["price"] < 3) or f["kind"] is None,
    "kind like '%E%' and price > 1.5": lambda f: "e" in (f["kind"] or "") and f["price"] is not None and f["price"] > 1.5,
    "kind = nothing": lambda f: False,
}
"""Filters, and the same in Python."""


def prefer_the_index(patch) -> None:
    """Has the engine search by the index wherever there is one, whatever comparing would cost."""
    patch.setattr(base_search, "_ALWAYS_EXACT", 0)
    patch.setattr(base_search, "_CALL_COST", {})
    patch.setattr(base_search, "_CANDIDATE_COST", dict.fromkeys(base_search._CANDIDATE_COST, 1e-6))


def random_vectors(rng: np.random.Generator, count: int, dimension: int = 8) -> np.ndarray:
    centres = np.random.default_rng(7).normal(size=(12, dimension))
    return (centres[rng.integers(0, 12, count)] + 0.5 * rng.normal(size=(count, dimension))).astype(np.float32)


def random_fields(rng: np.random.Generator) -> dict:
    return {
        "kind": rng.choice(["milk", "tea", "coffee", None]),
        "stock": rng.choice([0, 1, 2, None]),
        "price": rng.choice([None, *np.arange(0.5, 6, 0.5).tolist()]),
    }


def make_bundle(
    path: Path,
    items: dict[str, tuple[dict, np.ndarray]],
    metric: str = "euclidean",
    thumbnails=None,
    space: str = "",
    **options,
) -> Path:
    """A version directory with these items, whose SavedModel is only bytes."""
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"not a real graph")
    (path / "variables" / "variables.index").write_bytes(b"index")
    vectors = np.stack([vector for _, vector in items.values()])
    columns = {name: [fields[name] for fields, _ in items.values()] for name in FIELDS}
    gallery = Gallery(vectors, list(items), columns, metric, thumbnails=thumbnails)
    options = {"trees": 4, **options} if options.get("index", "annoy") == "annoy" else options
    pack(path, gallery, fake_record(vectors.shape[1]), **{"recall": 0.9, "space": space, **options})
    return path


def random_items(seed: int, count: int, prefix: str = "item") -> dict[str, tuple[dict, np.ndarray]]:
    rng = np.random.default_rng(seed)
    vectors = random_vectors(rng, count)
    return {f"{prefix}-{number}": (random_fields(rng), vectors[number]) for number in range(count)}


def brute_force(
    items: dict[str, tuple[dict, np.ndarray]], query, k: int, metric: str, condition=None
) -> list[tuple[str, float]]:
    """(distance, id) of the k nearest items, by the definition in float64."""
    found = []
    for name, (fields, vector) in items.items():
        if condition is None or condition(fields):
            u, v = np.asarray(query, np.float64), np.asarray(vector, np.float64)
            if metric == "cosine":
                distance = 1 - u @ v / np.sqrt((u @ u) * (v @ v))
            else:
                distance = np.sqrt(((u - v) ** 2).sum())
            found.append((float(distance), name))
    return sorted(found)[:k]
