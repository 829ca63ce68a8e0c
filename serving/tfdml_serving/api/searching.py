"""Searching: from an image, an item's id or an embedding to the answer that is sent."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from tfdml_serving.api.calls import Call
from tfdml_serving.api.service import Service
from tfdml_serving.embedding.base import EmbedderWithThread, Then
from tfdml_serving.errors import BadRequest, EmbedderUnavailable, ServingError, Undecodable, UnknownItem
from tfdml_serving.images import ImageLimits

if TYPE_CHECKING:
    from tfdml_serving.engine.filters import Filter
    from tfdml_serving.engine.held import Found, HeldVersion

Floats = npt.NDArray[np.float32]
Answer = dict[str, Any]

# Squares of larger numbers do not fit into a float32, and distances would be infinite.
LARGEST_NUMBER = 1e15


class Searching:
    """Searches of all kinds.

    Args:
        service: see there.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        settings = service.settings
        self.limits = ImageLimits(settings.max_image_bytes, settings.max_pixels, settings.max_frames)

    async def by_image(
        self, call: Call, data: bytes, kind: str | None, k: int, where: str | None, version: int | None
    ) -> Answer:
        """The items nearest to an image file, which was said to be of a certain kind, or of none."""
        header = self.limits.check(data, kind)

        async def work(held: HeldVersion) -> Answer:
            condition = parsed(where, held)

            def search(embeddings: Floats, valid: npt.NDArray[np.bool_]) -> list[list[Found]]:
                return held.search(embeddings, k, condition) if valid[0] else []

            embeddings, valid, found = await self._embed_then([data], held, search)
            if not valid[0]:
                raise Undecodable("image: cannot be decoded. Send a whole JPEG, PNG, BMP or GIF file.")
            if found is None:
                found = await self._search(held, embeddings, k, condition)
            return self._answer(held, found[0], version)

        return await self._timed(call, header.pixels, version, work)

    async def by_embedding(
        self, call: Call, embedding: Sequence[float], k: int, where: str | None, version: int | None
    ) -> Answer:
        """The items nearest to a ready embedding."""

        async def work(held: HeldVersion) -> Answer:
            condition = parsed(where, held)
            found = await self._search(held, checked_embedding(embedding, held)[None], k, condition)
            return self._answer(held, found[0], version)

        return await self._timed(call, 0, version, work)

    async def by_item(
        self, call: Call, item_id: str, k: int, where: str | None, version: int | None, include_self: bool
    ) -> Answer:
        """More like an item."""

        async def work(held: HeldVersion) -> Answer:
            condition = parsed(where, held)

            def search() -> list[Found]:
                found = held.search(held.vector(checked_id(item_id))[None], k if include_self else k + 1, condition)[0]
                return found if include_self else without(found, item_id, k)

            return self._answer(held, await self._staged(search), version)

        return await self._timed(call, 0, version, work)

    async def by_batch(self, call: Call, queries: Sequence[Any], k: int, where: str | None, version: int | None) -> Answer:
        """An answer, or the problem, for each of many queries: one that fails does not touch the others."""
        images: dict[int, bytes] = {}
        weight = 0
        problems: dict[int, ServingError] = {}
        for row, query in enumerate(queries):
            if query.image is not None:
                try:
                    images[row] = from_base64(query.image)
                    weight += self.limits.check(images[row]).pixels
                except ServingError as error:
                    problems[row] = error
                    images.pop(row, None)

        async def work(held: HeldVersion) -> Answer:
            condition = parsed(where, held)
            failed = dict(problems)
            vectors: dict[int, Floats] = {}
            if images:
                embeddings, valid = await self.embed(list(images.values()), held)
                for row, embedding, good in zip(images, embeddings, valid, strict=True):
                    if good:
                        vectors[row] = embedding
                    else:
                        failed[row] = Undecodable("image: cannot be decoded. Send a whole JPEG, PNG, BMP or GIF file.")

            def search() -> list[list[Found]]:
                for row, query in enumerate(queries):
                    try:
                        if query.id is not None:
                            vectors[row] = held.vector(checked_id(query.id))
                        elif query.embedding is not None:
                            vectors[row] = checked_embedding(query.embedding, held)
                    except ServingError as error:
                        failed[row] = error
                if not vectors:
                    return []
                # One more for all if any of them is an item, which finds itself.
                more = any(queries[row].id is not None for row in vectors)
                return held.search(np.stack(list(vectors.values())), k + 1 if more else k, condition)

            answers = await self._staged(search)
            found = dict(zip(vectors, answers, strict=True))
            results: list[Answer] = []
            for row, query in enumerate(queries):
                if row in failed:
                    results.append({"error": failed[row].problem(call.request_id)})
                else:
                    hits = without(found[row], query.id, k) if query.id is not None else found[row][:k]
                    results.append(self._answer(held, hits, version))
            return {"results": results}

        return await self._timed(call, weight, version, work)

    async def embed(self, files: Sequence[bytes], held: HeldVersion) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Embeddings by the model of a version, and which files could be decoded."""
        embeddings, valid, _ = await self._embed_then(files, held, None)
        return embeddings, valid

    async def _embed_then(self, files: Sequence[bytes], held: HeldVersion, search: Then | None) -> tuple[Floats, Any, Any]:
        """Embeddings, which files could be decoded, and what a search by them found if the models' thread had time for it."""
        began, searching, stages = time.perf_counter(), 0.0, self._service.metrics.stages

        def searched(embeddings: Floats, valid: npt.NDArray[np.bool_]) -> Any:
            nonlocal searching
            start = time.perf_counter()
            try:
                assert search is not None
                return search(embeddings, valid)
            finally:
                searching = time.perf_counter() - start
                stages["search"].observe(searching)

        embedder = self._service.embedder
        try:
            if search is not None and isinstance(embedder, EmbedderWithThread):
                return await embedder.embed_then(files, held.version, searched)
            return *await embedder.embed(files, held.version), None
        except EmbedderUnavailable:
            self._service.metrics.embedder_failures.inc()
            raise
        finally:
            stages["embed"].observe(time.perf_counter() - began - searching)

    async def _search(self, held: HeldVersion, embeddings: Floats, k: int, where: Filter | None) -> list[list[Found]]:
        return await self._staged(lambda: held.search(embeddings, k, where))

    async def _staged(self, search: Any) -> Any:
        began = time.perf_counter()
        try:
            return await self._service.in_thread(search)
        finally:
            self._service.metrics.stages["search"].observe(time.perf_counter() - began)

    async def _timed(self, call: Call, weight: int, version: int | None, work: Any) -> Answer:
        answer: Answer = await self._service.admitted(call, weight, lambda: self._service.in_current(version, work))
        answer["request_id"] = call.request_id
        answer["took_ms"] = round(1000 * (time.perf_counter() - call.started), 3)
        return answer

    def _answer(self, held: HeldVersion, found: Sequence[Found], version: int | None) -> Answer:
        threshold = held.threshold()
        limit = None if threshold is None else threshold.distance
        farthest = np.float32(np.inf if limit is None else limit)  # distances are float32
        fitted = held.match_probability
        likely = [None] * len(found) if fitted is None else fitted([hit.distance for hit in found]).tolist()
        hits = [
            {
                "id": hit.id,
                "distance": hit.distance,
                "match": None if limit is None else bool(hit.distance <= farthest),
                "probability": probability,
                "fields": hit.fields,
                "thumbnail": thumbnail_path(hit.id, version) if hit.has_thumbnail else None,
            }
            for hit, probability in zip(found, likely, strict=True)
        ]
        match = None if limit is None else bool(hits and hits[0]["match"])
        self._service.metrics.searched(match)
        return {
            "model": self._service.model_name,
            "version": held.version,
            "metric": held.metric,
            "match": match,
            "threshold": limit,
            "hits": hits,
        }


def parsed(text: str | None, held: HeldVersion) -> Filter | None:
    """A filter's text as the version's fields give it meaning; None for no text."""
    if text is None or not text.strip():
        return None
    from tfdml_serving.engine.filters import parse_filter

    return parse_filter(text, held.fields)


def checked_embedding(embedding: Sequence[float], held: HeldVersion) -> Floats:
    """An embedding `[D]` that this version can be searched with.

    Raises:
        BadRequest: for another length, or numbers that float32 cannot calculate with.
    """
    if len(embedding) != held.dimension:
        raise BadRequest(f"embedding: {len(embedding)} numbers; those of version {held.version} have {held.dimension}.")
    values = np.asarray(embedding, np.float64)
    if not np.isfinite(values).all() or np.abs(values).max(initial=0.0) > LARGEST_NUMBER:
        raise BadRequest(f"embedding: expected finite numbers of at most {LARGEST_NUMBER:g}.")
    if held.metric == "cosine" and not values.any():
        raise BadRequest("embedding: all zeros, which have no direction. The cosine distance needs one.")
    return values.astype(np.float32)


def checked_id(item_id: str) -> str:
    """An id that a catalogue can be asked for."""
    if "\0" in item_id:
        raise UnknownItem("id: no item has an id with a NUL in it.")
    return item_id


def from_base64(text: str) -> bytes:
    """The bytes that standard base64 stands for.

    Raises:
        BadRequest: if it is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("image: not base64. Encode the file's bytes in standard base64.") from None


def thumbnail_path(item_id: str, version: int | None = None) -> str:
    """Where an item's picture is, in the version that was asked for.

    >>> thumbnail_path("mugs/blue 1"), thumbnail_path("a?b", 3)
    ('/v1/thumbnails/mugs/blue%201', '/v1/thumbnails/a%3Fb?version=3')
    """
    path = f"/v1/thumbnails/{quote(item_id, safe='/')}"
    return path if version is None else f"{path}?version={version}"


def without(found: Sequence[Found], item_id: str, k: int) -> list[Found]:
    """The first `k` hits other than an item."""
    return [hit for hit in found if hit.id != item_id][:k]
