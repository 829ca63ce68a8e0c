"""Bundles of any size for the benchmarks of the service: vectors in clusters, with or without a network that runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "serving")]

SIDE, DIMENSION, K = 96, 128, 10
QUERIES = 512
PER_CLUSTER = 50
NOISE = 0.6


def clustered(items: int, dimension: int = DIMENSION, queries: int = QUERIES) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around `items / 50` directions, and queries of the same kind."""
    rng = np.random.default_rng(0)
    around = rng.standard_normal((max(1, items // PER_CLUSTER), dimension), np.float32)
    rows = np.empty((items + queries, dimension), np.float32)
    for start in range(0, len(rows), 100_000):
        part = rows[start : start + 100_000]
        part[:] = around[rng.integers(0, len(around), len(part))] + NOISE * rng.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows[:items], rows[items:]


def make_bundle(path: Path, items: int, dimension: int = DIMENSION, network: bool = False) -> Path:
    """One version, unless it is there already; beside it its queries, `<version>-queries.npy`.

    Args:
        path: the version's directory.
        items: how many items.
        dimension: of the embeddings.
        network: a small convolutional network as the SavedModel; else random bytes, as many as the gallery would have in the
            search signatures.
    """
    if (path / "assets.extra").exists():
        return path
    from tfdml.bundle.manifest import ModelRecord
    from tfdml.bundle.packing import Gallery, pack

    rows, queries = clustered(items, dimension)
    path.mkdir(parents=True, exist_ok=True)
    np.save(path.parent / f"{path.name}-queries.npy", queries)
    if network:
        write_network(path, dimension)
    else:
        write_bytes(path, items * 530)
    rng = np.random.default_rng(1)
    fields: dict[str, Any] = {
        "category": [f"category-{i}" for i in rng.integers(0, 100, items)],
        "brand": [f"brand-{i}" for i in rng.integers(0, 10, items)],
        "in_stock": rng.integers(0, 2, items).tolist(),
        "price": np.round(rng.gamma(2, 10, items), 2).tolist(),
        "title": [f"Thing number {i}" for i in range(items)],
    }
    config = {"size": [SIDE, SIDE], "channels": 3, "fit": "crop", "resize": [SIDE, SIDE]}
    signatures = ("serving_default", "embed_images")
    record = ModelRecord("", dimension, True, (SIDE, SIDE, 3), config, 50_000_000, signatures)
    pack(path, Gallery(rows, [f"item-{i}" for i in range(items)], fields, "cosine"), record, recall=0.95)
    return path


def write_bytes(path: Path, count: int) -> None:
    (path / "variables").mkdir()
    (path / "saved_model.pb").write_bytes(b"not a real graph")
    (path / "variables" / "variables.index").write_bytes(b"not a real index")
    rng = np.random.default_rng(0)
    with open(path / "variables" / "variables.data-00000-of-00001", "wb") as file:
        for start in range(0, count, 1 << 24):
            file.write(rng.bytes(min(1 << 24, count - start)))


def write_network(path: Path, dimension: int) -> None:
    """A small network of the kind that is used for products."""
    import keras

    import tfdml
    from tfdml.bundle.saved_model import write_saved_model
    from tfdml.preprocessing import ImagePreprocessing

    image = keras.Input((SIDE, SIDE, 3))
    backbone = keras.applications.MobileNetV2((SIDE, SIDE, 3), alpha=0.5, include_top=False, weights=None, pooling="avg")
    features = backbone(keras.layers.Rescaling(1 / 127.5, -1)(image))
    model = tfdml.EmbeddingModel(keras.Model(image, keras.layers.Dense(dimension)(features)))
    write_saved_model(model, path, ImagePreprocessing(size=SIDE))
