"""The searches that the API has, from what was asked to the answer that is sent."""

from __future__ import annotations

from starlette.responses import Response

from tfdml_serving.api.answers import json_answer
from tfdml_serving.api.bodies import MULTIPART
from tfdml_serving.api.calls import Call
from tfdml_serving.api.models import SearchBatch, SearchByEmbedding, SearchByItem
from tfdml_serving.api.multipart import image_of_form
from tfdml_serving.api.searching import Searching
from tfdml_serving.api.service import Service
from tfdml_serving.errors import BadRequest


class SearchCalls:
    """Answers requests whose parameters are of the right types.

    Args:
        service: see there.
        searching: see there.
    """

    def __init__(self, service: Service, searching: Searching) -> None:
        self._service, self._searching = service, searching

    async def by_image(self, call: Call, k: int, filter: str | None, version: int | None) -> Response:
        """The items that look most like the picture in the body, or in the form that the body is."""
        data, kind = call.body, call.content_type
        if kind == MULTIPART:
            data, said = image_of_form(data, call.content_type_parameters)
            kind = said or ""
        self._check_k(k)
        return json_answer(await self._searching.by_image(call, data, kind or None, k, filter, version))

    async def by_item(self, call: Call, body: SearchByItem) -> Response:
        """The items that look most like one of them."""
        self._check_k(body.k)
        answer = await self._searching.by_item(call, body.id, body.k, body.filter, body.version, body.include_self)
        return json_answer(answer)

    async def by_embedding(self, call: Call, body: SearchByEmbedding) -> Response:
        """The items nearest to an embedding."""
        self._check_k(body.k)
        return json_answer(await self._searching.by_embedding(call, body.embedding, body.k, body.filter, body.version))

    async def by_batch(self, call: Call, body: SearchBatch) -> Response:
        """An answer, or a problem, for each query."""
        self._check_k(body.k)
        most = self._service.settings.max_queries
        if len(body.queries) > most:
            raise BadRequest(f"queries: {len(body.queries)}; at most {most} are taken at once.")
        if call.key is not None and call.key.bucket is not None:
            call.key.bucket.take(len(body.queries) - 1)
        return json_answer(await self._searching.by_batch(call, body.queries, body.k, body.filter, body.version))

    def _check_k(self, k: int) -> None:
        if k > self._service.settings.max_k:
            raise BadRequest(f"k={k}: this service gives at most {self._service.settings.max_k}.")
