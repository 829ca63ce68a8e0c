"""The endpoints of the service: what is sent, and how the answer is read. `Client` and `AsyncClient` make methods of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

from tfdml_serving.client.answers import Info, Item, ItemPage, Readiness, SearchResult, Value, Versions, read_batch
from tfdml_serving.client.calls import Answer, Call, Repeat
from tfdml_serving.client.errors import Problem
from tfdml_serving.client.queries import (
    Image,
    Query,
    check_queries,
    content_type,
    encoded,
    id_path,
    image_bytes,
    json_body,
    numbers,
)
from tfdml_serving.client.reading import json_part

T = TypeVar("T")
JSON = "application/json"


class Endpoints:
    """One method for each endpoint; none sends anything."""

    def search_image(
        self, image: Image, k: int = 10, *, filter: str | None = None, version: int | None = None
    ) -> Call[SearchResult]:
        """The items nearest to an image.

        Args:
            image: an image file: its bytes, its path, or the open file. JPEG, PNG, BMP or GIF.
            k: how many.
            filter: which items count, such as "category = milk and price < 3".
            version: which version is to answer; None for the current one.
        """
        data = image_bytes(image)
        params = {"k": k, "filter": filter, "version": version}
        return Call("POST", "/v1/search/image", _result, params, body=data, content_type=content_type(data))

    def search_item(
        self,
        item_id: str,
        k: int = 10,
        *,
        filter: str | None = None,
        version: int | None = None,
        include_self: bool = False,
    ) -> Call[SearchResult]:
        """The items nearest to an item: more like this.

        Args:
            item_id: the item's id.
            k: how many.
            filter: which items count.
            version: which version is to answer; None for the current one.
            include_self: whether the item itself may be among the hits.
        """
        document = {"id": item_id, "include_self": include_self, **_asked(k, filter, version)}
        return _post("/v1/search/item", document)

    def search_embedding(
        self, embedding: Iterable[float], k: int = 10, *, filter: str | None = None, version: int | None = None
    ) -> Call[SearchResult]:
        """The items nearest to an embedding that the same version of the model has made.

        Args:
            embedding: as many finite numbers as the model's embeddings have: a list, or an array.
            k: how many.
            filter: which items count.
            version: which version is to answer; name the one that made the embedding.
        """
        return _post("/v1/search/embedding", {"embedding": numbers(embedding), **_asked(k, filter, version)})

    def search_batch(
        self, queries: Sequence[Query], k: int = 10, *, filter: str | None = None, version: int | None = None
    ) -> Call[list[SearchResult | Problem]]:
        """The nearest items of many queries in one request, all by the same version.

        Args:
            queries: `ImageQuery`, `ItemQuery` and `EmbeddingQuery`, in any order.
            k: how many for each.
            filter: which items count.
            version: which version is to answer; None for the current one.

        Returns:
            For each query a `SearchResult`, or a `Problem` if there is something wrong with this one.
        """
        document = {"queries": check_queries(queries), **_asked(k, filter, version)}
        return Call("POST", "/v1/search/batch", read_batch, body=json_body(document), content_type=JSON)

    def items(
        self,
        *,
        filter: str | None = None,
        limit: int = 50,
        after: str | None = None,
        order: Literal["id", "spread"] | None = None,
        version: int | None = None,
    ) -> Call[ItemPage]:
        """A page of the catalogue; `iter_items` goes through all of them.

        Args:
            filter: which items.
            limit: how many at most.
            after: the `next` of the page before, with the same order.
            order: "id", or "spread": a fixed order in which each page shows a bit of everything; None for the service's own.
            version: whose catalogue; None for the current one's.
        """
        params = {"filter": filter, "limit": limit, "after": after, "order": order, "version": version}
        return Call("GET", "/v1/items", lambda answer: ItemPage.read(json_part(answer.body)), params)

    def item(self, item_id: str, *, version: int | None = None) -> Call[Item]:
        """One item. `NotFound` if there is none with this id."""
        return Call("GET", f"/v1/items/{id_path(item_id)}", _item, {"version": version})

    def thumbnail(self, item_id: str, *, version: int | None = None) -> Call[bytes]:
        """The small picture of an item, a JPEG file. `NotFound` if there is none."""
        return Call("GET", f"/v1/thumbnails/{id_path(item_id)}", lambda answer: answer.body, {"version": version})

    def put_item(
        self,
        item_id: str,
        fields: Mapping[str, Value],
        *,
        image: Image | None = None,
        embedding: Iterable[float] | None = None,
    ) -> Call[Item]:
        """Adds an item, or replaces it. When this returns, it is on disk and can be found.

        Args:
            item_id: its id.
            fields: its own fields, of the catalogue's names and types.
            image: what it looks like; or
            embedding: made by the same version of the model. An item added so cannot be taken along to another model.
        """
        if (image is None) == (embedding is None):
            raise ValueError("put_item: give the image or the embedding of the item, one of them.")
        document: dict[str, object] = {"fields": dict(fields)}
        if image is not None:
            document["image"] = encoded(image_bytes(image))
        if embedding is not None:
            document["embedding"] = numbers(embedding)
        return Call("PUT", f"/v1/items/{id_path(item_id)}", _item, body=json_body(document), content_type=JSON)

    def change_item(self, item_id: str, fields: Mapping[str, Value]) -> Call[Item]:
        """Changes the given fields of an item; the others, and its embedding, stay. Returns the item as it is then."""
        body = json_body({"fields": dict(fields)})
        # Repeated late, it could undo what somebody else has changed meanwhile.
        return Call(
            "PATCH",
            f"/v1/items/{id_path(item_id)}",
            _item,
            body=body,
            content_type=JSON,
            repeat=Repeat.IF_REFUSED,
        )

    def delete_item(self, item_id: str) -> Call[None]:
        """Removes an item. When this returns, it is not found any more, and will not be after a restart either."""
        return Call("DELETE", f"/v1/items/{id_path(item_id)}", _nothing, missing_is_done=True)

    def info(self) -> Call[Info]:
        """What is served: the model, its version, the fields of items, the limits."""
        return Call("GET", "/v1/info", lambda answer: Info.read(json_part(answer.body)))

    def versions(self) -> Call[Versions]:
        """The versions that there are, and which of them answers."""
        return Call("GET", "/v1/versions", _versions)

    def activate(self, version: int) -> Call[Versions]:
        """Makes a version answer from now on, and stay when newer ones come: how to roll back."""
        return Call("POST", f"/v1/versions/{int(version)}/activate", _versions)

    def unpin(self) -> Call[Versions]:
        """Lets the newest version that is fit answer again."""
        return Call("DELETE", "/v1/versions/pin", _versions)

    def ready(self) -> Call[Readiness]:
        """Whether the service can answer now; the reasons if not. Not being ready is an answer, no error."""
        return Call("GET", "/readyz", lambda answer: Readiness.read(json_part(answer.body)), answers=frozenset({503}))


def _asked(k: int, filter: str | None, version: int | None) -> dict[str, object]:
    given = {"k": k, "filter": filter, "version": version}
    return {name: value for name, value in given.items() if value is not None}


def _post(path: str, document: dict[str, object]) -> Call[SearchResult]:
    return Call("POST", path, _result, body=json_body(document), content_type=JSON)


def _result(answer: Answer) -> SearchResult:
    return SearchResult.read(json_part(answer.body))


def _item(answer: Answer) -> Item:
    return Item.read(json_part(answer.body))


def _versions(answer: Answer) -> Versions:
    return Versions.read(json_part(answer.body))


def _nothing(answer: Answer) -> None:
    return None
