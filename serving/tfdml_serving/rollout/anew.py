"""A new model sees the items that people added by image: they are embedded anew before it serves."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tfdml_serving.embedding.base import ImageEmbedder
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.errors import Conflict
from tfdml_serving.living.store import LivingCatalogue

log = logging.getLogger(__name__)

_AT_ONCE = 16
T = TypeVar("T")


class EmbedAnew:
    """Gives items of the living catalogue an embedding in the space of a version that has none of them.

    Args:
        living: the catalogue.
        embedder: makes the embeddings.
        in_thread: runs a function that waits for the disk.
    """

    def __init__(self, living: LivingCatalogue, embedder: ImageEmbedder, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._living, self._embedder, self._in_thread = living, embedder, in_thread
        # Images that this model cannot decode are not tried again and again.
        self._tried: set[tuple[int, str, int]] = set()

    async def __call__(self, held: HeldVersion) -> int:
        """Embeds what can be embedded. How many items that was.

        Raises:
            EmbedderUnavailable: if the version cannot be asked.
        """
        pending = [
            (item_id, put_at)
            for item_id, put_at in await self._in_thread(held.unembedded)
            if (held.version, item_id, put_at) not in self._tried
        ]
        done = 0
        for start in range(0, len(pending), _AT_ONCE):
            part = pending[start : start + _AT_ONCE]
            images = [await self._in_thread(self._living.image, item_id) for item_id, _ in part]
            there = [(item, image) for item, image in zip(part, images, strict=True) if image is not None]
            embeddings, valid = await self._embedder.embed([image for _, image in there], held.version)
            for ((item_id, put_at), _), embedding, good in zip(there, embeddings, valid, strict=True):
                self._tried.add((held.version, item_id, put_at))
                if not good:
                    log.warning("version %d cannot decode the image of an added item", held.version)
                    continue
                try:
                    await self._in_thread(self._embed, item_id, put_at, held.space, embedding)
                    done += 1
                except Conflict:  # it was changed meanwhile
                    pass
        if done:
            log.info("version %d: embedded %d added items anew", held.version, done)
        return done

    def _embed(self, item_id: str, put_at: int, space: str, embedding: Any) -> None:
        self._living.embed(item_id, put_at, space=space, embedding=embedding)
