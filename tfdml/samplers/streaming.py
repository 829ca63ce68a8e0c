"""Triplets by graded relevance from a stream: Deep Ranking's online sampling, for data that do not fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdml._checks import check_positive
from tfdml.samplers._arguments import check_integer, check_share
from tfdml.samplers.draws import uniform
from tfdml.samplers.loading import load_batches
from tfdml.samplers.permutation import hashed
from tfdml.samplers.reservoir import Entries, Reservoir

_KEYS = ("item", "category", "features", "total_relevance")


class OnlineTripletSampler:
    """Triplets of query, positive and negative, drawn by relevance from one buffer for each category of a stream.

    The online form of `RelevanceTripletSampler`: J. Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, CVPR
    2014. Nothing but the buffers is in memory; they are weighted reservoirs (P. Efraimidis, P. Spirakis, Weighted random
    sampling with a reservoir, Information Processing Letters 2006):

    - an element j of the stream gets the key u^(1 / r_j), with u drawn from 0 to 1 and r_j its total relevance, and enters the
      buffer of its category while there is room, or in place of the smallest key if its own is larger;
    - for each element one triplet is drawn, in its category: the query evenly from the buffer; the positive j in proportion to
      min(1, r(i, j) / r_j), which undoes that j is there in proportion to r_j; an in-class negative by the same law, on
      condition that r(i, positive) - r(i, negative) >= T_r; an out-of-class negative evenly from all other buffers.

    Where the paper draws and rejects, positive and negative are drawn at once from the law that this tends to. A query that
    has no positive or no negative in the buffer is drawn again, `tries` times at most; then the element yields no triplet.
    The first elements of a stream yield few. Batches are always full.

    All state travels with the iterator: `tf.train.Checkpoint(iterator=iterator)` saves buffers and position, and two iterators
    do not disturb each other. Batches depend on the stream, the arguments and the seed; `start_step` reads the stream again up
    to there. An element that comes again, in the next round of `stream.repeat()`, takes the place of its older copy, if it
    has the same "id".

    Args:
        stream: a `tf.data.Dataset` of dictionaries: "item", what `load` makes an image of (a number, a file name, encoded
            bytes; any structure, but small, since buffers are full of it); "category", integer, 0 to `num_categories - 1`;
            "features", `[F]`, what relevance is computed from; "total_relevance", r_j >= 0 (see `total_relevance`); and, if
            the stream repeats, "id", int64. Shuffle it, as far as it comes in an order.
        num_categories: how many buffers there are.
        capacity: entries in each.
        relevance: features of queries `[..., T, F]` and of candidates `[..., M, F]` to numbers `[..., T, M]`, in TensorFlow
            ops; `None`: their dot product. Below 0 counts as 0.
        batch_size: B, triplets in a batch.
        out_of_class: the share of triplets whose negative is of another category, drawn for each one.
        relevance_cap: T_p, in units of relevance: no candidate is drawn as if its relevance were larger.
        relevance_gap: T_r > 0, in units of relevance.
        tries: queries drawn for a triplet at most.
        elements: how many elements of the stream are taken in at once. The buffers are copied each time.
        seed: from 0 to 2^64 - 1.

    Raises:
        TypeError, ValueError: a wrong argument, or a stream of other elements.

    Example:

    >>> features = tf.constant([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]] * 8)
    >>> categories = tf.constant([0, 0, 0, 0, 1, 1, 1, 1] * 4, tf.int64)
    >>> stream = tf.data.Dataset.range(32).map(lambda i: {
    ...     "item": i, "category": categories[i], "features": features[i], "total_relevance": 5.0})
    >>> sampler = OnlineTripletSampler(stream, num_categories=2, capacity=8, batch_size=4, elements=8)
    >>> indices, labels = next(iter(sampler.indices()))
    >>> indices.shape, labels.shape
    (TensorShape([4, 3]), TensorShape([4, 3]))
    >>> photographs = tf.random.uniform([32, 8, 8, 3])
    >>> (queries, positives, negatives), _ = next(iter(sampler.dataset(lambda index: photographs[index])))
    >>> queries.shape
    TensorShape([4, 8, 8, 3])
    """

    def __init__(
        self,
        stream: Any,
        num_categories: int,
        capacity: int = 128,
        relevance: Callable[[Any, Any], Any] | None = None,
        batch_size: int = 32,
        out_of_class: float = 0.2,
        relevance_cap: float = math.inf,
        relevance_gap: float = 0.1,
        tries: int = 4,
        elements: int = 64,
        seed: int = 0,
    ) -> None:
        self.num_categories = check_integer("num_categories", num_categories, 1)
        self.capacity = check_integer("capacity", capacity, 1)
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self.out_of_class = check_share("out_of_class", out_of_class)
        if relevance_cap != math.inf:
            check_positive("relevance_cap", relevance_cap)
        check_positive("relevance_gap", relevance_gap)
        self.relevance_cap, self.relevance_gap = float(relevance_cap), float(relevance_gap)
        self.tries = check_integer("tries", tries, 1)
        self.elements = check_integer("elements", elements, 1)
        self.seed = check_integer("seed", seed, 0, 2**64 - 1)
        if out_of_class > 0 and self.num_categories == 1:
            raise ValueError(
                f"out_of_class={out_of_class:g}: there is one category, so no negative is of another. Pass out_of_class=0."
            )
        self._relevance = relevance or (lambda queries, candidates: tf.matmul(queries, candidates, transpose_b=True))
        self._spec = _check_stream(stream)
        self._stream = stream

    def __repr__(self) -> str:
        return (
            f"OnlineTripletSampler(categories={self.num_categories}, capacity={self.capacity}, batch_size={self.batch_size}, "
            f"out_of_class={self.out_of_class:g}, relevance_cap={self.relevance_cap:g}, relevance_gap="
            f"{self.relevance_gap:g}, tries={self.tries}, seed={self.seed})"
        )

    def indices(self, start_step: int = 0) -> Any:
        """A `tf.data.Dataset` of (items `[B, 3, ...]`, categories int64 `[B, 3]`), as long as the stream lasts."""
        start_step = check_integer("start_step", start_step, 0)
        chunks = _with_ids(self._stream).batch(self.elements)
        reservoir = Reservoir(self._spec, self.num_categories, self.capacity, self.seed)
        triplets = chunks.scan(reservoir.empty(), lambda state, chunk: self._step(reservoir, state, chunk))
        return triplets.unbatch().batch(self.batch_size, drop_remainder=True).skip(start_step)

    def dataset(
        self,
        load: Callable[[Any], Any] = lambda item: item,
        augment: Callable[..., Any] | None = None,
        start_step: int = 0,
        *,
        parallel_calls: int | None = None,
        prefetch: int | None = None,
    ) -> Any:
        """A `tf.data.Dataset` of ((queries, positives, negatives), labels): images `[B, ...]` each, and int64 `[B, 3]`.

        Args:
            load: an "item" of the stream -> image, or any structure of tensors; it runs inside `tf.data`.
            augment: as in `Sampler.dataset`.
            start_step: batches that are left out at the beginning. The stream is read for them, but nothing is loaded.
            parallel_calls: items loaded at a time; `None` lets `tf.data` decide.
            prefetch: batches made ready in advance; `None` lets `tf.data` decide, 0 is none.
        """
        flat = self.indices(start_step).map(
            lambda items, labels: (tf.nest.map_structure(lambda part: _merged(part)[None], items), _merged(labels)[None])
        )
        return load_batches(
            flat,
            rows=self.batch_size,
            width=3,
            row_labels=lambda labels: tf.reshape(labels, [self.batch_size, 3]),
            load=load,
            augment=augment,
            seed=self.seed,
            start_step=start_step,
            parallel_calls=parallel_calls,
            prefetch=prefetch,
        )

    def _step(self, reservoir: Reservoir, state: Any, chunk: Any) -> tuple[Any, tuple[Any, Any]]:
        """Takes a chunk of the stream in and draws a triplet in the category of each of its elements."""
        first = state.seen
        state = reservoir.add(state, chunk)
        category = tf.cast(chunk["category"], tf.int64)
        key = hashed(tf.constant(self.seed, tf.uint64), 1, first + tf.range(tf.size(category, out_type=tf.int64)))
        out = uniform(key, 0) < self.out_of_class
        drawn = self._in_category(state, category, out, key)
        negative, is_there = _from_other_categories(state, category, uniform(key, 4))
        places = category * self.capacity
        triplets = tf.stack(
            [places + drawn.query, places + drawn.positive, tf.where(out, negative, places + drawn.negative)], axis=1
        )
        triplets = tf.boolean_mask(triplets, drawn.valid & (is_there | ~out))
        items = tf.nest.map_structure(lambda part: tf.gather(_merged(part), triplets), state.entries.item)
        return state, (items, triplets // self.capacity)

    def _in_category(self, state: Any, category: Any, out: Any, key: Any) -> _Drawn:
        """Query, positive and in-class negative: places in the buffer of each category, `[S]`."""
        entries: Entries = tf.nest.map_structure(
            lambda part: tf.gather(part, category), state.entries._replace(item=state.entries.id)
        )
        count = tf.reduce_sum(tf.cast(entries.is_there, tf.int64), axis=1)
        tries = tf.range(self.tries, dtype=tf.int64)
        queries = tf.cast(uniform(key[:, None], 1, tries) * tf.cast(count, tf.float64)[:, None], tf.int64)

        features = tf.gather(entries.features, queries, batch_dims=1)
        relevance = tf.cast(tf.nn.relu(self._relevance(features, entries.features)), tf.float64)
        itself = tf.gather(entries.id, queries, batch_dims=1)[:, :, None] == entries.id[:, None]
        relevance = tf.where(entries.is_there[:, None] & ~itself, relevance, 0.0)

        order = tf.argsort(relevance, axis=2, direction="DESCENDING", stable=True)
        ranked = tf.gather(relevance, order, batch_dims=2)
        totals = tf.gather(tf.cast(entries.total_relevance, tf.float64), order, batch_dims=1)
        accepted = tf.minimum(tf.math.divide_no_nan(tf.minimum(ranked, self.relevance_cap), totals), 1.0)
        sums = tf.cumsum(accepted, axis=2)
        # In a row that falls, the places with r <= r(positive) - gap are those from some place on.
        first = _search(-ranked, self.relevance_gap - ranked, "left")
        some = tf.gather(tf.pad(ranked, _ONE_AFTER), first, batch_dims=2) > 0
        before = tf.gather(tf.pad(sums, _ONE_BEFORE), first, batch_dims=2)
        joint = tf.cumsum(accepted * tf.where(some, sums[:, :, -1:] - before, 0.0), axis=2)

        law = tf.where(out[:, None, None], sums, joint)
        possible = law[:, :, -1] > 0
        chosen = tf.argmax(tf.cast(possible, tf.int32), axis=1)[:, None]

        def of_chosen(part: Any) -> Any:
            return tf.gather(part, chosen, batch_dims=1)[:, 0]

        law, sums, first, order = (of_chosen(part) for part in (law, sums, first, order))
        last = tf.constant(self.capacity - 1, tf.int64)
        place = tf.minimum(_search(law, uniform(key, 2)[:, None] * law[:, -1:], "right"), last)
        base = tf.gather(tf.pad(sums, _ONE_BEFORE[1:]), tf.gather(first, place, batch_dims=1), batch_dims=1)
        target = base + uniform(key, 3)[:, None] * (sums[:, -1:] - base)
        other = tf.minimum(_search(sums, target, "right"), last)
        positive, negative = (tf.cast(tf.gather(order, part, batch_dims=1)[:, 0], tf.int64) for part in (place, other))
        return _Drawn(of_chosen(queries), positive, negative, of_chosen(possible))


class _Drawn(NamedTuple):
    query: Any
    positive: Any
    negative: Any
    valid: Any


_ONE_BEFORE = [[0, 0], [0, 0], [1, 0]]
_ONE_AFTER = [[0, 0], [0, 0], [0, 1]]


def _from_other_categories(state: Any, category: Any, draws: Any) -> tuple[Any, Any]:
    """Evenly from the entries of all other buffers, which are filled from the front; and whether there is any."""
    capacity = tf.shape(state.entries.key, tf.int64)[1]
    counts = tf.reduce_sum(tf.cast(state.entries.is_there, tf.int64), axis=1)
    ends = tf.cumsum(counts)
    own = tf.gather(counts, category)
    others = ends[-1] - own
    number = tf.cast(draws * tf.cast(others, tf.float64), tf.int64)
    number += tf.where(number < tf.gather(ends, category) - own, tf.zeros_like(own), own)
    buffer = tf.searchsorted(ends, number, side="right", out_type=tf.int64)
    buffer = tf.minimum(buffer, tf.size(counts, out_type=tf.int64) - 1)
    place = number - tf.gather(ends - counts, buffer)
    return buffer * capacity + tf.minimum(place, capacity - 1), others > 0


def _search(rows: Any, values: Any, side: str) -> Any:
    """`tf.searchsorted` of the last axis, whatever the axes before."""
    flat = (tf.reshape(part, [-1, tf.shape(part)[-1]]) for part in (rows, values))
    return tf.reshape(tf.searchsorted(*flat, side=side, out_type=tf.int64), tf.shape(values))


def _merged(part: Any) -> Any:
    """`[A, B, ...]` to `[A * B, ...]`."""
    return tf.reshape(part, tf.concat([[-1], tf.shape(part)[2:]], 0))


def _check_stream(stream: Any) -> Any:
    """The specification of an element, with an "id"."""
    if not isinstance(stream, tf.data.Dataset):
        raise TypeError(f"stream={stream!r} is a {type(stream).__name__}: expected a tf.data.Dataset.")
    spec = stream.element_spec
    missing = [key for key in _KEYS if not isinstance(spec, dict) or key not in spec]
    if missing:
        raise ValueError(
            f"stream: its elements are {spec}, without {', '.join(missing)}: expected dictionaries of item, category, features "
            "and total_relevance."
        )
    for key, rank in (("category", 0), ("features", 1), ("total_relevance", 0)):
        if spec[key].shape.rank != rank or not spec[key].shape.is_fully_defined():
            expected = "a vector of known length" if rank else "a number"
            raise ValueError(f"stream: {key} has shape {spec[key].shape}: expected {expected}.")
    if not spec["category"].dtype.is_integer:
        raise ValueError(f"stream: category has dtype {spec['category'].dtype.name}: expected integers.")
    return {**spec, "id": tf.TensorSpec([], tf.int64)}


def _with_ids(stream: Any) -> Any:
    if "id" in stream.element_spec:
        return stream.map(lambda element: {**element, "id": tf.cast(element["id"], tf.int64)})
    return stream.enumerate().map(lambda number, element: {**element, "id": number})
