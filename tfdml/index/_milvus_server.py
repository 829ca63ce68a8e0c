"""Talking to Milvus: the same client for a local database (Milvus Lite, in this process) and for a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tfdml.index._milvus_spec import MILVUS_NAMES, MilvusSpec
from tfdml.index.base import Floats, IndexFormatError, Integers

ADDRESS = "TFDML_MILVUS_URI"
TOKEN = "TFDML_MILVUS_TOKEN"

MOST_FOUND = 16_384
"""Milvus's own limit of the answers to one query."""

_WIDEST_GRAPH_SEARCH = 32_768
_ROWS_BYTES = 4 << 20
_SECONDS = 30.0
_ID, _VECTOR = "number", "vector"


def import_milvus() -> Any:
    """pymilvus, which is asked for only where it is needed."""
    try:
        import pymilvus
    except ImportError as error:
        raise ImportError(
            f"this index needs pymilvus, which cannot be imported here ({error}). Install it: pip install 'tfdml[milvus]'"
        ) from error
    return pymilvus


def cluster_address(cluster: bool | str) -> str:
    """The address that is given, or that of the environment.

    Raises:
        ValueError: if there is none, or it is no address.
    """
    address = cluster if isinstance(cluster, str) else os.environ.get(ADDRESS, "")
    source = f"cluster={_shown(address)!r}" if isinstance(cluster, str) else f"{ADDRESS}={_shown(address)!r}"
    if not address:
        raise ValueError(f"{source}: the index is on a Milvus cluster. Set {ADDRESS} to its address, http://host:19530.")
    if urlsplit(address).scheme not in ("http", "https", "tcp", "unix"):
        raise ValueError(f"{source}: expected the address of a Milvus cluster, such as http://host:19530.")
    return address


class Server:
    """A connection, to the database in `folder` or to the cluster at `address`. Threads may use it at once.

    Milvus Lite keeps a search's width on the index, where a second search would change it: one searches at a time. Nothing is
    lost by that, for it computes under Python's lock.
    """

    def __init__(self, address: str | None, token: str | None = None, folder: Path | None = None) -> None:
        self._milvus = import_milvus()
        self._folder = folder
        self._turn: Any = threading.Lock() if folder is not None else contextlib.nullcontext()
        self.name = "Milvus Lite" if address is None else _shown(address)
        given = token if token is not None else os.environ.get(TOKEN, "") if address is not None else ""
        with self._asking():
            self._client = self._milvus.MilvusClient(address or str(folder), token=given, timeout=_SECONDS)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Whatever Milvus complains of is a `ConnectionError` without its secrets."""
        try:
            yield
        except self._milvus.exceptions.MilvusException as error:
            raise ConnectionError(f"Milvus at {self.name} does not do it: {_first_line(error)}") from None

    def has(self, collection: str) -> bool:
        with self._asking():
            return bool(self._client.has_collection(collection))

    def fill(self, collection: str, rows: Floats, kind: str, lists: int, links: int) -> None:
        """Makes a collection of these vectors, whose ids are their numbers, with an index."""
        types, client = self._milvus.DataType, self._client
        with self._asking():
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field(_ID, types.INT64, is_primary=True)
            schema.add_field(_VECTOR, types.FLOAT_VECTOR, dim=rows.shape[1])
            client.create_collection(collection, schema=schema, consistency_level="Strong")
            step = max(1, _ROWS_BYTES // (4 * rows.shape[1]))
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                client.insert(collection, [{_ID: start + place, _VECTOR: row} for place, row in enumerate(part)])
            client.flush(collection)
            how = client.prepare_index_params()
            used: dict[str, Any] = {"nlist": lists} if lists else {}
            if kind == "hnsw":
                used = {"M": links, "efConstruction": max(80, links)}
            if used and self._folder is not None:
                # pymilvus 3 sends each setting by its name, and Milvus Lite 3.2 reads them from here only.
                used = {**used, "params": json.dumps(used)}
            how.add_index(field_name=_VECTOR, index_type=MILVUS_NAMES[kind], metric_type="L2", params=used)
            client.create_index(collection, how)
            client.load_collection(collection)

    def check(self, spec: MilvusSpec, vectors: Floats) -> None:
        """Opens the collection, after making sure that it is the one that `spec` describes, of these vectors."""
        collection, client = spec.collection, self._client
        if not self.has(collection):
            raise IndexFormatError(f"Milvus at {self.name} has no collection {collection!r}.")
        with self._asking():
            fields = {one["name"]: one for one in client.describe_collection(collection)["fields"]}
            client.load_collection(collection)
            count = int(client.get_collection_stats(collection)["row_count"])
            index = client.describe_index(collection, _VECTOR) or {}
        dimension = int(fields.get(_VECTOR, {}).get("params", {}).get("dim", 0))
        found = (count, dimension, str(index.get("index_type")), str(index.get("metric_type")))
        if found != (spec.count, spec.dimension, MILVUS_NAMES[spec.kind], "L2"):
            raise IndexFormatError(
                f"collection {collection!r} of Milvus at {self.name} has {count} vectors of dimension {dimension} with "
                f"{index.get('index_type')}, expected {spec.count} of {spec.dimension} with {MILVUS_NAMES[spec.kind]}."
            )
        numbers = np.unique(np.linspace(0, spec.count - 1, 16).astype(int)).tolist()
        with self._asking():
            held = {row[_ID]: row[_VECTOR] for row in client.get(collection, ids=numbers, output_fields=[_ID, _VECTOR])}
        for number in numbers:
            if not np.array_equal(np.asarray(held.get(number, []), np.float32), vectors[number]):
                raise IndexFormatError(f"collection {collection!r} of Milvus has another vector for item {number}.")

    def search(self, spec: MilvusSpec, batch: Floats, wanted: int, width: int) -> list[Integers]:
        """For each query up to `wanted` items, in no order, after looking at about `width`."""
        params: dict[str, int] = {}
        if spec.kind == "hnsw":
            params = {"ef": min(max(width, wanted), _WIDEST_GRAPH_SEARCH)}
        elif spec.lists:
            params = {"nprobe": min(spec.lists, -(-max(width, 1) * spec.lists // spec.count))}
        with self._asking(), self._turn:
            answers = self._client.search(
                spec.collection,
                data=list(batch),
                anns_field=_VECTOR,
                limit=wanted,
                search_params={"metric_type": "L2", "params": params},
                output_fields=[],
                timeout=_SECONDS,
            )
        return [np.array([hit[_ID] for hit in hits], np.int64) for hits in answers]

    def drop(self, collection: str) -> None:
        with self._asking():
            self._client.drop_collection(collection)

    def close(self) -> None:
        """Ends the connection, and Milvus Lite's server of this database."""
        self._client.close()
        if self._folder is not None:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(str(self._folder))


def _shown(address: str) -> str:
    """An address without user and password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1]).geturl()


def _first_line(error: Exception) -> str:
    return (str(getattr(error, "message", "") or error).strip().splitlines() or [type(error).__name__])[0][:200]
