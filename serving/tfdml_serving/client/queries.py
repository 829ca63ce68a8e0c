"""What a caller hands in: images, ids and embeddings, and how they travel."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

Image = bytes | str | os.PathLike[str] | IO[bytes]
"""An image file: its bytes, its path, or the open file."""

_STARTS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}


@dataclasses.dataclass(frozen=True)
class ImageQuery:
    """Search for what an image shows."""

    image: Image

    def document(self) -> dict[str, Any]:
        return {"image": encoded(image_bytes(self.image))}


@dataclasses.dataclass(frozen=True)
class ItemQuery:
    """Search for more like an item."""

    id: str

    def document(self) -> dict[str, Any]:
        return {"id": self.id}


@dataclasses.dataclass(frozen=True)
class EmbeddingQuery:
    """Search with an embedding that the same version of the model has made."""

    embedding: Iterable[float]

    def document(self) -> dict[str, Any]:
        return {"embedding": numbers(self.embedding)}


Query = ImageQuery | ItemQuery | EmbeddingQuery


def image_bytes(image: Image) -> bytes:
    """The bytes of an image file.

    Raises:
        ValueError: for anything else than an image file, its path or its bytes.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
    elif isinstance(image, (str, os.PathLike)):
        data = Path(image).read_bytes()
    elif hasattr(image, "read"):
        data = image.read()
        if not isinstance(data, bytes):
            raise ValueError("image: the open file gives text. Open it with mode 'rb'.")
    else:
        raise ValueError(
            f"image: {type(image).__name__}; expected the bytes of an image file, its path, or the open file. "
            "Encode an array as PNG first."
        )
    if not data:
        raise ValueError("image: the file is empty.")
    return data


def content_type(data: bytes) -> str:
    """What a file says of itself in its first bytes; the server has the last word.

    >>> content_type(b"GIF89a...")
    'image/gif'
    >>> content_type(b"%PDF")
    'application/octet-stream'
    """
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), "application/octet-stream")


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def numbers(embedding: Iterable[float]) -> list[float]:
    """An embedding as JSON can hold it.

    Raises:
        ValueError: if it is not a row of finite numbers.
    """
    # NumPy's own way is much faster than converting one number after the other.
    given = embedding.tolist() if hasattr(embedding, "tolist") else list(embedding)
    try:
        values = [float(value) for value in given]
    except (TypeError, ValueError) as error:
        raise ValueError(f"embedding: expected a row of numbers ({error}).") from error
    wrong = next((place for place, value in enumerate(values) if not math.isfinite(value)), None)
    if wrong is not None:
        raise ValueError(f"embedding: place {wrong} holds {values[wrong]}; expected finite numbers.")
    return values


def id_path(item_id: str) -> str:
    """An id as a part of a URL's path. Slashes stay readable, unless something on the way might take them for a folder's.

    >>> id_path("shoes/42 left"), id_path("../secret"), id_path("a//b")
    ('shoes/42%20left', '%2E%2E%2Fsecret', 'a%2F%2Fb')

    Raises:
        ValueError: for no id at all.
    """
    if not isinstance(item_id, str) or not item_id:
        raise ValueError(f"item_id={item_id!r}: expected the id of an item, a string that is not empty.")
    if any(part in ("", ".", "..") for part in item_id.split("/")):
        return quote(item_id, safe="").replace(".", "%2E")
    return quote(item_id, safe="/")


def json_body(document: Any) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()


def check_queries(queries: Sequence[Query]) -> list[dict[str, Any]]:
    """The queries of a batch as the service takes them."""
    for number, query in enumerate(queries):
        if not isinstance(query, (ImageQuery, ItemQuery, EmbeddingQuery)):
            raise ValueError(
                f"queries[{number}]: {type(query).__name__}; expected an ImageQuery, an ItemQuery or an EmbeddingQuery."
            )
    return [query.document() for query in queries]
