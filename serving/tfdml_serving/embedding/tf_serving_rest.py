"""Asking TF-Serving by REST."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import httpx

from tfdml_serving.embedding.answers import parse_json, parse_predictions, shortened
from tfdml_serving.embedding.base import Booleans, ConnectionLost, EmbedderBusy, Floats, NotLoaded, WrongAnswer
from tfdml_serving.embedding.remote import Limits, RemoteEmbedder
from tfdml_serving.errors import EmbedderUnavailable

# The longest a number of an answer can be: a sign, 9 digits, a point, an exponent, a comma and white space.
_BYTES_PER_NUMBER = 32
_BYTES_PER_ROW = 256
_LONGEST_STATUS = 1 << 20
_DIMENSION_UNKNOWN = 65_536


class TFServingREST(RemoteEmbedder):
    """Asks TF-Serving's REST interface for embeddings, over connections that stay open.

    Args:
        address: such as "http://localhost:8501".
        model_name: the model's name there.
        limits: see `tfdml_serving.embedding.Limits`.

    Example:
        embedder = TFServingREST("http://localhost:8501", "products")
        embeddings, valid = await embedder.embed([photo], version=3)
    """

    def __init__(self, address: str, model_name: str, limits: Limits | None = None) -> None:
        super().__init__(address.rstrip("/"), model_name, limits)
        self._model = f"{self.address}/v1/models/{model_name}"
        most = self.limits.connections
        self._client = httpx.AsyncClient(
            # What a call may take in all is watched over outside; this only frees a connection that hangs.
            timeout=httpx.Timeout(self.limits.deadline),
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=30.0),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=False,  # no proxy between the service and its model server
        )

    async def aclose(self) -> None:
        """See `ImageEmbedder`."""
        await self._client.aclose()

    async def _predict(self, files: Sequence[bytes], version: int, dimension: int | None) -> tuple[Floats, Booleans]:
        rows = b",".join(b'{"b64":"%b"}' % base64.b64encode(file) for file in files)
        longest = 4096 + len(files) * (_BYTES_PER_ROW + _BYTES_PER_NUMBER * (dimension or _DIMENSION_UNKNOWN))
        url = f"{self._model}/versions/{version}:predict"
        status, body = await self._send("POST", url, longest, b'{"instances":[%b]}' % rows)
        if status == 400:
            raise WrongAnswer(f"it refuses the request: {_error(body)}")
        if status == 404:
            raise NotLoaded(f"it does not serve this version: {_error(body)}")
        _check_status(status, body)
        return parse_predictions(body, len(files), dimension)

    async def _states(self, version: int | None) -> dict[int, tuple[str, str]]:
        url = self._model if version is None else f"{self._model}/versions/{version}"
        status, body = await self._send("GET", url, _LONGEST_STATUS)
        if status == 404:
            return {}
        _check_status(status, body)
        try:
            return {
                int(entry["version"]): (str(entry["state"]), str(entry.get("status", {}).get("error_message", "")))
                for entry in parse_json(body)["model_version_status"]
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            raise EmbedderUnavailable(f"its answer is not the state of a model: {shortened(body)}") from None

    async def _send(self, method: str, url: str, longest: int, content: bytes | None = None) -> tuple[int, bytes]:
        """Status and body; no more than `longest` bytes are ever read."""
        headers = {"Content-Type": "application/json"} if content is not None else {}
        body = bytearray()
        try:
            async with self._client.stream(method, url, content=content, headers=headers) as response:
                if "content-encoding" in response.headers:
                    raise EmbedderUnavailable("its answer is compressed, which was not asked for")
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > longest:
                        raise EmbedderUnavailable(f"its answer is longer than the {longest:,} bytes that it can need")
        except httpx.TimeoutException as error:
            raise EmbedderUnavailable(f"no answer in time ({type(error).__name__})") from None
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise ConnectionLost(f"cannot be reached: {type(error).__name__}: {shortened(str(error))}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EmbedderUnavailable(f"cannot be asked: {type(error).__name__}: {shortened(str(error))}") from None
        return response.status_code, bytes(body)


def _check_status(status: int, body: bytes) -> None:
    if status in (429, 503):
        raise EmbedderBusy(f"it is busy (HTTP {status}): {_error(body)}", retry_after=1.0)
    if status != 200:
        raise EmbedderUnavailable(f"it answers HTTP {status}: {_error(body)}")


def _error(body: bytes) -> str:
    """The text of TF-Serving's `{"error": "..."}`, or the beginning of whatever else came."""
    try:
        return shortened(str(parse_json(body)["error"]))
    except (EmbedderUnavailable, KeyError):
        return shortened(body)
