"""The same call by the sync and by the async client, so that one test checks both."""

from __future__ import annotations

import ssl

import anyio
import httpx
from tfdml_serving.client import AsyncClient, AsyncTFServingClient, Client, TFServingClient

# Reading the certificates takes most of the time that a client needs to be made.
CERTIFICATES = ssl.create_default_context()


class Blocking:
    service, tf_serving = Client, TFServingClient

    @staticmethod
    def call(kind, *where, method, args=(), within=None, **options):
        """What `method` returns when a fresh client asks `where`; `iter_items` as a list."""
        arguments = options.pop("kwargs", {})
        http = httpx.Client(verify=CERTIFICATES)
        with http, kind(*where, http=http, **options) as client:
            asked = client if within is None else client.within(within)
            found = getattr(asked, method)(*args, **arguments)
            return list(found) if method == "iter_items" else found


class Awaiting:
    service, tf_serving = AsyncClient, AsyncTFServingClient
    backend = "asyncio"

    @classmethod
    def call(cls, kind, *where, method, args=(), within=None, **options):
        arguments = options.pop("kwargs", {})

        async def run():
            http = httpx.AsyncClient(verify=CERTIFICATES)
            async with http, kind(*where, http=http, **options) as client:
                asked = client if within is None else client.within(within)
                found = getattr(asked, method)(*args, **arguments)
                return [item async for item in found] if method == "iter_items" else await found

        return anyio.run(run, backend=cls.backend)


BOTH = [Blocking, Awaiting]
