"""Asking TF-Serving by gRPC: the images travel as they are, and the embeddings as four bytes a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np

from tfdml_serving.embedding import messages
from tfdml_serving.embedding.answers import checked_answer, shortened
from tfdml_serving.embedding.base import Booleans, ConnectionLost, EmbedderBusy, Floats, NotLoaded, WrongAnswer
from tfdml_serving.embedding.remote import STATES, Limits, RemoteEmbedder
from tfdml_serving.errors import EmbedderUnavailable

# gRPC refuses messages of more than 4 MB unless told otherwise: 32 embeddings of 65,536 numbers are larger.
_LONGEST_ANSWER = 64 << 20
_INPUT, _EMBEDDING, _VALID, _SIGNATURE = "image_bytes", "embedding", "valid", "serving_default"


class TFServingGRPC(RemoteEmbedder):
    """Asks TF-Serving's gRPC interface for embeddings, over one connection that stays open.

    Args:
        address: such as "localhost:8500".
        model_name: the model's name there.
        limits: see `tfdml_serving.embedding.Limits`.

    Example:
        embedder = TFServingGRPC("localhost:8500", "products")
        embeddings, valid = await embedder.embed([photo], version=3)
    """

    def __init__(self, address: str, model_name: str, limits: Limits | None = None) -> None:
        super().__init__(address, model_name, limits)
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}

    async def aclose(self) -> None:
        """See `ImageEmbedder`."""
        if self._channel is not None:
            await self._channel.close()

    async def _predict(self, files: Sequence[bytes], version: int, dimension: int | None) -> tuple[Floats, Booleans]:
        request = messages.PredictRequest(output_filter=[_EMBEDDING, _VALID])
        request.model_spec.name, request.model_spec.signature_name = self.model_name, _SIGNATURE
        request.model_spec.version.value = version
        tensor = request.inputs[_INPUT]
        tensor.dtype = messages.STRING
        tensor.tensor_shape.dim.add(size=len(files))
        tensor.string_val.extend(files)
        try:
            response = await self._call(messages.PREDICT, request, messages.PredictResponse.FromString)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise NotLoaded(f"it does not serve this version: {shortened(error.details() or '')}") from None
            raise _translated(error) from None
        if response.model_spec.version.value != version:
            raise WrongAnswer(f"it answered with version {response.model_spec.version.value}")
        if not {_EMBEDDING, _VALID} <= set(response.outputs):
            raise WrongAnswer("its answer has no 'embedding' and 'valid': not the model of a bundle")
        embeddings = _array(response.outputs[_EMBEDDING], messages.FLOAT, np.dtype("<f4"), "float_val", len(files))
        valid = _array(response.outputs[_VALID], messages.BOOL, np.dtype(np.bool_), "bool_val", len(files))
        return checked_answer(embeddings, valid, len(files), dimension)

    async def _states(self, version: int | None) -> dict[int, tuple[str, str]]:
        request = messages.GetModelStatusRequest()
        request.model_spec.name = self.model_name
        if version is not None:
            request.model_spec.version.value = version
        try:
            response = await self._call(messages.GET_MODEL_STATUS, request, messages.GetModelStatusResponse.FromString)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return {}
            raise _translated(error) from None
        return {
            entry.version: (STATES.get(entry.state, str(entry.state)), entry.status.error_message)
            for entry in response.model_version_status
        }

    async def _call(self, method: str, request: Any, read: Callable[[bytes], Any]) -> Any:
        if self._channel is None:  # belongs to the event loop that it is made in
            options = [
                ("grpc.max_receive_message_length", _LONGEST_ANSWER),
                ("grpc.max_send_message_length", -1),
                ("grpc.enable_http_proxy", 0),
                # After a restart of the server: gRPC's own waits grow to two minutes.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2000),
            ]
            self._channel = grpc.aio.insecure_channel(self.address, options)
        if method not in self._calls:
            self._calls[method] = self._channel.unary_unary(method)
        answer = await self._calls[method](request.SerializeToString(), timeout=self.limits.deadline)
        try:
            return read(answer)
        except Exception:  # protobuf's DecodeError, in whichever of its implementations
            raise EmbedderUnavailable("its answer is not a message of TF-Serving") from None


def _translated(error: grpc.aio.AioRpcError) -> EmbedderUnavailable:
    code, details = error.code(), shortened(error.details() or "")
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
        return WrongAnswer(f"it refuses the request: {details}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return EmbedderUnavailable("no answer in time")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return EmbedderUnavailable(f"its answer is longer than the {_LONGEST_ANSWER:,} bytes that it can need")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED or (code == grpc.StatusCode.UNAVAILABLE and "queue" in details):
        return EmbedderBusy(f"it is busy: {details}", retry_after=1.0)
    if code == grpc.StatusCode.UNAVAILABLE:
        return ConnectionLost(f"cannot be reached: {details}")
    return EmbedderUnavailable(f"it answers {code.name}: {details}")


def _array(tensor: Any, kind: int, dtype: np.dtype[Any], field: str, rows: int) -> np.ndarray[Any, np.dtype[Any]]:
    """The values of a TensorProto, written as raw bytes or as a list, of which the last may stand for all that follow."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype != kind or tensor.tensor_shape.unknown_rank or not shape or shape[0] != rows or min(shape) < 0:
        raise WrongAnswer(f"its tensor is of type {tensor.dtype} and shape {shape}; expected type {kind}, {rows} rows")
    size = int(np.prod(shape, dtype=object))
    if tensor.tensor_content:
        if len(tensor.tensor_content) != size * dtype.itemsize:
            raise WrongAnswer(f"its tensor of shape {shape} has {len(tensor.tensor_content)} bytes")
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = np.array(getattr(tensor, field), dtype)
    if not 0 < len(values) <= size <= _LONGEST_ANSWER:
        raise WrongAnswer(f"its tensor of shape {shape} has {len(values)} values")
    return np.concatenate([values, np.full(size - len(values), values[-1])]).reshape(shape)
