"""Small models, galleries and ready-made bundles for the tests of `tfdml.bundle`."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 12
ITEMS = 24


def gallery_images(count: int = ITEMS, side: int = SIDE) -> np.ndarray:
    """uint8 [count, side, side, 3]: smooth, all different."""
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, [count, 4, 4, 3], np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), Image.BICUBIC)) for image in small])


def gallery_dataset(count: int = ITEMS, **fields):
    """A dataset of `gallery_images`, two of each class."""
    from tfdml.datasets import Dataset

    fields = fields or {"title": [f"Thing {i}" for i in range(count)], "price": [1.5 * i for i in range(count)]}
    return Dataset.from_arrays(
        gallery_images(count), [f"class-{i // 2}" for i in range(count)], [f"item/{i}" for i in range(count)], fields
    )


def tiny_model(dimension: int = 6, normalize: bool = True, seed: int = 3):
    """An `EmbeddingModel` with dropout and batch normalisation, whose inference differs from training."""
    import keras

    import tfdml

    keras.utils.set_random_seed(seed)
    encoder = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, strides=2),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(dimension),
        ]
    )
    return tfdml.EmbeddingModel(encoder, normalize=normalize)


def encoded(image: np.ndarray, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format, **options)
    return buffer.getvalue()


def linked_copy(source: Path, target: Path) -> Path:
    """A copy of a bundle by hard links: a file must be replaced, never written in place (see `replace`)."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


def replace(path: Path, data: bytes) -> None:
    """Gives `path` other content without touching the file that it is linked with."""
    path.unlink()
    path.write_bytes(data)


def pack_fake_model(
    directory: Path,
    vectors: np.ndarray,
    model_bytes: bytes = b"not a real graph",
    recall: float = 0.5,
    trees: int = 2,
    fields: dict[str, list] | None = None,
    thumbnails: list[bytes] | None = None,
):
    """A bundle whose SavedModel is only bytes: enough for everything that needs no TensorFlow."""
    from tfdml.bundle.packing import Gallery, pack

    (directory / "variables").mkdir()
    (directory / "saved_model.pb").write_bytes(model_bytes)
    (directory / "variables" / "variables.index").write_bytes(b"index" * 7)
    (directory / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(range(200)))
    fields = fields or {"title": [f"Thing {i}" for i in range(len(vectors))], "price": [0.5 * i for i in range(len(vectors))]}
    ids = [f"item/{i}" for i in range(len(vectors))]
    gallery = Gallery(np.asarray(vectors, np.float32), ids, fields, "euclidean", thumbnails=thumbnails)
    return pack(directory, gallery, fake_record(vectors.shape[1]), recall=recall, trees=trees)


def fake_record(dimension: int):
    from tfdml.bundle.manifest import ModelRecord

    return ModelRecord("", dimension, False, (SIDE, SIDE, 3), {"size": [SIDE, SIDE]}, 1000, ("serving_default", "embed_images"))


def edited(manifest, **changes):
    """A manifest with other content and a checksum that fits: what a careful forger would write."""
    return dataclasses.replace(manifest, **changes)
