"""What a miner is, and how a batch of triplets is summed without ever holding the B^3 of them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdml.mining.masks import ClassGroups

# x = d(anchor, positive) - d(anchor, negative) -> (the loss of such a triplet, its derivative), elementwise. The loss is not
# negative and grows with x; at -inf both are 0.
TripletTerm = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class TripletSums(NamedTuple):
    """Sums over the triplets that a miner chose, for each anchor.

    Attributes:
        values: `[B]` the sum of the terms.
        slopes: `[B, B]` the derivative of `values[a]` by the distance `d(a, j)`.
        chosen: `[B]` how many triplets, as floats.
        active: `[B]` how many of them have a term above zero.
    """

    values: tf.Tensor
    slopes: tf.Tensor
    chosen: tf.Tensor
    active: tf.Tensor


class TripletChoice(NamedTuple):
    """One triplet for each anchor: `[B]` item numbers, and whether the anchor has a triplet at all."""

    positives: tf.Tensor
    negatives: tf.Tensor
    valid: tf.Tensor


class TripletMiner(abc.ABC):
    """Chooses which triplets (anchor, positive, negative) of a batch count.

    A miner sees the distances of a batch and its labels, never the gradient. Anchors without a positive or without a negative
    have no triplet. Subclass it, implement `sums`, and pass an instance as `TripletLoss(mining=...)`.
    """

    @abc.abstractmethod
    def sums(self, distances: tf.Tensor, labels: tf.Tensor, term: TripletTerm) -> TripletSums:
        """Sums `term` over the chosen triplets of each anchor.

        Args:
            distances: `[B, B]` distances, within the batch.
            labels: `[B]` labels.
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
    def choose(self, distances: tf.Tensor, labels: tf.Tensor) -> TripletChoice:
        """Chooses one triplet for each anchor, from `[B, B]` distances (or anything in the same order) and `[B]` labels."""

    def sums(self, distances: tf.Tensor, labels: tf.Tensor, term: TripletTerm) -> TripletSums:
        p, n, valid = self.choose(distances, labels)
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


def sum_over_negative_of_each_positive(
    distances: tf.Tensor,
    groups: ClassGroups,
    negative_of: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    term: TripletTerm,
) -> TripletSums:
    """Sums `term` over all ordered positive pairs, each with one negative.

    Args:
        distances: `[B, B]`.
        groups: the classes of the batch.
        negative_of: from `[B]` thresholds d(a, p), one for each anchor, to `[B]` negatives and whether there is one.
        term: as in `TripletMiner.sums`.
    """
    batch, dtype = tf.shape(distances)[0], distances.dtype
    largest_class = tf.reduce_max(tf.concat([groups.size, [0]], 0))
    has_negative = groups.size < batch
    # With one class only there is nothing to do, however many positives there are.
    last = tf.where(tf.reduce_any(has_negative), largest_class, 0)

    def chunk(first: tf.Tensor, values: Any, slopes: Any, chosen: Any, active: Any) -> Any:
        k = first + tf.range(SLOTS)[:, None]
        positives = groups.positive(k)
        to_positive = take(distances, positives)

        def slot(s: tf.Tensor, found: Any, valid: Any) -> Any:
            negative, exists = negative_of(to_positive[s])
            at = tf.reshape(s, [1, 1])
            return (
                s + 1,
                tf.tensor_scatter_nd_update(found, at, negative[None]),
                tf.tensor_scatter_nd_update(valid, at, exists[None]),
            )

        nothing = tf.zeros_like(positives)
        _, negatives, valid = tf.while_loop(
            lambda s, *_: (s < SLOTS) & (first + s < last), slot, (0, nothing, tf.cast(nothing, tf.bool))
        )
        kept = tf.cast(valid & (k < groups.size) & has_negative, dtype)
        loss, slope = term(to_positive - take(distances, negatives))
        loss, slope = loss * kept, slope * kept
        columns = tf.concat([positives, negatives], 0)
        return (
            first + SLOTS,
            values + tf.reduce_sum(loss, 0),
            slopes + slope_matrix(distances, columns, tf.concat([slope, -slope], 0)),
            chosen + tf.reduce_sum(kept, 0),
            active + tf.reduce_sum(tf.cast(loss > 0, dtype), 0),
        )

    zero = tf.zeros_like(distances[:, 0])
    start = (1, zero, tf.zeros_like(distances), zero, zero)
    return TripletSums(*tf.while_loop(lambda first, *_: first < last, chunk, start)[1:])
