"""A client of TF-Serving alone: a bundle's SavedModel embeds and searches by itself, with no service beside it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from tfdml_serving.client.answers import Hit
from tfdml_serving.client.calls import Answer, Call, Retry
from tfdml_serving.client.endpoints import JSON
from tfdml_serving.client.errors import UnexpectedAnswer
from tfdml_serving.client.queries import Image, encoded, image_bytes, json_body, numbers
from tfdml_serving.client.reading import Part, json_part
from tfdml_serving.client.running import AsyncRunner, Runner, awaiting, blocking

_NO_FIELDS = frozenset({"ids", "distances", "count", "valid"})


@dataclasses.dataclass(frozen=True)
class Found:
    """What the model found for one query.

    Args:
        valid: False if the image could not be decoded, or the embedding cannot be searched for; there are no hits then.
        hits: nearest first, with the fields that were chosen at export. Iterating, length and indices are those of the hits.
    """

    valid: bool
    hits: tuple[Hit, ...]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __getitem__(self, number: int) -> Hit:
        return self.hits[number]


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The embedding of one image; `valid` is False, and the embedding zero, if it could not be decoded."""

    valid: bool
    embedding: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """A version that TF-Serving knows: START, LOADING, AVAILABLE, UNLOADING or END, and what went wrong, if anything."""

    version: int
    state: str
    error: str = ""


class Signatures:
    """What each signature of a bundle is sent, and how its answer is read. None sends anything.

    Args:
        model: the name under which TF-Serving knows the bundle.
        version: the version that is to answer.
        label: or its label.
    """

    def __init__(self, model: str, version: int | None = None, label: str | None = None) -> None:
        if not isinstance(model, str) or not model or "/" in model or ":" in model:
            raise ValueError(f"model={model!r}: expected the name of a model, as in models.config.")
        if version is not None and label is not None:
            raise ValueError(f"version={version!r} and label={label!r}: expected one of them at most.")
        self._model = f"/v1/models/{quote(model, safe='')}"
        self._path = self._model
        if version is not None:
            self._path += f"/versions/{int(version)}"
        elif label is not None:
            self._path += f"/labels/{quote(label, safe='')}"

    def search(self, images: Sequence[Image], k: int | Sequence[int] = 10) -> Call[list[Found]]:
        """The items nearest to images.

        Args:
            images: image files: their bytes, paths, or open files.
            k: how many, one number or one for each image; at most the bundle's `max_k`.

        Returns:
            One `Found` for each image, in their order.
        """
        return self._search("search", "image_bytes", _files(images), k)

    def search_images(self, images: Any, k: int | Sequence[int] = 10) -> Call[list[Found]]:
        """The items nearest to decoded images.

        Args:
            images: `[N, h, w, C]` of the model's own size, whole numbers from 0 to 255: an array of uint8, or lists.
            k: how many, one number or one for each image.
        """
        return self._search("search_images", "images", _pixels(images), k)

    def search_embedding(self, embeddings: Iterable[Iterable[float]], k: int | Sequence[int] = 10) -> Call[list[Found]]:
        """The items nearest to embeddings `[N, D]` that the same version has made."""
        return self._search("search_embedding", "embedding", [numbers(row) for row in embeddings], k)

    def embed(self, images: Sequence[Image]) -> Call[list[Embedded]]:
        """The embeddings of image files: their bytes, paths, or open files."""
        return self._embed("serving_default", "image_bytes", _files(images))

    def embed_images(self, images: Any) -> Call[list[Embedded]]:
        """The embeddings of decoded images `[N, h, w, C]` of the model's own size."""
        return self._embed("embed_images", "images", _pixels(images))

    def status(self) -> Call[list[ModelVersion]]:
        """The versions of the model that TF-Serving knows, the newest first."""
        return Call("GET", self._path, _read_status)

    def metadata(self) -> Call[Mapping[str, Any]]:
        """The model's signatures, as TF-Serving describes them."""
        return Call("GET", f"{self._path}/metadata", lambda answer: json_part(answer.body).mapping("metadata"))

    def _search(self, signature: str, name: str, queries: list[Any], k: int | Sequence[int]) -> Call[list[Found]]:
        rows = [{name: query, "k": each} for query, each in zip(queries, _each(k, len(queries)), strict=True)]
        return self._predict(signature, rows, lambda answer: [_found(row) for row in _rows(answer, len(rows))])

    def _embed(self, signature: str, name: str, queries: list[Any]) -> Call[list[Embedded]]:
        rows = [{name: query} for query in queries]
        return self._predict(
            signature,
            rows,
            lambda answer: [Embedded(row.boolean("valid"), row.numbers("embedding")) for row in _rows(answer, len(rows))],
        )

    def _predict(self, signature: str, rows: list[Any], read: Any) -> Call[Any]:
        if not rows:
            raise ValueError("expected at least one query; TF-Serving refuses an empty request.")
        body = json_body({"signature_name": signature, "instances": rows})
        return Call("POST", f"{self._path}:predict", read, body=body, content_type=JSON)


class TFServingClient(Runner[Signatures]):
    """Asks a TF-Serving that has loaded a bundle, over REST: the model alone searches its own gallery.

    Args:
        url: the REST address, such as "http://localhost:8501".
        model: the name of the model.
        version: the version that is to answer; None for what TF-Serving takes, its newest.
        label: or its label.
        timeout, deadline, retry, http: as for `Client`.

    Example:
        with TFServingClient("http://localhost:8501", "products") as client:
            [found] = client.search(["photo.jpg"], k=5)
            for hit in found:
                print(hit.id, hit.distance, hit.fields)
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 10.0,
        deadline: float = 30.0,
        retry: Retry | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        super().__init__(Signatures(model, version, label), url, None, timeout, deadline, retry, http=http)

    search = blocking(Signatures.search)
    search_images = blocking(Signatures.search_images)
    search_embedding = blocking(Signatures.search_embedding)
    embed = blocking(Signatures.embed)
    embed_images = blocking(Signatures.embed_images)
    status = blocking(Signatures.status)
    metadata = blocking(Signatures.metadata)


class AsyncTFServingClient(AsyncRunner[Signatures]):
    """`TFServingClient`, to be awaited."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 10.0,
        deadline: float = 30.0,
        retry: Retry | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(Signatures(model, version, label), url, None, timeout, deadline, retry, http=http)

    search = awaiting(Signatures.search)
    search_images = awaiting(Signatures.search_images)
    search_embedding = awaiting(Signatures.search_embedding)
    embed = awaiting(Signatures.embed)
    embed_images = awaiting(Signatures.embed_images)
    status = awaiting(Signatures.status)
    metadata = awaiting(Signatures.metadata)


def _rows(answer: Answer, expected: int) -> list[Part]:
    rows = list(json_part(answer.body).parts("predictions"))
    if len(rows) != expected:
        raise UnexpectedAnswer(f"the answer has {len(rows)} predictions; expected {expected}, one for each query.")
    return rows


def _found(row: Part) -> Found:
    valid, count = row.boolean("valid"), row.integer("count")
    ids, distances = row.texts("ids"), row.numbers("distances")
    fields = {name: row.list(name) for name in row.names() if name not in _NO_FIELDS}
    # A row is as wide as the widest of its batch; what is past the count is padding.
    if not 0 <= count <= min(map(len, (ids, distances, *fields.values()))):
        raise UnexpectedAnswer(f"a prediction counts {count} hits and has {len(ids)} ids and {len(distances)} distances.")
    hits = (Hit(ids[n], distances[n], {name: values[n] for name, values in fields.items()}) for n in range(count))
    return Found(valid, tuple(hits))


def _read_status(answer: Answer) -> list[ModelVersion]:
    result = []
    for part in json_part(answer.body).parts("model_version_status"):
        version = part.text("version")  # an int64, which TF-Serving writes as a string
        if not version.isdigit():
            raise UnexpectedAnswer(f"the answer has the version {version!r}; expected a number.")
        error = part.part("status").optional("error_message", part.part("status").text) if part.has("status") else None
        result.append(ModelVersion(int(version), part.text("state"), error or ""))
    return result


def _files(images: Sequence[Image]) -> list[dict[str, str]]:
    if isinstance(images, (str, bytes)) or not isinstance(images, Sequence):
        raise ValueError(f"images: {type(images).__name__}; expected a list of image files. For one image write [image].")
    return [{"b64": encoded(image_bytes(image))} for image in images]


def _pixels(images: Any) -> list[Any]:
    kind = str(getattr(images, "dtype", "uint8"))
    if kind != "uint8":
        raise ValueError(f"images: an array of {kind}; expected uint8, values from 0 to 255.")
    if hasattr(images, "tolist"):
        rows: list[Any] = images.tolist()
        return rows
    rows = [image.tolist() if hasattr(image, "tolist") else image for image in images]
    # TF-Serving takes 300 for 44 without a word.
    for value in _leaves(rows):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
            raise ValueError(f"images: {value!r} is not a pixel; expected whole numbers from 0 to 255.")
    return rows


def _leaves(rows: list[Any]) -> Iterator[Any]:
    for row in rows:
        if isinstance(row, (list, tuple)):
            yield from _leaves(list(row))
        else:
            yield row


def _each(k: int | Sequence[int], count: int) -> list[int]:
    many = list(itertools.repeat(k, count)) if isinstance(k, int) else list(k)
    if len(many) != count or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in many):
        raise ValueError(f"k={k!r}: expected a whole number from 1, or one for each of the {count} queries.")
    return many
