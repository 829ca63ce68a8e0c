"""Two versions of a small bundle of drawn products, and an embedder for both that needs no TensorFlow."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from bundle_helpers import SIDE
from PIL import Image, ImageDraw, ImageOps

if TYPE_CHECKING:
    from tfdml_serving.embedding.base import ModelVersion

PRODUCTS, VIEWS, PICTURE = 12, 5, 96
THRESHOLDS = {1: 0.45, 2: 0.55}
SHAPES = ("jar", "box", "tin")
COLOURS = ("red", "green", "blue", "grey")


def embed_pixels(file: bytes, version: int) -> npt.NDArray[np.float32]:
    """A unit vector of an image's colours: version 1 looks at fewer than version 2, so that their answers differ."""
    with Image.open(io.BytesIO(file)) as image:
        picture = ImageOps.exif_transpose(image).convert("RGB")
    side = {1: 3, 2: 6}[version]
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.BOX), np.float32).ravel()
    vector = np.zeros(DIMENSION, np.float32)
    vector[: len(pixels)] = pixels - 128
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


DIMENSION = 6 * 6 * 3


class PixelEmbedder:
    """An `ImageEmbedder` by `embed_pixels`, which remembers the files that it was given."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def embed(self, files: Sequence[bytes], version: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        vectors, valid = np.zeros((len(files), DIMENSION), np.float32), np.zeros(len(files), bool)
        self.seen += files
        for number, file in enumerate(files):
            with contextlib.suppress(OSError):
                vectors[number], valid[number] = embed_pixels(file, version), True
        return vectors, valid

    async def prepare(self, model: ModelVersion) -> None:
        pass

    async def release(self, version: int) -> None:
        pass

    async def loaded(self) -> None:
        return None

    async def check(self, version: int) -> None:
        pass

    async def aclose(self) -> None:
        pass


def drawn_products() -> tuple[list[bytes], list[bytes], dict[str, list]]:
    """JPEG files of the gallery, one more of each product to search with, and the gallery's fields."""
    rng = np.random.default_rng(7)
    gallery, queries = [], []
    for _ in range(PRODUCTS):
        look = rng.integers(0, 256, [3, 3]), int(rng.integers(0, len(SHAPES)))
        *views, query = (_draw(*look, rng) for _ in range(VIEWS + 1))
        gallery += views
        queries.append(query)
    numbers = [number for number in range(PRODUCTS) for _ in range(VIEWS)]
    return (
        gallery,
        queries,
        {
            "title": [f"Product {number} in {COLOURS[number % 4]}" for number in numbers],
            "label": [f"product-{number}" for number in numbers],
            "category": [SHAPES[number % 3] for number in numbers],
            "colour": [COLOURS[number % 4] for number in numbers],
            "price": [4.95 + 5 * number for number in numbers],
            "in_stock": [int(i % 3 > 0) for i in range(len(numbers))],
        },
    )


def _draw(colours: npt.NDArray[np.int64], shape: int, rng: np.random.Generator) -> bytes:
    """A body with a label before a background, each time in another place and light."""
    ground, body, label = (tuple(int(v) for v in np.clip(colour + rng.normal(0, 12, 3), 0, 255)) for colour in colours)
    picture = Image.new("RGB", (PICTURE, PICTURE), ground)
    pen = ImageDraw.Draw(picture)
    x, y, size = (*rng.integers(36, 60, 2), rng.integers(24, 36))
    outline = [(x - size, y - size), (x + size, y + size)]
    {"jar": pen.ellipse, "box": pen.rectangle, "tin": pen.rounded_rectangle}[SHAPES[shape]](outline, fill=body)
    pen.rectangle([(x - size // 2, y - size // 4), (x + size // 2, y + size // 4)], fill=label)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def pack_versions(to: Path, files: Sequence[bytes], fields: dict[str, list]) -> None:
    """Version directories below `to`, whose SavedModels are only bytes."""
    from tfdml.bundle.manifest import ModelRecord, Threshold
    from tfdml.bundle.packing import Gallery, pack

    ids = [f"{label}/view-{number % VIEWS}" for number, label in enumerate(fields["label"])]
    for version, distance in THRESHOLDS.items():
        directory = to / str(version)
        (directory / "variables").mkdir(parents=True)
        (directory / "saved_model.pb").write_bytes(b"not a real graph %d" % version)
        (directory / "variables" / "variables.index").write_bytes(b"index" * 7)
        (directory / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(range(200)))
        vectors = np.stack([embed_pixels(file, version) for file in files])
        gallery = Gallery(vectors, ids, fields, "cosine", thumbnails=files)
        record = ModelRecord("", DIMENSION, True, (SIDE, SIDE, 3), {"size": [SIDE, SIDE]}, 40_000_000, ("serving_default",))
        threshold = Threshold(distance, 0.9 * distance, 1.1 * distance, 0.95, "false accept rate 0.01")
        pack(directory, gallery, record, recall=0.5, trees=4, thresholds={"verification": threshold})
