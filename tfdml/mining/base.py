"""What a miner is, and how a batch of triplets is summed without ever holding the B^3 of them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdml.mining.pairs import Pairs

# x = d(anchor, positive) - d(anchor, negative) -> (the loss of such a triplet, its derivative), elementwise. The loss is not
# negative and grows with x; at -inf both are 0.
TripletTerm = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class TripletSums(NamedTuple):
    """Sums over the triplets that a miner chose, for each anchor.

    Attributes:
        values: `[B]` the sum of the terms.
        slopes: `[B, M]` the derivative of `values[a]` by the distance `d(a, j)`.
        chosen: `[B]` how many triplets, as floats.
        active: `[B]` how many of them have a term above zero.
    """

    values: tf.Tensor
    slopes: tf.Tensor
    chosen: tf.Tensor
    active: tf.Tensor


class TripletChoice(NamedTuple):
    """One triplet for each anchor: `[B]` numbers of references, and whether the anchor has a triplet at all."""

    positives: tf.Tensor
    negatives: tf.Tensor
    valid: tf.Tensor


class TripletMiner(abc.ABC):
    """Chooses which triplets (anchor, positive, negative) of a batch count.

    A miner sees distances and which pairs are positive and negative, never the gradient. Positives and negatives are found
    among the references: the batch itself, or what it is compared with. Anchors without a positive or without a negative have
    no triplet. Subclass it, implement `sums`, and pass an instance as `TripletLoss(mining=...)`.
    """

    @abc.abstractmethod
    def sums(self, distances: tf.Tensor, pairs: Any, term: TripletTerm) -> TripletSums:
        """Sums `term` over the chosen triplets of each anchor.

        Args:
            distances: `[B, M]` distances of anchors and references; `[B, B]` within a batch.
            pairs: `tfdml.mining.Pairs`; or the `[B]` labels of the batch.
            term: the loss of a triplet and its slope, from d(a, p) - d(a, n).
        """

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TripletMiner:
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(self.get_config().items()))))

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({options})"


class PerAnchorMiner(TripletMiner):
    """A miner that chooses at most one triplet per anchor. Implement `choose`.

    Losses then need the gradient of 2 B distances only, and compute those exactly, from differences.
    """

    @abc.abstractmethod
    def choose(self, distances: tf.Tensor, pairs: Any) -> TripletChoice:
        """Chooses one triplet for each anchor, from `[B, M]` distances (or anything in the same order)."""

    def sums(self, distances: tf.Tensor, pairs: Any, term: TripletTerm) -> TripletSums:
        p, n, valid = self.choose(distances, pairs)
        values, slopes = term(take(distances, p) - take(distances, n))
        kept = tf.cast(valid, distances.dtype)
        values, slopes = values * kept, slopes * kept
        active = tf.cast(values > 0, distances.dtype)
        return TripletSums(values, slope_matrix(distances, p, slopes) - slope_matrix(distances, n, slopes), kept, active)


def take(matrix: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """`matrix[a, columns[..., a]]` for every row a; `columns` is `[B]` or `[S, B]`."""
    rows, width = tf.shape(matrix)[0], tf.shape(matrix)[1]
    return tf.gather(tf.reshape(matrix, [-1]), tf.range(rows) * width + columns)


def slope_matrix(like: tf.Tensor, columns: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """A matrix shaped `like`, zero but for the sums of `values` at (a, columns[..., a])."""
    shape = tf.shape(like)
    flat = tf.range(shape[0]) * shape[1] + columns
    # unsorted_segment_sum is an order of magnitude faster than scatter_nd on CPU.
    return tf.reshape(tf.math.unsorted_segment_sum(values, flat, shape[0] * shape[1]), shape)


# How many positives of every anchor are handled together.
SLOTS = 32

# `[S, 1]` numbers k and `[S, B]` distances of each anchor to its k-th positive -> `[S, B]` negatives, and whether there is one
# (None: there is, if the anchor has a negative at all).
NegativesOf = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, Any]]


def sum_over_each_positive(
    distances: tf.Tensor,
    pairs: Pairs,
    negatives_of: NegativesOf,
    term: TripletTerm,
    has_negative: tf.Tensor | None = None,
    slots: int = SLOTS,
) -> TripletSums:
    """Sums `term` over all positive pairs, each with one negative.

    Args:
        distances: `[B, M]`.
        pairs: which are positive.
        negatives_of: finds the negatives, for several positives of every anchor at a time.
        term: as in `TripletMiner.sums`.
        has_negative: `[B]` booleans: the other anchors have no triplet. None: those that have any negative.
        slots: how many positives of every anchor are handled together.
    """
    dtype = distances.dtype
    count, last = positives_to_visit(pairs, has_negative)
    nth_positive = pairs.nth_positive()

    def chunk(first: tf.Tensor, values: Any, slopes: Any, chosen: Any, active: Any) -> Any:
        k = first + tf.range(slots)[:, None]
        positives = nth_positive(k)
        to_positive = take(distances, positives)
        negatives, found = negatives_of(k, to_positive)
        kept = tf.cast(k < count if found is None else (k < count) & found, dtype)
        loss, slope = term(to_positive - take(distances, negatives))
        loss, slope = loss * kept, slope * kept
        columns = tf.concat([positives, negatives], 0)
        return (
            first + slots,
            values + tf.reduce_sum(loss, 0),
            slopes + slope_matrix(distances, columns, tf.concat([slope, -slope], 0)),
            chosen + tf.reduce_sum(kept, 0),
            active + tf.reduce_sum(tf.cast(loss > 0, dtype), 0),
        )

    zero = tf.zeros_like(distances[:, 0])
    start = (0, zero, tf.zeros_like(distances), zero, zero)
    return TripletSums(*tf.while_loop(lambda first, *_: first < last, chunk, start)[1:])


def positives_to_visit(pairs: Pairs, has_negative: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """`[B]` how many positives of each anchor make triplets, and the largest of these counts."""
    if has_negative is None:
        has_negative = pairs.negative_count > 0
    count = tf.where(has_negative, pairs.positive_count, 0)
    return count, tf.reduce_max(tf.concat([count, [0]], 0))


def one_by_one(negative_of: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], pairs: Pairs) -> NegativesOf:
    """For a search that takes one `[B]` row of distances at a time: rows beyond the last positive are not searched."""
    _, last = positives_to_visit(pairs)

    def negatives_of(k: tf.Tensor, to_positive: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def slot(s: tf.Tensor, found: Any, valid: Any) -> Any:
            negative, exists = negative_of(to_positive[s])
            at = tf.reshape(s, [1, 1])
            return (
                s + 1,
                tf.tensor_scatter_nd_update(found, at, negative[None]),
                tf.tensor_scatter_nd_update(valid, at, exists[None]),
            )

        nothing = tf.zeros(tf.shape(to_positive), tf.int32)
        rows = tf.minimum(tf.shape(k)[0], last - k[0, 0])
        return tf.while_loop(lambda s, *_: s < rows, slot, (0, nothing, tf.cast(nothing, tf.bool)))[1:]

    return negatives_of
