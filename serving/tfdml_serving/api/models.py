"""The bodies of requests and answers, as the OpenAPI document describes them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tfdml_serving.settings import LARGEST_K

FieldValue = StrictStr | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)] | None

DEFAULT_K = 10

_DIGITS = re.compile(r"-?(0|[1-9][0-9]*)")


def _whole(value: Any) -> Any:
    """What JSON Schema calls an integer, and pydantic alone does not insist on: no text and no boolean; 3.0 is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _in_digits(value: Any) -> Any:
    """How a query or a path writes an integer; pydantic alone takes `+5`, `5.0`, `1_0` and blanks around it as well."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise PydanticCustomError("int_parsing", "Input should be a valid integer, in digits")
    return value


InJson = BeforeValidator(_whole)
InDigits = BeforeValidator(_in_digits)

LONGEST_ID = 4096
"""Of an item: ids are often paths, and no path on Linux is longer."""
ItemId = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, description="An item's id.", examples=["mugs/blue-1"])]
_K = Annotated[int, Field(ge=1, le=LARGEST_K, description="How many items.")]
K = Annotated[_K, InJson]
QueryK = Annotated[_K, InDigits]
FilterText = Annotated[
    str | None,
    Field(
        max_length=4096,
        description=(
            "Only items for which this holds: comparisons (=, !=, <, <=, >, >=), `in (a, b)`, `like 'milk%'`, `is null`, "
            "joined by and, or, not and parentheses."
        ),
        examples=["category = milk and price < 2.5"],
    ),
]
_Version = Annotated[int | None, Field(ge=0, le=2**63 - 1, description="A version that is held; the current one if left out.")]
Version = Annotated[_Version, InJson]
QueryVersion = Annotated[_Version, InDigits]
Number = Annotated[float, Strict(), Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Embedding = Annotated[
    list[Number],
    Field(
        min_length=1,
        max_length=16384,
        description="As many numbers as `dimension` of /v1/info says.",
        examples=[[0.12, -0.53, 0.84]],
    ),
]
Image64 = Annotated[str, Field(min_length=4, description="A JPEG, PNG, BMP or GIF file in standard base64.")]
Fields = Annotated[
    dict[str, FieldValue],
    Field(description="The item's own fields, by name.", examples=[{"title": "Blue mug", "price": 7.5}]),
]

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGMQEFYCAABgADEnM3h2AAAAAElFTkSuQmCC"


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SearchByItem(Request):
    """More like an item."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "mugs/blue-1", "k": 5}]})
    id: ItemId
    k: K = DEFAULT_K
    filter: FilterText = None
    version: Version = None
    include_self: StrictBool = Field(default=False, description="Whether the item itself may be among its neighbours.")


class SearchByEmbedding(Request):
    """Search with a ready embedding."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"embedding": [0.12, -0.53, 0.84], "k": 5}]})
    embedding: Embedding
    k: K = DEFAULT_K
    filter: FilterText = None
    version: Version = None


class Query(Request):
    """One query of a batch: an image, an item's id or an embedding; exactly one of them."""

    image: Image64 | None = None
    id: ItemId | None = None
    embedding: Embedding | None = None

    @model_validator(mode="after")
    def _one(self) -> Query:
        if sum(value is not None for value in (self.image, self.id, self.embedding)) != 1:
            raise ValueError("expected exactly one of image, id and embedding")
        return self


class SearchBatch(Request):
    """Many queries at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"queries": [{"id": "mugs/blue-1"}, {"image": _PIXEL}], "k": 5}]})
    queries: list[Query] = Field(min_length=1, max_length=1024)
    k: K = DEFAULT_K
    filter: FilterText = None
    version: Version = None


class PutItem(Request):
    """An item that is added, or that replaces the one with its id; by its image, or by an embedding of the current version."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"fields": {"title": "Blue mug", "price": 7.5}, "image": _PIXEL}]}
    )
    fields: Fields = Field(default_factory=dict)
    image: Image64 | None = None
    embedding: Embedding | None = None

    @model_validator(mode="after")
    def _one(self) -> PutItem:
        if (self.image is None) == (self.embedding is None):
            raise ValueError("expected either image or embedding")
        return self


class PatchItem(Request):
    """Fields of an item that change; those that are not named stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"fields": {"price": 6.9}}]})
    fields: Fields


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:tfdml:problem:unknown-item",
                    "title": "No such item",
                    "status": 404,
                    "detail": "id='mugs/blue-9': no item has this id.",
                    "request_id": "9f1c2ab07d3e4455",
                }
            ]
        },
    )
    type: str = Field(description="urn:tfdml:problem:KIND; for programs.")
    title: str = Field(description="The kind of problem in words.")
    status: int
    detail: str = Field(description="What is wrong with this request, and the way out.")
    request_id: str
    position: int | None = Field(default=None, description="Where in the filter's text the trouble begins, from 0.")


class Hit(BaseModel):
    """An item that was found."""

    id: str
    distance: float = Field(ge=0)
    match: bool | None = Field(description="Whether it is within the threshold; null if the bundle has none.")
    probability: float | None = Field(
        description="How likely it shows the same thing, from its distance; null if the bundle does not say."
    )
    fields: dict[str, FieldValue]
    thumbnail: str | None = Field(description="Where its picture is; null without one.")


class Result(BaseModel):
    """The items nearest to one query, nearest first."""

    model: str
    version: int = Field(description="The version whose model and index gave this answer.")
    metric: Literal["cosine", "euclidean"]
    match: bool | None = Field(description="Whether the nearest item matches; null if the bundle has no threshold.")
    threshold: float | None = Field(description="Up to this distance an item counts as a match.")
    hits: list[Hit]


class SearchAnswer(Result):
    """The answer to a search."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "products",
                    "version": 3,
                    "metric": "euclidean",
                    "match": True,
                    "threshold": 0.61,
                    "hits": [
                        {
                            "id": "mugs/blue-1",
                            "distance": 0.183,
                            "match": True,
                            "probability": 0.97,
                            "fields": {"title": "Blue mug", "price": 7.5},
                            "thumbnail": "/v1/thumbnails/mugs/blue-1",
                        }
                    ],
                    "request_id": "9f1c2ab07d3e4455",
                    "took_ms": 8.42,
                }
            ]
        }
    )
    request_id: str
    took_ms: float


class RowError(BaseModel):
    """Why a query of a batch has no answer."""

    error: Problem


class BatchAnswer(BaseModel):
    """For each query of a batch, in their order, its answer or its problem."""

    results: list[Result | RowError]
    request_id: str
    took_ms: float


class Item(BaseModel):
    """An item of the catalogue."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "mugs/blue-1", "fields": {"title": "Blue mug", "price": 7.5}, "thumbnail": None}]
        }
    )
    id: str
    fields: dict[str, FieldValue]
    thumbnail: str | None


class Items(BaseModel):
    """A page of the catalogue."""

    items: list[Item]
    next: str | None = Field(description="`after` of the next page; null on the last.")


class ImageInfo(BaseModel):
    """What images are taken."""

    max_bytes: int
    max_pixels: int
    types: list[str]


class Info(BaseModel):
    """What is served, and within which limits."""

    model: str
    version: int
    items: int
    dimension: int
    metric: Literal["cosine", "euclidean"]
    normalised: bool
    fields: dict[str, str] = Field(description="The items' fields and their types: text, integer or real.")
    max_k: int
    max_queries: int
    threshold: float | None
    writable: bool
    thumbnails: bool
    image: ImageInfo
    auth: bool = Field(description="Whether a key is needed.")


class VersionState(BaseModel):
    """A version of the bundle."""

    version: int
    state: str = Field(description="current, held, available, loading or refused")
    reason: str | None = Field(default=None, description="Why it is refused.")
    items: int | None = None
    created: str | None = None


class Versions(BaseModel):
    """The versions of the bundle."""

    current: int | None
    pinned: int | None
    versions: list[VersionState]


class Ready(BaseModel):
    """Whether searches are answered at present."""

    ready: bool
    version: int | None
    reasons: list[str]


class Alive(BaseModel):
    """The process runs."""

    status: Literal["ok"]
