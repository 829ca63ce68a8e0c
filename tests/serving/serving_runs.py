"""Versions of a model that can be told apart, and a model server to embed for them.

Picture N is a PNG of its own colour: version V sees vector N of its own in it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from bundle_helpers import encoded, pack_fake_model
from stand_in_models import FakeModel, StatusError
from tfdml_serving.embedding.remote import PROBE

DIMENSION = 6


def picture(number: int) -> bytes:
    return _PICTURES[number]


def number_of(data: bytes) -> int | None:
    """The number of a picture, whatever spaces are behind it; None for other files."""
    return _NUMBERS.get(data.rstrip(b" "))


_PICTURES = [encoded(np.full([8, 8, 3], 5 * number, np.uint8)) for number in range(40)]
_NUMBERS = {data: number for number, data in enumerate(_PICTURES)}


def vectors(version: int, count: int = 40, dimension: int = DIMENSION) -> np.ndarray:
    """The gallery of a version: unlike any other version's."""
    return np.random.default_rng(version).normal(size=(count, dimension)).astype(np.float32)


def make_model_directory(path: Path) -> Path:
    """What a stand-in loads: no model at all."""
    staging = path.parent / f".{path.name}.tmp"
    (staging / "variables").mkdir(parents=True)
    (staging / "saved_model.pb").write_bytes(b"not a real graph")
    os.rename(staging, path)
    return path


def load_fake(path: Path) -> FakeModel:
    """The model of a version directory."""
    if (path / "saved_model.pb").read_bytes() == b"damaged":
        raise StatusError(13, "the graph cannot be read")
    known = vectors(int(path.name))

    def embed(data: bytes) -> np.ndarray | None:
        number = 0 if data == PROBE else number_of(data)
        return None if number is None else known[number]

    return FakeModel(embed, DIMENSION)


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    """Runs an async test."""
    return asyncio.run(asyncio.wait_for(test(), 120))


async def eventually(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits until something holds; the time is only there to end a test that would never end."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it never came about"
        await asyncio.sleep(0.01)
    return found


def publish(directory: Path, version: int, hidden: bool = False, dimension: int = DIMENSION, model_bytes: bytes = b"") -> Path:
    """Publishes a bundle of the version's own vectors, whose model is only bytes; `hidden` leaves it under a dot-name."""
    staging = directory / f".{version}"
    staging.mkdir(parents=True)
    pack_fake_model(staging, vectors(version, dimension=dimension), model_bytes or b"model %d" % version, recall=1.0, trees=20)
    if hidden:
        return staging
    path = directory / str(version)
    os.rename(staging, path)
    return path
