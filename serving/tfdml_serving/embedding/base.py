"""What the service needs of whatever makes its embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tfdml_serving.errors import EmbedderUnavailable

Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]
Then = Callable[[Floats, Booleans], Any]


class ModelRefused(EmbedderUnavailable):
    """This version's model will not do, however long one waits: it failed to load, or answers other than its bundle says."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after=None)


class NotLoaded(EmbedderUnavailable):
    """Whoever runs the models can be asked, and does not have this version, or not yet."""


class WrongAnswer(EmbedderUnavailable):
    """An answer that can be read, and is not what the bundle promises: another dimension, NaN, a request refused as bad."""


class ConnectionLost(EmbedderUnavailable):
    """The request did not arrive, or its answer did not: worth another try, for making an embedding changes nothing."""


class EmbedderBusy(EmbedderUnavailable):
    """The other side is well and has too much to do."""


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """A version whose embeddings will be asked for.

    Args:
        version: its number, under which TF-Serving knows it as well.
        path: its directory.
        dimension: length of an embedding, as its bundle says.
    """

    version: int
    path: Path
    dimension: int


class ImageEmbedder(Protocol):
    """Makes embeddings of image files with the model of one given version: never of another.

    All methods are called from one event loop. `prepare` and `release` are the roll-out's; requests call `embed`, the readiness
    check calls `check`.
    """

    async def prepare(self, model: ModelVersion) -> None:
        """Returns when embeddings of this version can be asked for; does nothing if they can be already.

        Raises:
            ModelRefused: if this version will never do.
            EmbedderUnavailable: if it cannot be asked for yet; call again later.
        """

    async def release(self, version: int) -> None:
        """This version will not be asked for again: frees what it holds. Unknown versions are ignored."""

    async def embed(self, files: Sequence[bytes], version: int) -> tuple[Floats, Booleans]:
        """Embeddings float32 `[N, D]`, finite, and valid bool `[N]`; a file that cannot be decoded has zeros and False.

        Raises:
            EmbedderUnavailable: within the deadline, if this version cannot be asked, or its answer cannot be used.
            Overloaded: if too many requests wait already.
        """

    async def check(self, version: int) -> None:
        """Raises `EmbedderUnavailable` if embeddings of this version cannot be had at present."""

    async def loaded(self) -> frozenset[int] | None:
        """The versions whose directories are still in use by whatever runs the models; None if that cannot be told."""

    async def aclose(self) -> None:
        """Frees everything."""


@runtime_checkable
class EmbedderWithThread(Protocol):
    """An `ImageEmbedder` whose models run in a thread of this process, which can go on with what it embedded."""

    async def embed_then(self, files: Sequence[bytes], version: int, then: Then | None) -> tuple[Floats, Booleans, Any]:
        """As `embed`, and what `then` makes of it in the thread of the models, if nobody waits for that; otherwise None."""
