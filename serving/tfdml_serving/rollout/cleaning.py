"""Removing versions that nobody needs any more."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tfdml_serving.embedding.base import ImageEmbedder
from tfdml_serving.rollout.folder import ModelFolder

log = logging.getLogger(__name__)


def superfluous(there: Iterable[int], most: int, needed: Iterable[int | None], refused: Iterable[int]) -> list[int]:
    """Which versions may go: all but the `most` latest good ones, and never one that is needed or newer than those.

    >>> superfluous([1, 2, 3, 4, 5, 6], most=2, needed=[2], refused=[5])
    [1, 3]
    """
    versions, bad = sorted(there), set(refused)
    kept = [version for version in versions if version not in bad][-most:]
    return [version for version in versions if kept and version < kept[0] and version not in set(needed)]


async def clean(
    folder: ModelFolder,
    there: Iterable[int],
    most: int,
    needed: Iterable[int | None],
    refused: Iterable[int],
    embedder: ImageEmbedder,
    in_thread: Callable[..., Awaitable[Any]],
) -> list[int]:
    """Removes superfluous versions, if whoever runs the models says that it does not use them. The versions that are gone."""
    doomed = superfluous(there, most, needed, refused)
    if not doomed:
        return []
    used = await embedder.loaded()
    if used is None:
        log.warning("versions %s are not removed: it cannot be told whether their models are in use", doomed)
        return []
    gone = []
    for version in doomed:
        if version in used:
            continue
        try:
            await in_thread(folder.remove, version)
        except OSError as error:
            log.warning("version %d cannot be removed: %s", version, error)
        else:
            gone.append(version)
            log.info("version %d is removed from the disk", version)
    return gone
