"""Triplets by graded relevance: Deep Ranking's sampling."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfdml._checks import check_positive
from tfdml.samplers._arguments import check_integer
from tfdml.samplers.base import Sampler, host_tensor
from tfdml.samplers.draws import first_above, uniform, weighted
from tfdml.samplers.grouping import ClassGroups
from tfdml.samplers.pairs import rows_of, spread
from tfdml.samplers.permutation import hashed
from tfdml.samplers.relevance import Doubles, relevance_blocks


class _Tables(NamedTuple):
    """As eager tensors. A query's candidates, most relevant first, lie side by side: R of them over all queries."""

    queries: Any
    """float64 `[2 N]`: running sums of the queries' weights, for out-of-class triplets and for in-class ones."""
    starts: Any
    """int64 `[N]`, where a query's candidates begin."""
    sizes: Any
    """int64 `[N]`, how many it has."""
    candidates: Any
    """integers `[R]`, item indices."""
    positives: Any
    """float64 `[2 R]`: running sums of the candidates' weights as positives, out-of-class and in-class."""
    negatives: Any
    """integers `[R]`: with this candidate as positive, from which place on candidates are less relevant by the gap."""
    items: Any
    """integers `[N]`, by category."""
    category_starts: Any
    """integers `[N]`: where in `items` the category of an item begins."""
    category_sizes: Any
    labels: Any
    """int64 `[N]`."""


class RelevanceTripletSampler(Sampler):
    """Triplets of query, positive and negative, drawn by how relevant images are to each other.

    J. Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, CVPR 2014. Within a category, r(i, j) >= 0 says
    how relevant image j is to image i; between categories relevance is 0. With r_i, the sum of r(i, j) over the other images j
    of its category:

    - the query i is drawn with probability r_i / (sum of all);
    - the positive p from its category, in proportion to min(T_p, r(i, p)): the cap T_p keeps near-duplicates from being drawn
      again and again;
    - an in-class negative n from its category, in proportion to min(T_p, r(i, n)), on condition that
      r(i, p) - r(i, n) >= T_r. The paper redraws until that holds and gives a query up that fails too often; here positive and
      negative are drawn together from the law that redrawing tends to, and a query with no such two images is never asked for
      an in-class negative;
    - an out-of-class negative evenly from all images of other categories.

    `round(out_of_class * batch_size)` triplets of each batch have an out-of-class negative, evenly spread over its rows.

    Yields `((queries, positives, negatives), labels)`: three batches of images `[B, ...]`, and int64 `[B, 3]`, the categories.
    `indices` yields item indices `[B, 3]`. For losses on explicit triplets, with
    three towers of one encoder.

    Relevance is asked for once, one category (and some tens of MB) at a time, never N x N; 24 bytes are kept for each pair of
    one category that has any. After that a triplet costs three binary searches. Data with too many such pairs are for
    `OnlineTripletSampler`. A **round** is as many batches as show as many triplets as there are images; images are drawn, so
    one may come twice in it, and one that is relevant to nothing never comes as a query.

    Args:
        categories: `[N]`, integers or strings.
        relevance: r: a function of two arrays of item indices, int64 `[a]` and `[b]`, to numbers >= 0 `[a, b]`; or a matrix
            `[N, N]`. See `GradedRelevance` for one made of classes and image features.
        batch_size: B, triplets in a batch.
        out_of_class: the share of triplets whose negative is of another category, 0 to 1. The paper found about 0.2 sensible.
        relevance_cap: T_p, in units of relevance. The paper gives no value; the default is none.
        relevance_gap: T_r > 0, in units of relevance. The paper gives no value.
        seed: from 0 to 2^64 - 1.

    Raises:
        TypeError: a wrong type, e.g. float categories.
        ValueError: relevance that is negative, not finite or of a wrong shape, or zero everywhere; a gap that no two images of
            a category have; out-of-class negatives where there is one category; a share that leaves no row.

    Example:

    >>> from tfdml.samplers import GradedRelevance
    >>> categories = ["fruit"] * 6 + ["milk"] * 4
    >>> products = ["apple", "apple", "apple", "pear", "pear", "pear", "soy", "soy", "oat", "oat"]
    >>> colours = np.random.default_rng(0).random([10, 3])
    >>> relevance = GradedRelevance(products, colours)
    >>> sampler = RelevanceTripletSampler(categories, relevance, batch_size=5, relevance_gap=0.3)
    >>> sampler
    RelevanceTripletSampler(items=10, categories=2, batch_size=5, out_of_class=0.2, relevance_cap=inf, relevance_gap=0.3,
        seed=0, steps_per_epoch=2)
    >>> indices, labels = sampler.batch_at(0)
    >>> indices.shape, int((labels[:, 0] != labels[:, 2]).sum())
    ((5, 3), 1)
    >>> photographs = tf.random.uniform([10, 8, 8, 3])
    >>> (queries, positives, negatives), _ = next(iter(sampler.dataset(lambda index: photographs[index])))
    >>> queries.shape
    TensorShape([5, 8, 8, 3])
    """

    _width = 3

    def __init__(
        self,
        categories: Any,
        relevance: Any,
        batch_size: int = 32,
        out_of_class: float = 0.2,
        relevance_cap: float = math.inf,
        relevance_gap: float = 0.1,
        seed: int = 0,
    ) -> None:
        self._batch_size = check_integer("batch_size", batch_size, 1)
        self._out_rows = rows_of("out_of_class", out_of_class, self._batch_size)
        self.out_of_class = float(out_of_class)
        if relevance_cap != math.inf:
            check_positive("relevance_cap", relevance_cap)
        check_positive("relevance_gap", relevance_gap)
        self.relevance_cap, self.relevance_gap = float(relevance_cap), float(relevance_gap)
        self.seed = check_integer("seed", seed, 0, 2**64 - 1)

        groups = ClassGroups.from_labels(categories)
        self.num_items: int = groups.num_items
        self.num_categories: int = groups.num_classes
        self.class_names: tuple[str, ...] | None = groups.class_names
        if self._out_rows and self.num_categories == 1:
            raise ValueError(
                f"out_of_class={out_of_class:g}: there is one category, so no negative is of another. Pass out_of_class=0."
            )
        self._tables = self._prepare(groups, relevance)

    @property
    def batch_size(self) -> int:
        """B, triplets in a batch."""
        return self._batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Batches with as many triplets as there are images."""
        return -(-self.num_items // self._batch_size)

    def __repr__(self) -> str:
        return (
            f"RelevanceTripletSampler(items={self.num_items}, categories={self.num_categories}, batch_size={self.batch_size}, "
            f"out_of_class={self.out_of_class:g}, relevance_cap={self.relevance_cap:g}, relevance_gap="
            f"{self.relevance_gap:g}, seed={self.seed}, steps_per_epoch={self.steps_per_epoch})"
        )

    def _draw(self, steps: Any, shard_index: int, num_shards: int) -> tuple[Any, Any]:
        tables, width = self._tables, self._batch_size // num_shards
        rows = tf.range(shard_index * width, (shard_index + 1) * width, dtype=tf.int64)
        out, _ = spread(rows, self._out_rows, self._batch_size)
        key = hashed(tf.constant(self.seed, tf.uint64), steps[:, None], rows)
        out = tf.broadcast_to(out, tf.shape(key))
        second_half = tf.where(out, tf.zeros_like(key, tf.int64), 1)

        count = tf.constant(self.num_items, tf.int64)
        query = weighted(tables.queries, second_half * count, count, uniform(key, 0))
        start, size = tf.gather(tables.starts, query), tf.gather(tables.sizes, query)
        in_class = second_half * tf.size(tables.candidates, out_type=tf.int64)
        place = weighted(tables.positives, in_class + start, size, uniform(key, 1))
        positive = tf.gather(tables.candidates, start + place)
        negative = tf.where(out, self._of_another_category(query, key), self._less_relevant(start, size, place, key))

        triplets = tf.stack([query, tf.cast(positive, tf.int64), tf.cast(negative, tf.int64)], axis=-1)
        triplets = tf.reshape(triplets, [-1, 3 * width])
        return triplets, tf.gather(tables.labels, triplets)

    def _row_labels(self, labels: Any) -> Any:
        return tf.reshape(labels, [-1, 3])

    def _of_another_category(self, query: Any, key: Any) -> Any:
        """Evenly from all items but those of the query's category, which lie side by side."""
        start = tf.cast(tf.gather(self._tables.category_starts, query), tf.int64)
        size = tf.cast(tf.gather(self._tables.category_sizes, query), tf.int64)
        others = tf.cast(self.num_items - size, tf.float64)
        place = tf.cast(uniform(key, 2) * others, tf.int64)
        return tf.gather(
            self._tables.items, tf.minimum(place + tf.where(place < start, tf.zeros_like(size), size), self.num_items - 1)
        )

    def _less_relevant(self, start: Any, size: Any, positive: Any, key: Any) -> Any:
        """A candidate after those that are not less relevant than the positive by the gap, by the weights of positives."""
        sums = self._tables.positives
        first = tf.cast(tf.gather(self._tables.negatives, start + positive), tf.int64)
        base = tf.where(first > 0, tf.gather(sums, start + tf.maximum(first - 1, 0)), 0.0)
        target = base + uniform(key, 3) * (tf.gather(sums, start + size - 1) - base)
        place = tf.minimum(first_above(sums, start, size, target), size - 1)
        return tf.gather(self._tables.candidates, start + place)

    def _prepare(self, groups: ClassGroups, relevance: Any) -> _Tables:
        count = groups.num_items
        totals, in_class_totals, sizes = np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
        candidates, weights, joint, firsts = [], [], [], []
        order_of_rows = []
        for rows, members, block in relevance_blocks(groups, relevance):
            ranked = _Ranked.of(block, self.relevance_cap, self.relevance_gap)
            order_of_rows.append(rows)
            sizes[rows] = ranked.present.sum(axis=1)
            totals[rows] = block.sum(axis=1)
            in_class_totals[rows] = np.where(ranked.joint[:, -1] > 0, totals[rows], 0)
            candidates.append(members[ranked.order][ranked.present].astype(groups.items.dtype))
            weights.append(ranked.weights[ranked.present])
            joint.append(ranked.joint[ranked.present])
            firsts.append(ranked.first_negative[ranked.present].astype(groups.items.dtype))
        self._check_there_are_triplets(totals, in_class_totals)

        ordered = np.concatenate(order_of_rows)
        starts = np.empty(count, np.int64)
        starts[ordered] = np.cumsum(sizes[ordered]) - sizes[ordered]
        category = np.repeat(np.arange(groups.num_classes), groups.sizes)
        number = np.empty(count, np.int64)
        number[groups.items] = category
        parts: list[NDArray[Any]] = [
            np.concatenate([np.cumsum(totals), np.cumsum(in_class_totals)]),
            starts,
            sizes,
            np.concatenate(candidates),
            np.concatenate(weights + joint),
            np.concatenate(firsts),
            groups.items,
            groups.starts[number],
            groups.sizes[number],
            groups.labels[number],
        ]
        return _Tables(*(host_tensor(part) for part in parts))

    def _check_there_are_triplets(self, totals: Doubles, in_class_totals: Doubles) -> None:
        if not totals.any():
            raise ValueError(
                "relevance is 0 between all items of a category, so there is no positive. Pass a relevance that is above 0 for "
                "some, or coarser categories."
            )
        if self._out_rows < self._batch_size and not in_class_totals.any():
            raise ValueError(
                f"relevance_gap={self.relevance_gap:g}: no two candidates of any query differ so much in relevance: there is "
                "no in-class negative. Pass a smaller gap, a relevance that tells more apart, or out_of_class=1."
            )


class _Ranked(NamedTuple):
    """Rows of relevance `[a, b]`, each in falling order."""

    order: NDArray[np.int64]
    present: NDArray[np.bool_]
    """Relevance above 0."""
    weights: Doubles
    """Running sums of min(cap, r)."""
    joint: Doubles
    """Running sums of the weight of a place as positive, times that of all places that may then be the negative."""
    first_negative: NDArray[np.int64]

    @classmethod
    def of(cls, block: Doubles, cap: float, gap: float) -> _Ranked:
        order = np.argsort(-block, axis=1, kind="stable")
        sorted_block = np.take_along_axis(block, order, axis=1)
        weight = np.minimum(sorted_block, cap)
        sums = np.cumsum(weight, axis=1)
        # In a row that falls, the places with r <= r(positive) - gap are those from some place on.
        first = np.stack([np.searchsorted(-row, gap - row, side="left") for row in sorted_block])
        before = np.take_along_axis(np.pad(sums, ((0, 0), (1, 0))), first, axis=1)
        # What is left of zero weights is zero, not the rounding of a difference.
        some = np.take_along_axis(np.pad(sorted_block, ((0, 0), (0, 1))), first, axis=1) > 0
        joint = np.cumsum(weight * np.where(some, sums[:, -1:] - before, 0), axis=1)
        return cls(order, sorted_block > 0, sums, joint, first)
