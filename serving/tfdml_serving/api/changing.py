"""Changes to the living catalogue: durable, and visible to every search, before they are acknowledged."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfdml.bundle.thumbnails import UNREADABLE, thumbnail_of
from tfdml_serving.api.calls import Call
from tfdml_serving.api.models import PutItem
from tfdml_serving.api.searching import Searching, checked_embedding, from_base64
from tfdml_serving.api.service import Service
from tfdml_serving.errors import BadRequest, NotWritable, Undecodable, UnknownItem

if TYPE_CHECKING:
    from tfdml_serving.engine.held import HeldVersion
    from tfdml_serving.living.store import LivingCatalogue

_SIDE = 160
_INT64 = range(-(2**63), 2**63)
_KINDS: dict[str, tuple[type, ...]] = {"text": (str,), "integer": (int,), "real": (int, float)}


class Changing:
    """Adds, changes and removes items.

    Args:
        service: see there.
        searching: embeds, and knows the limits on images.
    """

    def __init__(self, service: Service, searching: Searching) -> None:
        self._service = service
        self._searching = searching

    async def put(self, call: Call, item_id: str, body: PutItem) -> tuple[dict[str, Any], bool]:
        """Adds or replaces an item. Answers it, and whether it is new."""
        living = self._living()
        image = None if body.image is None else from_base64(body.image)
        weight = 0 if image is None else self._searching.limits.check(image).pixels

        async def work(held: HeldVersion) -> tuple[dict[str, Any], bool]:
            fields = checked_fields(body.fields, held.fields)
            thumbnail = None
            if image is None:
                assert body.embedding is not None
                embedding = checked_embedding(body.embedding, held)
            else:
                embeddings, valid = await self._searching.embed([image], held)
                if not valid[0]:
                    raise Undecodable("image: cannot be decoded. Send a whole JPEG, PNG, BMP or GIF file.")
                embedding = embeddings[0]
                thumbnail = await self._service.in_thread(_thumbnail, image)

            def write() -> tuple[dict[str, Any], bool]:
                new = not exists(held, item_id)
                living.put(item_id, fields, space=held.space, embedding=embedding, image=image, thumbnail=thumbnail)
                return held.item(item_id), new

            return await self._service.in_writer(write)

        return await self._service.admitted(call, weight, lambda: self._service.in_current(None, work))

    async def change(self, call: Call, item_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Changes the named fields. Answers the item as it is then."""
        living = self._living()

        async def work(held: HeldVersion) -> dict[str, Any]:
            checked = checked_fields(fields, held.fields)

            def write() -> dict[str, Any]:
                held.item(item_id)
                living.change(item_id, checked)
                return held.item(item_id)

            return await self._service.in_writer(write)

        return await self._service.admitted(call, 0, lambda: self._service.in_current(None, work))

    async def remove(self, call: Call, item_id: str) -> None:
        """Removes an item."""
        living = self._living()

        async def work(held: HeldVersion) -> None:
            def write() -> None:
                held.item(item_id)
                living.remove(item_id)

            await self._service.in_writer(write)

        await self._service.admitted(call, 0, lambda: self._service.in_current(None, work))

    def _living(self) -> LivingCatalogue:
        if self._service.living is None:
            raise NotWritable("Items cannot change here: the service was started without --living FILE.")
        return self._service.living


def exists(held: HeldVersion, item_id: str) -> bool:
    """Whether a version, with what was added to it, has an item."""
    try:
        held.item(item_id)
    except UnknownItem:
        return False
    return True


def checked_fields(fields: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """Fields whose names and types are the catalogue's own.

    >>> checked_fields({"price": 7, "title": None}, {"title": "text", "price": "real"})
    {'price': 7.0, 'title': None}
    """
    checked: dict[str, Any] = {}
    for name, value in fields.items():
        kind = known.get(name)
        if kind is None:
            listed = ", ".join(known) or "none"
            raise BadRequest(f"fields: there is no field {name[:80]!r}. Known: {listed}.")
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
                raise BadRequest(f"fields: {name!r} is {kind}, not {type(value).__name__}.")
            if isinstance(value, int) and value not in _INT64:
                raise BadRequest(f"fields: {name!r} does not fit into 64 bits.")
            if isinstance(value, str) and "\0" in value:
                raise BadRequest(f"fields: {name!r} has a NUL in it, which cannot be stored.")
            if kind == "real" and isinstance(value, int):
                value = float(value)
        checked[name] = value
    return checked


def _thumbnail(file: bytes) -> bytes | None:
    """A small picture; None for the few files that the model reads and Pillow does not."""
    try:
        return thumbnail_of(io.BytesIO(file), _SIDE)
    except UNREADABLE:
        return None
