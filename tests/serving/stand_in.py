"""A stand-in for `tensorflow_model_server`, on real sockets: its REST and gRPC rules, and knobs to make it fail.

Its rules are those that were seen on the real one, and those of its source: paths, the row and the column form, signatures,
versions and labels, states, metadata, status codes, error bodies, version policies, loading from the directory while it runs.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
import numpy as np
import stand_in_rules as rules
from stand_in_models import INTERNAL, UNAVAILABLE, Manager, Model, RealModel, StatusError
from tfdml_serving.embedding import messages
from tfdml_serving.embedding.remote import STATES

_PREDICT = re.compile(r"(?i)/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)")
_STATUS = re.compile(r"(?i)/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?")
_HTTP = {3: 400, 4: 504, 5: 404, 8: 429, 9: 400, 12: 501, 13: 500, 14: 503}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_TYPES = {"float": 1, "double": 2, "int32": 3, "uint8": 4, "string": 7, "int64": 9, "bool": 10}
_VALUES = {"float": "float_val", "int32": "int_val", "uint8": "int_val", "string": "string_val", "bool": "bool_val"}


class StandIn:
    """A context manager that serves a model directory.

    Args:
        base_path: of the model; versions in it are loaded as they come.
        load: makes a model of a version directory; `RealModel` if left out.
        name: of the model.
        max_batch_size: requests with more rows are refused, as with batching switched on.
        options: of `Manager`: policy, labels, load_seconds, poll_seconds.

    Attributes:
        delay: seconds that every prediction takes.
        spoil: changes the body of predictions by REST: (status, body) -> (status, body); None leaves them.
        spoil_outputs: changes the tensors of predictions in both languages; None leaves them.
        fail: a `StatusError` for every prediction; None for none.
        predictions: how many requests for predictions came.
    """

    def __init__(
        self,
        base_path: Path,
        load: Callable[[Path], Model] = RealModel,
        name: str = "products",
        max_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        self.name, self.max_batch_size = name, max_batch_size
        self.manager = Manager(base_path, name, load, **options)
        self.delay = 0.0
        self.spoil: Callable[[int, bytes], tuple[int, bytes]] | None = None
        self.spoil_outputs: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
        self.fail: StatusError | None = None
        self.predictions = 0
        self._port, self._grpc_port = free_port(), free_port()
        self._http: _HTTPServer | None = None
        self._grpc: grpc.Server | None = None

    @property
    def url(self) -> str:
        """Root of the REST interface."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def grpc_address(self) -> str:
        """The gRPC address."""
        return f"127.0.0.1:{self._grpc_port}"

    def start(self) -> None:
        """Listens; on the same ports again after a `stop`."""
        self._http = _HTTPServer(("127.0.0.1", self._port), self)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._grpc = grpc.server(ThreadPoolExecutor(8), options=options)
        for method, call in {messages.PREDICT: self._grpc_predict, messages.GET_MODEL_STATUS: self._grpc_status}.items():
            _, service, short = method.split("/")
            handler = grpc.method_handlers_generic_handler(service, {short: grpc.unary_unary_rpc_method_handler(call)})
            self._grpc.add_generic_rpc_handlers([handler])
        assert self._grpc.add_insecure_port(self.grpc_address) == self._grpc_port
        self._grpc.start()

    def stop(self) -> None:
        """Closes every socket, as a server that was killed."""
        if self._http is not None and self._grpc is not None:
            self._http.close()
            self._grpc.stop(None).wait()
            self._http = self._grpc = None

    def __enter__(self) -> StandIn:
        self.manager.start()
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self.manager.stop()

    def predict(self, name: str, version: int | None, label: str | None, read: Callable[[Mapping], tuple]) -> tuple:
        """What both languages do: `read` makes the signature's name and tensors of a request. Version, name, outputs."""
        self.predictions += 1
        number, model = self.manager.find(name, version, label)
        signature_name, tensors = read(model.signatures)
        signature = rules.find_signature(model.signatures, signature_name)
        rules.check_inputs(tensors, signature)
        rows = max((len(tensor) for tensor in tensors.values() if tensor.ndim), default=0)
        if self.max_batch_size is not None and rows > self.max_batch_size:
            raise rules.invalid(f"Task size {rows} is larger than maximum input batch size {self.max_batch_size}")
        if self.delay:
            time.sleep(self.delay)
        if self.fail is not None:
            raise self.fail
        outputs = model.run(signature_name, tensors)
        return number, signature_name, self.spoil_outputs(outputs) if self.spoil_outputs else outputs

    # REST

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to an HTTP request."""
        if not path.lower().startswith("/v1/"):
            return 404, b""
        predict = method == "POST"
        match = (_PREDICT if predict else _STATUS).fullmatch(path)
        try:
            if match is None or (method not in ("GET", "POST")):
                raise rules.invalid(f"Malformed request: {method} {path}")
            name, version, label, rest = match.groups()
            if name is None:
                raise rules.invalid("Missing model name in request.")
            number = None if version is None else int(version)
            if predict:
                return self._spoiled(200, self._rest_predict(unquote(name), number, label, body))
            return 200, json.dumps(self._rest_status(unquote(name), number, label, rest), indent=1).encode()
        except StatusError as error:
            answer = json.dumps({"error": error.message}).encode()
            return self._spoiled(_HTTP[error.code], answer) if predict else (_HTTP[error.code], answer)

    def _rest_predict(self, name: str, version: int | None, label: str | None, body: bytes) -> bytes:
        document = rules.parse_body(body)
        form = {}

        def read(signatures: Mapping) -> tuple:
            signature = rules.signature_name(document)
            tensors, form["rows"] = rules.read_tensors(document, rules.find_signature(signatures, signature).inputs)
            return signature, tensors

        return rules.write_tensors(self.predict(name, version, label, read)[2], form["rows"])

    def _rest_status(self, name: str, version: int | None, label: str | None, rest: str | None) -> dict[str, Any]:
        if label is not None or rest is not None:
            number, model = self.manager.find(name, version, label)
            if rest is not None:
                return _metadata(name, number, model)
            version = number
        if name != self.name:
            raise StatusError(5, f"Could not find any versions of model {name}")
        states = self.manager.states(version)
        return {
            "model_version_status": [
                {
                    "version": str(number),
                    "state": STATES[it.state],
                    "status": {"error_code": _CODES[it.code].name, "error_message": it.message},
                }
                for number, it in states.items()
            ]
        }

    def _spoiled(self, status: int, body: bytes) -> tuple[int, bytes]:
        return self.spoil(status, body) if self.spoil else (status, body)

    # gRPC

    def _grpc_predict(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        request = messages.PredictRequest.FromString(data)
        spec = request.model_spec

        def read(signatures: Mapping) -> tuple:
            name = spec.signature_name or "serving_default"
            if name not in signatures:
                raise StatusError(9, f'Serving signature key "{name}" not found.')
            return name, {key: _from_proto(tensor) for key, tensor in request.inputs.items()}

        with _aborting(context):
            version = spec.version.value if spec.HasField("version") else None
            label = spec.version_label if spec.HasField("version_label") else None
            number, signature, outputs = self.predict(spec.name, version, label, read)
            response = messages.PredictResponse()
            response.model_spec.name, response.model_spec.signature_name = spec.name, signature
            response.model_spec.version.value = number
            for key in request.output_filter or outputs:
                if key not in outputs:
                    raise rules.invalid(f"output tensor alias not found in signature: {key}")
                response.outputs[key].CopyFrom(_to_proto(outputs[key]))
            return response.SerializeToString()

    def _grpc_status(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        spec = messages.GetModelStatusRequest.FromString(data).model_spec
        with _aborting(context):
            if spec.name != self.name:
                raise StatusError(5, f"Could not find any versions of model {spec.name}")
            response = messages.GetModelStatusResponse()
            for number, it in self.manager.states(spec.version.value if spec.HasField("version") else None).items():
                entry = response.model_version_status.add(version=number, state=it.state)
                entry.status.error_code, entry.status.error_message = it.code, it.message
            return response.SerializeToString()


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is nothing to report."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HTTPServer
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, answer = self.server.stand_in.answer(self.command, self.path, body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815
    do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Tests read answers, not logs."""


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _aborting(context: grpc.ServicerContext):
    try:
        yield
    except StatusError as error:
        context.abort(_CODES[error.code], error.message)


def _from_proto(tensor: Any) -> np.ndarray:
    names = {number: name for name, number in _TYPES.items()}
    dtype = names[tensor.dtype]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, rules.NUMPY[dtype]).reshape(shape)
    values = list(getattr(tensor, _VALUES[dtype]))
    array = np.empty(int(np.prod(shape)), rules.NUMPY[dtype])
    array[:] = values
    return array.reshape(shape)


def _to_proto(value: np.ndarray) -> Any:
    kinds = {"f": "float", "b": "bool", "O": "string", "i": "int32", "u": "uint8"}
    dtype = kinds[value.dtype.kind]
    tensor = messages.TensorProto(dtype=_TYPES[dtype])
    for size in value.shape:
        tensor.tensor_shape.dim.add(size=size)
    getattr(tensor, _VALUES[dtype]).extend(value.ravel().tolist())
    return tensor


def _metadata(name: str, version: int, model: Model) -> dict[str, Any]:
    def described(infos: Mapping) -> dict[str, Any]:
        return {
            key: {
                "dtype": f"DT_{info.dtype.upper()}",
                "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in info.shape], "unknown_rank": False},
                "name": key,
            }
            for key, info in infos.items()
        }

    signatures = {
        key: {
            "inputs": described(signature.inputs),
            "outputs": described(signature.outputs),
            "method_name": "tensorflow/serving/predict",
        }
        for key, signature in model.signatures.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


BUSY = StatusError(UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full")
BROKEN = StatusError(INTERNAL, "Something is broken")
