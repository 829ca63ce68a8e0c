"""A version that is held for searching: an open bundle joined with the living catalogue."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.bundle import Bundle, Manifest, MatchProbability, Threshold
from tfdml.bundle.catalogue import Value
from tfdml.bundle.layout import CATALOGUE, parse_version
from tfdml.index.base import check_queries
from tfdml.index.exact import distances_from_squares
from tfdml_serving.engine.base_search import BaseSearch
from tfdml_serving.engine.filters import Filter
from tfdml_serving.engine.joined import IN_BUNDLE, IN_LIVING, Joined
from tfdml_serving.engine.listing import ORDERS, Listing
from tfdml_serving.engine.selection import Selections
from tfdml_serving.errors import BadRequest, UnknownItem
from tfdml_serving.living.folding import folded_before
from tfdml_serving.living.store import LivingCatalogue

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Found:
    """One answer.

    Args:
        id: the item's id.
        distance: in the bundle's metric: `||u - v||` or `1 - cos(u, v)`.
        fields: the item's own fields.
        has_thumbnail: whether `HeldVersion.thumbnail` has a picture of it.
    """

    id: str
    distance: float
    fields: dict[str, Value]
    has_thumbnail: bool


class HeldVersion:
    """A version of a bundle, and what was added, changed and removed since it was made.

    A search returns the k nearest of all items that are there, or of all that a filter selects: k whenever so many exist.
    Items of the bundle come from its Annoy file or are compared one by one, whichever is cheaper; items of the living
    catalogue are always compared one by one. What the living catalogue acknowledged is in every search that starts after.

    Everything is safe to call from several threads, and nothing loads TensorFlow.

    Attributes:
        version: its number.
        manifest: the bundle's `tfdml.bundle.Manifest`.
        space: name of the embedding space; `search` takes embeddings of this space only.
        fields: the items' fields and their types, "text", "integer" or "real".
        metric: "cosine" or "euclidean".
        dimension: of an embedding.
        fingerprint: of the model.
        thumbnails: whether the bundle has pictures of its items.

    Example:
        with HeldVersion.open("exports/products/3", living) as held:
            where = parse_filter("category = milk and in_stock = 1", held.fields)
            for hit in held.search(embedding, k=10, where=where)[0]:
                print(hit.id, hit.distance, hit.fields)
    """

    def __init__(self, bundle: Bundle, living: LivingCatalogue | None) -> None:
        # Private: use open.
        self.manifest: Manifest = bundle.manifest
        self.version = parse_version(bundle.path.name) or 0
        self.space, self.metric = self.manifest.space, self.manifest.metric
        self.dimension, self.fingerprint = self.manifest.model.dimension, self.manifest.model.fingerprint
        self.fields: Mapping[str, str] = bundle.catalogue.fields
        self.thumbnails = bundle.catalogue.has_thumbnails
        self._bundle, self._living = bundle, living
        self._base = BaseSearch(bundle.index)
        self._selections = Selections(bundle.path / CATALOGUE, len(bundle))
        self._joined = Joined(bundle, self._base, self.space)
        self._listing = Listing(self._joined, self._base, self._selections, len(bundle))
        self._unfollow: Callable[[], None] | None = None
        self._closed = threading.Event()
        if living is not None:
            self._follow(living)

    @classmethod
    def open(cls, path: str | os.PathLike[str], living: LivingCatalogue | None = None, verify: bool = True) -> HeldVersion:
        """Opens a version.

        Args:
            path: a version directory, or a model directory, whose latest version is taken.
            living: the living catalogue beside it. What it knows and this version does not have in it is applied, and what is
                added later as it comes, until `close`.
            verify: compute the checksum of every file.

        Raises:
            BundleError: if the bundle is refused, or the living catalogue has forgotten changes that are not in it.
        """
        bundle = Bundle.open(Path(path), verify)
        try:
            return cls(bundle, living)
        except BaseException:
            bundle.close()
            raise

    @property
    def items(self) -> int:
        """How many items there are, the living ones included."""
        return self._joined.items

    def search(self, embeddings: npt.ArrayLike, k: int, where: Filter | None = None) -> list[list[Found]]:
        """The nearest items of each query, nearest first.

        Args:
            embeddings: `[B, D]`, or one `[D]`, which counts as B = 1.
            k: how many; fewer come back only if fewer exist, or are selected.
            where: of `parse_filter(text, held.fields)`.

        Raises:
            BadRequest: for another dimension, NaN, a zero vector under cosine, or `k` below 1.
        """
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise BadRequest(f"k={k!r}: expected a whole number >= 1.")
        try:
            queries = check_queries(embeddings, self.dimension, self.metric)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        selected = None if where is None else self._selections.select(where)
        # The bundle first: what a change moves from there to the living items meanwhile is then found among those.
        in_bundle = self._base.search(queries, int(k), selected)
        chosen = [self._joined.merged(query, int(k), where, *found) for query, found in zip(queries, in_bundle, strict=True)]
        details = self._joined.details([one.place for row in chosen for one in row if one.source == IN_BUNDLE])
        found = []
        for row in chosen:
            distances = distances_from_squares(np.array([one.squared for one in row]), self.metric).tolist()
            items = (details[one.place] if one.source == IN_BUNDLE else self._joined.living_item(one.row) for one in row)
            found.append([Found(distance=distance, **item) for distance, item in zip(distances, items, strict=True)])
        return found

    def vector(self, item_id: str) -> Floats:
        """The embedding of an item, float32 `[D]`, of length 1 under cosine.

        Raises:
            UnknownItem: if there is no such item, or its embedding is of another space.
        """
        source, place = self._joined.find(item_id)
        if source == IN_BUNDLE:
            return np.array(self._bundle.index.vectors([place])[0])
        vector = self._joined.delta.vector(place)
        if vector is None:
            raise UnknownItem(
                f"id={item_id!r}: its embedding is of another space than that of version {self.version}, so it is not found "
                "by searches yet. Add it anew, or compact the living catalogue."
            )
        return vector

    def item(self, item_id: str) -> dict[str, Any]:
        """`{"id": ..., "fields": {...}, "has_thumbnail": ...}`.

        Raises:
            UnknownItem: if there is no such item.
        """
        source, place = self._joined.find(item_id)
        if source == IN_LIVING:
            return self._joined.living_item(self._joined.delta.rows[place])
        return self._joined.details([place])[place]

    def list_items(
        self, where: Filter | None, limit: int, after: str | None, order: str = "id"
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Items page by page.

        Args:
            where: which; None for all.
            limit: at most how many.
            after: the second result of the call before, with the same order; None begins.
            order: "id", or "spread": a fixed order in which items that stand together in the bundle are far apart, so that
                each page shows a bit of everything.

        Returns:
            Items as `item` returns them, and what to give as `after` for more; None if there are no more.
        """
        if limit < 1:
            raise BadRequest(f"limit={limit}: expected a whole number >= 1.")
        if order not in ORDERS:
            raise BadRequest(f"order={order!r}: expected one of {', '.join(ORDERS)}.")
        page = self._listing.by_id if order == "id" else self._listing.spread
        listed = page(where, limit + 1, after)
        more = listed[limit - 1][0] if len(listed) > limit else None
        return [item for _, item in listed[:limit]], more

    def thumbnail(self, item_id: str) -> bytes | None:
        """A small picture of an item, a JPEG file's bytes, if there is one.

        Raises:
            UnknownItem: if there is no such item.
        """
        source, place = self._joined.find(item_id)
        if source == IN_LIVING:
            row = self._joined.delta.rows[place]
            if row.has_thumbnail and self._living is not None:
                return self._living.thumbnail(item_id)
            if row.number < 0 or not row.of_bundle:
                return None
            place = row.number
        return self._bundle.catalogue.thumbnail(place)

    def unembedded(self) -> list[tuple[str, int]]:
        """Living items not yet searched in this space that could be: they have an image. See `LivingCatalogue.embed`."""
        return [] if self._living is None else self._living.unembedded(self.space)

    def threshold(self) -> Threshold | None:
        """The calibrated distance beyond which an answer is "no match"; None where the bundle has none."""
        name = self.manifest.usual_threshold()
        return None if name is None else self.manifest.thresholds[name]

    @property
    def match_probability(self) -> MatchProbability | None:
        """How likely an answer is right, from its distance; None where the bundle does not say."""
        return self.manifest.match_probability

    def close(self) -> None:
        """Stops following the living catalogue and closes the files. The mapped index goes with the last reference to it."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._unfollow is not None:
            self._unfollow()
        self._selections.close()
        self._base.close()
        self._bundle.close()

    def __enter__(self) -> HeldVersion:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _follow(self, living: LivingCatalogue) -> None:
        folded = folded_before(self._bundle, living)
        self._unfollow = living.follow(self._joined.apply, space=self.space, after=folded.sequence, also=folded.left_out)
