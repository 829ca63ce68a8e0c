"""Weighted reservoirs, one for each category, as tensors that a `tf.data` scan carries along."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfdml.samplers.draws import uniform
from tfdml.samplers.permutation import hashed

_ABSENT = float("-inf")


class Entries(NamedTuple):
    """Elements of a stream, or what buffers hold of it: `[S, ...]` or `[G, M, ...]`."""

    key: Any
    """float64: log(u) / r, which is in the order of u^(1 / r); minus infinity where there is nothing."""
    id: Any
    total_relevance: Any
    features: Any
    item: Any

    @property
    def is_there(self) -> Any:
        return self.key > tf.constant(_ABSENT, tf.float64)


class State(NamedTuple):
    """`seen` elements of the stream, and the entries kept of them, the largest key first in each buffer."""

    seen: Any
    entries: Entries


class Reservoir:
    """G buffers of M entries: samples without replacement, weighted by total relevance, of all that has been added.

    P. Efraimidis, P. Spirakis, Weighted random sampling with a reservoir, Information Processing Letters 2006 (A-Res).

    Args:
        spec: of an element, a dictionary.
        categories: G.
        capacity: M.
        seed: decides the keys, together with an element's number in the stream.
    """

    def __init__(self, spec: Any, categories: int, capacity: int, seed: int) -> None:
        self._spec, self._categories, self._capacity, self._seed = spec, categories, capacity, seed

    def empty(self) -> State:
        """Nothing seen."""

        def zeros(spec: Any) -> Any:
            return tf.zeros([self._categories, self._capacity, *spec.shape], spec.dtype)

        key = tf.fill([self._categories, self._capacity], tf.constant(_ABSENT, tf.float64))
        rest = (self._spec[name] for name in Entries._fields[1:])
        return State(tf.constant(0, tf.int64), Entries(key, *(tf.nest.map_structure(zeros, part) for part in rest)))

    def add(self, state: State, chunk: Any) -> State:
        """Takes in some elements at once, with the same result as one after the other."""
        category = tf.cast(chunk["category"], tf.int64)
        known = tf.debugging.assert_equal(
            tf.reduce_all((category >= 0) & (category < self._categories)),
            True,
            f"stream: a category outside 0 .. {self._categories - 1}, with num_categories={self._categories}",
        )
        with tf.control_dependencies([] if known is None else [known]):
            category = tf.identity(category)
        added = self._entries(chunk, state.seen)
        touched, which = tf.unique(category)
        kept = tf.nest.map_structure(lambda part: tf.gather(part, touched), state.entries)

        own = which[None, :] == tf.range(tf.size(touched))[:, None]
        again = tf.reduce_any((kept.id[:, :, None] == added.id) & own[:, None, :], axis=2)
        absent = tf.constant(_ABSENT, tf.float64)
        keys = tf.concat([tf.where(again, absent, kept.key), tf.where(own, added.key, absent)], axis=1)
        best, place = tf.math.top_k(keys, self._capacity)
        # Kept entries first, one buffer after the other, then all that was added.
        first = tf.range(tf.size(touched))[:, None] * self._capacity
        place = tf.where(place < self._capacity, first + place, place + (tf.size(touched) - 1) * self._capacity)

        def updated(buffer: Any, old: Any, new: Any) -> Any:
            table = tf.concat([tf.reshape(old, tf.concat([[-1], tf.shape(old)[2:]], 0)), new], axis=0)
            return tf.ensure_shape(tf.tensor_scatter_nd_update(buffer, touched[:, None], tf.gather(table, place)), buffer.shape)

        entries = tf.nest.map_structure(updated, state.entries, kept, added)
        key = tf.tensor_scatter_nd_update(state.entries.key, touched[:, None], best)
        seen = state.seen + tf.size(category, out_type=tf.int64)
        return State(seen, entries._replace(key=tf.ensure_shape(key, state.entries.key.shape)))

    def _entries(self, chunk: Any, seen: Any) -> Entries:
        total = tf.cast(chunk["total_relevance"], tf.float64)
        numbers = seen + tf.range(tf.size(total, out_type=tf.int64))
        draws = 1.0 - uniform(
            hashed(tf.constant(self._seed, tf.uint64), 0, numbers)
        )  # above 0, so that the logarithm is finite
        absent = tf.constant(_ABSENT, tf.float64)
        key = tf.where(total > 0, tf.math.log(draws) / tf.where(total > 0, total, 1.0), absent)
        # Of one that comes twice in the chunk, the later one counts.
        ids, count = chunk["id"], tf.size(total)
        repeated = (ids[:, None] == ids) & (tf.range(count)[:, None] < tf.range(count))
        key = tf.where(tf.reduce_any(repeated, axis=1), absent, key)
        return Entries(key, *(chunk[name] for name in Entries._fields[1:]))
