"""A small embedding with pictures: something to report."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tfdml.report import Subject

NAMES = ("cup", "lamp & shade", "<script>alert(1)</script>", "the only one")


def subject(**changes) -> Subject:
    """24 images of 3 classes, and one of a fourth; two of the images are the same picture."""
    random = np.random.default_rng(0)
    labels = np.append(np.arange(24) % 3, 3)
    embeddings = np.eye(4)[labels] + 0.33 * random.normal(size=(25, 4))
    # An image whose neighbours are of one class, so that a wrong label of it stands out.
    embeddings[7] = np.eye(4)[labels[7]]
    pictures = [picture(seed) for seed in range(25)]
    pictures[9] = pictures[3]
    given = {
        "embeddings": embeddings,
        "labels": labels,
        "class_names": NAMES,
        "ids": [f"item {number}" for number in range(25)],
        "image_bytes": pictures.__getitem__,
        "title": "Lamps & cups",
        "subtitle": "25 images",
        "floors": {"raw pixels": {"recall_at_1": 0.12, "r_precision": 0.1, "map_at_r": 0.05}},
        "history": {"loss": ([10, 20, 30], [0.3, 0.2, 0.1]), "val_map_at_r": ([10, 20], [0.2, 0.3])},
        "remarks": ["A remark."],
        "facts": [("made by", "a fact")],
    }
    return Subject(**{**given, **changes})


def picture(seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((80, 70), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
