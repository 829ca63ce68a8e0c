"""The clients of the service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx

from tfdml_serving.client.answers import Item
from tfdml_serving.client.calls import Retry
from tfdml_serving.client.endpoints import Endpoints
from tfdml_serving.client.errors import UnexpectedAnswer
from tfdml_serving.client.running import AsyncRunner, Runner, awaiting, blocking


class Client(Runner[Endpoints]):
    """Asks the retrieval service.

    Safe to use from several threads; keep one for the life of the program, since it keeps its connections. What fails for the
    moment (no connection, 429, 502, 503, 504) is repeated where that is safe, see `Retry`; what stays wrong is raised as a
    `ClientError`.

    Args:
        url: where the service is, such as "http://localhost:8000".
        api_key: sent with every request, if the service asks for one.
        timeout: seconds for one attempt.
        deadline: seconds for a whole call with its repetitions. `client.within(2).search_image(...)` has its own. A server that
            sends its answer in drops may hold a call for one more `timeout`; `AsyncClient` ends it in time even then.
        retry: how failures are repeated.
        http: a configured `httpx.Client` (certificates, proxies, pool size), which stays yours to close.

    Raises:
        ValueError: for a URL that is none, or a key that no header can hold.

    Example:
        with Client("http://localhost:8000") as client:
            for hit in client.search_image("photo.jpg", k=5, filter="in_stock = 1"):
                print(hit.id, hit.distance, hit.fields)
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        deadline: float = 30.0,
        retry: Retry | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        super().__init__(Endpoints(), url, api_key, timeout, deadline, retry, http=http)

    search_image = blocking(Endpoints.search_image)
    search_item = blocking(Endpoints.search_item)
    search_embedding = blocking(Endpoints.search_embedding)
    search_batch = blocking(Endpoints.search_batch)
    items = blocking(Endpoints.items)
    item = blocking(Endpoints.item)
    thumbnail = blocking(Endpoints.thumbnail)
    put_item = blocking(Endpoints.put_item)
    change_item = blocking(Endpoints.change_item)
    delete_item = blocking(Endpoints.delete_item)
    info = blocking(Endpoints.info)
    versions = blocking(Endpoints.versions)
    activate = blocking(Endpoints.activate)
    unpin = blocking(Endpoints.unpin)
    ready = blocking(Endpoints.ready)

    def iter_items(self, *, filter: str | None = None, page: int = 200) -> Iterator[Item]:
        """Every item of the catalogue that a filter lets through, fetched page by page."""
        after: str | None = None
        while True:
            found = self.items(filter=filter, limit=page, after=after)
            yield from found.items
            if found.next is None:
                return
            after = _other(found.next, after)


class AsyncClient(AsyncRunner[Endpoints]):
    """`Client`, to be awaited: the same methods and arguments, under asyncio or trio.

    Example:
        async with AsyncClient("http://localhost:8000") as client:
            result = await client.search_image(image_bytes, k=5)
            async for item in client.iter_items(filter="price < 3"):
                print(item.id)
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        deadline: float = 30.0,
        retry: Retry | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(Endpoints(), url, api_key, timeout, deadline, retry, http=http)

    search_image = awaiting(Endpoints.search_image)
    search_item = awaiting(Endpoints.search_item)
    search_embedding = awaiting(Endpoints.search_embedding)
    search_batch = awaiting(Endpoints.search_batch)
    items = awaiting(Endpoints.items)
    item = awaiting(Endpoints.item)
    thumbnail = awaiting(Endpoints.thumbnail)
    put_item = awaiting(Endpoints.put_item)
    change_item = awaiting(Endpoints.change_item)
    delete_item = awaiting(Endpoints.delete_item)
    info = awaiting(Endpoints.info)
    versions = awaiting(Endpoints.versions)
    activate = awaiting(Endpoints.activate)
    unpin = awaiting(Endpoints.unpin)
    ready = awaiting(Endpoints.ready)

    async def iter_items(self, *, filter: str | None = None, page: int = 200) -> AsyncIterator[Item]:
        """Every item of the catalogue that a filter lets through, fetched page by page."""
        after: str | None = None
        while True:
            found = await self.items(filter=filter, limit=page, after=after)
            for item in found.items:
                yield item
            if found.next is None:
                return
            after = _other(found.next, after)


def _other(following: str, after: str | None) -> str:
    if following == after:
        raise UnexpectedAnswer(f"the page after {after!r} says that the next one is after {after!r} too: that has no end.")
    return following
