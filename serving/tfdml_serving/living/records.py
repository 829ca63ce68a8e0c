"""What a living catalogue keeps, and the checks of what goes into it and comes out."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tfdml.bundle import BundleError
from tfdml.bundle.catalogue import Value, check_text
from tfdml.bundle.catalogue_writer import INT64, check_field_names
from tfdml_serving.errors import BadRequest, ServingError

Floats = npt.NDArray[np.float32]

LONGEST_ID = 1000
MOST_BYTES_OF_FIELDS = 1 << 20


class LivingCatalogueError(ServingError, RuntimeError):
    """The file of a living catalogue cannot be opened, read or written. What was acknowledged before is not touched."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "The living catalogue failed"
    kind: ClassVar[str] = "living-catalogue"


class NoSpaceLeftError(LivingCatalogueError):
    """The disk is full. Nothing of the change was kept."""

    status: ClassVar[int] = 507
    title: ClassVar[str] = "The disk is full"
    kind: ClassVar[str] = "no-space-left"


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A change of a living catalogue.

    Args:
        sequence: its place in the order of all changes.
        kind: "put" (a new item, or all of an item anew), "change" (some fields of an item), "remove", or "embed" (an
            embedding of the item in one more space).
        id: the item.
        fields: all fields under "put", the changed ones under "change".
        space: the embedding space of `embedding`.
        embedding: float32 `[D]`, if there is one in that space.
        has_thumbnail: whether there is a small picture.
    """

    sequence: int
    kind: str
    id: str
    fields: Mapping[str, Value]
    space: str | None = None
    embedding: Floats | None = None
    has_thumbnail: bool = False


def checked_id(item_id: object) -> str:
    """`item_id`, if an item can be called that; else a `BadRequest`."""
    try:
        check_text(item_id, f"id={str(item_id)[:60]!r}")
    except BundleError as error:
        raise BadRequest(str(error)) from error
    assert isinstance(item_id, str)
    if not 0 < len(item_id) <= LONGEST_ID:
        raise BadRequest(f"id: {len(item_id):,} characters; expected 1 to {LONGEST_ID:,}.")
    return item_id


def checked_fields(fields: Mapping[str, Any]) -> dict[str, Value]:
    """`fields` as a catalogue can hold them (booleans become 0 and 1); else a `BadRequest`."""
    if not isinstance(fields, Mapping):
        raise BadRequest(f"fields: expected names and values, not {type(fields).__name__}.")
    try:
        check_field_names(list(fields))
    except BundleError as error:
        raise BadRequest(str(error)) from error
    result = {name: _checked(name, value) for name, value in fields.items()}
    if len(json.dumps(result)) > MOST_BYTES_OF_FIELDS:
        raise BadRequest(f"fields: more than {MOST_BYTES_OF_FIELDS:,} bytes. Keep long texts elsewhere, and a link here.")
    return result


def checked_embedding(embedding: npt.ArrayLike) -> Floats:
    """`embedding` as float32 `[D]`, finite; else a `BadRequest`."""
    try:
        with np.errstate(over="ignore"):
            result = np.array(embedding, np.float32)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"embedding: expected a list of numbers: {error}.") from error
    if result.ndim != 1 or not result.size:
        raise BadRequest(f"embedding: shape {result.shape}; expected one vector [D].")
    if not np.isfinite(result).all():
        raise BadRequest("embedding: NaN or infinity (in float32); expected finite numbers.")
    return result


def checksum(*parts: str | bytes | int | None) -> int:
    """CRC-32 of the parts of a row. SQLite notices a damaged page, but not a damaged value."""
    found = 0
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        found = zlib.crc32(data, zlib.crc32(len(data).to_bytes(8, "little"), found))
    return found


def fields_text(fields: Mapping[str, Value]) -> str:
    return json.dumps(fields, ensure_ascii=False, allow_nan=False)


def _checked(name: str, value: Any) -> Value:
    what = f"fields[{name!r}]={str(value)[:60]!r}"
    if value is None:
        return None
    if isinstance(value, str):
        try:
            check_text(value, what)
        except BundleError as error:
            raise BadRequest(str(error)) from error
        return str(value)
    if isinstance(value, (numbers.Integral, np.bool_)):
        if int(value) not in INT64:
            raise BadRequest(f"{what}: does not fit in 64 bits; send it as text.")
        return int(value)
    if isinstance(value, numbers.Real):
        if not math.isfinite(value):
            raise BadRequest(f"{what}: expected a finite number; use null for a missing value.")
        return float(value)
    raise BadRequest(f"{what}: {type(value).__name__} cannot be stored; expected text, a number or null.")
