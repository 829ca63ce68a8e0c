"""Stand-ins for the parts of the service, in memory: the API's tests are about the API."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
from tfdml_serving.errors import EmbedderUnavailable, UnknownItem, UnknownVersion

DIMENSION = 4
ITEMS = 30


@dataclasses.dataclass(frozen=True)
class FakeFound:
    id: str
    distance: float
    fields: dict
    has_thumbnail: bool


def fake_vectors(version: int) -> np.ndarray:
    return np.random.default_rng(version).normal(size=(ITEMS, DIMENSION)).astype(np.float32)


class FakeHeld:
    """A version whose search is a loop; it knows no filters."""

    def __init__(self, version: int = 1, threshold: float | None = 1.5) -> None:
        self.version, self._threshold = version, threshold
        self.vectors = {f"item/{i}": vector for i, vector in enumerate(fake_vectors(version))}
        self._fields = {name: {"title": f"Thing {i}", "price": 0.5 * i} for i, name in enumerate(self.vectors)}
        self.fields = {"title": "text", "price": "real"}
        self.metric, self.dimension, self.space = "euclidean", DIMENSION, "s1"
        self.thumbnails = True
        self.match_probability = None
        model = SimpleNamespace(normalised=False, max_pixels=50_000_000, dimension=DIMENSION)
        self.manifest = SimpleNamespace(model=model)

    @property
    def items(self) -> int:
        return len(self.vectors)

    def threshold(self):
        return None if self._threshold is None else SimpleNamespace(distance=self._threshold)

    def search(self, embeddings, k, where=None):
        rows = []
        for query in np.atleast_2d(embeddings):
            found = sorted((float(np.linalg.norm(vector - query)), name) for name, vector in self.vectors.items())
            rows.append([FakeFound(name, distance, self._fields[name], True) for distance, name in found[:k]])
        return rows

    def vector(self, item_id):
        self.item(item_id)
        return self.vectors[item_id]

    def item(self, item_id):
        if item_id not in self.vectors:
            raise UnknownItem(f"id={item_id!r}: no item has this id.")
        return {"id": item_id, "fields": self._fields[item_id], "has_thumbnail": True}

    def list_items(self, where, limit, after, order="id"):
        names = sorted(name for name in self.vectors if after is None or name > after)
        return [self.item(name) for name in names[:limit]], names[limit - 1] if len(names) > limit else None

    def thumbnail(self, item_id):
        self.item(item_id)
        return b"\xff\xd8\xff a picture of " + item_id.encode()

    def close(self):
        pass


class FakeLiving:
    def __init__(self, held: FakeHeld) -> None:
        self._held = held
        self.images: dict[str, bytes | None] = {}

    def put(self, item_id, fields, *, space, embedding, image, thumbnail):
        assert space == self._held.space
        self._held.vectors[item_id] = np.asarray(embedding)
        self._held._fields[item_id] = {"title": None, "price": None, **fields}
        self.images[item_id] = image

    def change(self, item_id, fields):
        self._held._fields[item_id] = {**self._held._fields[item_id], **fields}

    def remove(self, item_id):
        del self._held.vectors[item_id], self._held._fields[item_id]

    def close(self):
        pass


@dataclasses.dataclass(frozen=True)
class FakeState:
    version: int
    state: str
    reason: str | None = None
    items: int | None = ITEMS
    created: str | None = None


class FakeVersions:
    def __init__(self, *held: FakeHeld) -> None:
        self._held = {one.version: one for one in held or (FakeHeld(1), FakeHeld(2))}
        self.pinned: int | None = None

    async def start(self):
        pass

    async def stop(self):
        pass

    @contextlib.contextmanager
    def lease(self, version=None):
        if not self._held:
            raise EmbedderUnavailable("No version is served yet.")
        number = version if version is not None else self.pinned or max(self._held)
        if number not in self._held:
            raise UnknownVersion(f"version={number}: is not held.")
        yield self._held[number]

    def list(self):
        current = self.pinned or max(self._held)
        return [FakeState(number, "current" if number == current else "held") for number in sorted(self._held)]

    async def pin(self, version):
        with self.lease(version):
            self.pinned = version

    async def unpin(self):
        self.pinned = None


class FakeEmbedder:
    """A file's embedding is made of its length and its version; a file that ends in "bad" cannot be decoded.

    Clear `go_on` to keep requests waiting for their embeddings.
    """

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.away = False
        self.asked: list[tuple[int, list[int]]] = []

    async def embed(self, files, version):
        self.asked.append((version, [len(file) for file in files]))
        while not self.go_on.is_set():
            await asyncio.sleep(0.002)
        if self.away:
            raise EmbedderUnavailable("It does not answer.")
        valid = np.array([not file.endswith(b"bad") for file in files])
        return np.stack([fake_embedding(file, version) for file in files]) * valid[:, None], valid

    async def check(self, version):
        if self.away:
            raise EmbedderUnavailable("It does not answer.")

    async def aclose(self):
        pass


def fake_embedding(file: bytes, version: int) -> np.ndarray:
    return np.random.default_rng([len(file), version]).normal(size=DIMENSION).astype(np.float32)
