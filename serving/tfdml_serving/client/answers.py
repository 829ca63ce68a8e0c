"""What the service answers, as values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from tfdml_serving.client.calls import Answer
from tfdml_serving.client.errors import Problem
from tfdml_serving.client.reading import Part, json_part

Value = str | int | float | None
"""What a field of an item holds."""


@dataclasses.dataclass(frozen=True)
class Hit:
    """An item that was found.

    Args:
        id: the item's id.
        distance: from the query, in the metric of the bundle.
        fields: the item's own fields.
        match: whether it is near enough to show the same thing; None where the bundle has no threshold.
        thumbnail: the path of its small picture on the server; None without one.
        probability: how likely it shows the same thing, from its distance; None where the bundle does not say.
    """

    id: str
    distance: float
    fields: Mapping[str, Value]
    match: bool | None = None
    thumbnail: str | None = None
    probability: float | None = None

    @classmethod
    def read(cls, part: Part) -> Hit:
        return cls(
            part.text("id"),
            part.number("distance"),
            part.mapping("fields"),
            part.optional("match", part.boolean),
            part.optional("thumbnail", part.text),
            part.optional("probability", part.number),
        )


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The items nearest to a query.

    Args:
        model: the model's name.
        version: the version that answered; its embedding and its index.
        metric: "euclidean" or "cosine".
        match: whether the nearest hit is near enough to show the same thing; None where the bundle has no threshold.
        threshold: the distance up to which a hit is a match.
        hits: nearest first. Iterating the result, its length and its indices are those of the hits.
        request_id: what the server's log calls the request.
        took_ms: milliseconds that the server needed.
    """

    model: str
    version: int
    metric: str
    match: bool | None
    threshold: float | None
    hits: tuple[Hit, ...]
    request_id: str | None = None
    took_ms: float | None = None

    @classmethod
    def read(cls, part: Part) -> SearchResult:
        return cls(
            part.text("model"),
            part.integer("version"),
            part.text("metric"),
            part.optional("match", part.boolean),
            part.optional("threshold", part.number),
            tuple(Hit.read(hit) for hit in part.parts("hits")),
            part.optional("request_id", part.text),
            part.optional("took_ms", part.number),
        )

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __getitem__(self, number: int) -> Hit:
        return self.hits[number]


@dataclasses.dataclass(frozen=True)
class Item:
    """An item of the catalogue: its id, its own fields, and the path of its small picture, if it has one."""

    id: str
    fields: Mapping[str, Value]
    thumbnail: str | None = None

    @classmethod
    def read(cls, part: Part) -> Item:
        return cls(part.text("id"), part.mapping("fields"), part.optional("thumbnail", part.text))


@dataclasses.dataclass(frozen=True)
class ItemPage:
    """A page of the catalogue, and what `after` has to be for the next one; None on the last."""

    items: tuple[Item, ...]
    next: str | None

    @classmethod
    def read(cls, part: Part) -> ItemPage:
        return cls(tuple(Item.read(item) for item in part.parts("items")), part.optional("next", part.text))


@dataclasses.dataclass(frozen=True)
class ImageLimits:
    """What the service takes as an image: bytes, pixels, and content types."""

    max_bytes: int
    max_pixels: int
    types: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Info:
    """What the service serves.

    Args:
        model: the model's name.
        version: the current version.
        items: how many there are, added ones included.
        dimension: of an embedding.
        metric: "euclidean" or "cosine".
        normalised: whether embeddings have the length 1.
        fields: the items' own fields, and their types: "text", "integer" or "real".
        max_k: the most hits that can be asked for.
        max_queries: the most queries of a batch.
        threshold: the distance up to which a hit is a match; None if the bundle was exported without one.
        writable: whether items can be changed.
        thumbnails: whether items have small pictures.
        image: the limits on images.
        auth: whether a key is needed.
    """

    model: str
    version: int
    items: int
    dimension: int
    metric: str
    normalised: bool
    fields: Mapping[str, str]
    max_k: int
    max_queries: int
    threshold: float | None
    writable: bool
    thumbnails: bool
    image: ImageLimits
    auth: bool

    @classmethod
    def read(cls, part: Part) -> Info:
        image = part.part("image")
        return cls(
            model=part.text("model"),
            version=part.integer("version"),
            items=part.integer("items"),
            dimension=part.integer("dimension"),
            metric=part.text("metric"),
            normalised=part.boolean("normalised"),
            fields=part.mapping("fields"),
            max_k=part.integer("max_k"),
            max_queries=part.integer("max_queries"),
            threshold=part.optional("threshold", part.number),
            writable=part.boolean("writable"),
            thumbnails=part.boolean("thumbnails"),
            image=ImageLimits(image.integer("max_bytes"), image.integer("max_pixels"), image.texts("types")),
            auth=part.boolean("auth"),
        )


@dataclasses.dataclass(frozen=True)
class VersionInfo:
    """One version of the bundle.

    Args:
        version: its number.
        state: "current" answers, "held" is open and can be asked for, "loading", "available" lies there, "refused" is unfit.
        reason: why it is refused.
        items: how many it has.
        created: when it was exported.
    """

    version: int
    state: str
    reason: str | None = None
    items: int | None = None
    created: str | None = None

    @classmethod
    def read(cls, part: Part) -> VersionInfo:
        return cls(
            part.integer("version"),
            part.text("state"),
            part.optional("reason", part.text) or None,
            part.optional("items", part.integer),
            part.optional("created", part.text),
        )


@dataclasses.dataclass(frozen=True)
class Versions:
    """The version that answers, the one that is held on to by hand (None: the newest that is fit), and all there are."""

    current: int | None
    pinned: int | None
    versions: tuple[VersionInfo, ...]

    @classmethod
    def read(cls, part: Part) -> Versions:
        return cls(
            part.optional("current", part.integer),
            part.optional("pinned", part.integer),
            tuple(VersionInfo.read(version) for version in part.parts("versions")),
        )


@dataclasses.dataclass(frozen=True)
class Readiness:
    """Whether the service can answer, with which version, and why not. True or false as a condition."""

    ready: bool
    version: int | None
    reasons: tuple[str, ...]

    @classmethod
    def read(cls, part: Part) -> Readiness:
        reasons = part.texts("reasons") if part.has("reasons") else ()
        return cls(part.boolean("ready"), part.optional("version", part.integer), reasons)

    def __bool__(self) -> bool:
        return self.ready


def read_batch(answer: Answer) -> list[SearchResult | Problem]:
    """The rows of a batch: what was found, or what was wrong with that row alone."""
    rows: list[SearchResult | Problem] = []
    for part in json_part(answer.body).parts("results"):
        if part.has("error"):
            rows.append(Problem.of(part.mapping("error"), 400))
        else:
            rows.append(SearchResult.read(part))
    return rows
