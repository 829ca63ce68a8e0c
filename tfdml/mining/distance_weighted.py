"""Distance-weighted sampling of negatives, as "Sampling Matters in Deep Embedding Learning" does it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice
from tfdml.mining.base import TripletMiner, TripletSums, TripletTerm, slope_matrix, take
from tfdml.mining.masks import ClassGroups, negative_mask


@keras.saving.register_keras_serializable(package="tfdml")
class DistanceWeighted(TripletMiner):
    """For every ordered positive pair, a negative drawn at random, so that all distances are equally likely.

    Pr(n | a) ~ min(lambda, 1 / q(d_an)),    q(d) ~ d^(D - 2) (1 - d^2 / 4)^((D - 3) / 2)

    Of Wu, Manmatha, Smola, Kraehenbuehl, "Sampling Matters in Deep Embedding Learning", ICCV 2017. On the unit sphere in D
    dimensions nearly all points lie about sqrt(2) from each other, so negatives drawn uniformly are all easy; q is the density
    of their distances. Draws are with replacement, one for each positive of an anchor.

    For **Euclidean distances of normalised embeddings** only. Negatives beyond `upper` are never drawn, since in the paper's
    margin loss they have no loss (1.4 = alpha + beta). An anchor without a negative below `upper` has no negative; what that
    means is `fallback`. (The published code then draws from all items, positives and the anchor itself included.)

    There is no state. The draw depends on `seed` and on the numbers of the batch itself, so it differs from step to step and
    from replica to replica, a run can be repeated, one that was resumed from a checkpoint goes on as it would have, and the
    same batch of embeddings always has the same loss.

    Args:
        lower: distances below this count as this (the paper's lambda): it bounds the weight of the nearest, often noisy,
            negatives. 0 < lower < upper.
        upper: only negatives nearer than this are drawn; `None`: all.
        fallback: for an anchor that has no negative below `upper`: `"none"`: none is drawn; `"uniform"`: any negative.
        seed: an integer: another seed, other draws.
        dimension: D, of the embeddings. `MarginLoss` knows it; `TripletLoss(mining=DistanceWeighted(dimension=...))` shows a
            miner distances only.

    Raises:
        ValueError: an argument that is not allowed.

    >>> distances = [[0.0, 0.25, 0.5, 1.0, 1.5]] * 5
    >>> chances = DistanceWeighted().probabilities(distances, [5, 6, 7, 8, 9], dimension=3)[0]
    >>> [round(float(chance), 4) for chance in chances]
    [0.0, 0.4, 0.4, 0.2, 0.0]
    """

    def __init__(
        self,
        lower: float = 0.5,
        upper: float | None = 1.4,
        fallback: str = "none",
        seed: int = 0,
        dimension: int | None = None,
    ) -> None:
        if not _is_number(lower) or not 0 < lower < 2:
            raise ValueError(f"lower={lower!r}: expected a distance between points of the unit sphere, 0 < lower < 2.")
        if upper is not None and (not _is_number(upper) or not lower < upper <= 2):
            raise ValueError(f"upper={upper!r}: expected a distance with lower={lower} < upper <= 2, or None for no cut-off.")
        if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**31) <= seed < 2**31:
            raise ValueError(f"seed={seed!r}: expected an integer of 32 bits.")
        if dimension is not None and (not isinstance(dimension, int) or isinstance(dimension, bool) or dimension < 1):
            raise ValueError(f"dimension={dimension!r}: expected the length of the embeddings, an integer >= 1, or None.")
        self.lower, self.upper = lower, upper
        self.fallback = check_choice("fallback", fallback, ("none", "uniform"))
        self.seed, self.dimension = seed, dimension

    def probabilities(self, distances: Any, labels: Any, dimension: Any = None) -> tf.Tensor:
        """`[B, B]`: how likely each item is to be drawn as the negative of each anchor. A row is 0 if none can be."""
        distances = tf.convert_to_tensor(distances)
        weights, total = self._weights(distances, tf.convert_to_tensor(labels), self._known(dimension))
        return tf.math.divide_no_nan(weights, total[:, None])

    def sums(self, distances: tf.Tensor, labels: tf.Tensor, term: TripletTerm) -> TripletSums:
        return self.sums_in(distances, labels, term, self._known(None), distances)

    def sums_in(
        self, distances: tf.Tensor, labels: tf.Tensor, term: TripletTerm, dimension: Any, content: tf.Tensor
    ) -> TripletSums:
        """`sums`, for a loss that knows the dimension of the embeddings.

        Args:
            distances: `[B, B]` Euclidean distances.
            labels: `[B]` labels.
            term: as in `sums`.
            dimension: of the embeddings, a number or a scalar tensor.
            content: floats of any shape that tell one step from another, for example the embeddings.
        """
        weights, total = self._weights(distances, labels, dimension)
        draw = _Draw(weights, total, _key(self.seed, content))
        groups = ClassGroups.of(labels)
        has_negative = total > 0
        last = tf.where(tf.reduce_any(has_negative), tf.reduce_max(tf.concat([groups.size, [0]], 0)), 0)

        def chunk(first: tf.Tensor, values: Any, slopes: Any, chosen: Any, active: Any) -> Any:
            k = first + tf.range(_SLOTS)[:, None]
            positives, negatives = groups.positive(k), draw(first)
            kept = tf.cast((k < groups.size) & has_negative, distances.dtype)
            loss, slope = term(take(distances, positives) - take(distances, negatives))
            loss, slope = loss * kept, slope * kept
            columns = tf.concat([positives, negatives], 0)
            return (
                first + _SLOTS,
                values + tf.reduce_sum(loss, 0),
                slopes + slope_matrix(distances, columns, tf.concat([slope, -slope], 0)),
                chosen + tf.reduce_sum(kept, 0),
                active + tf.reduce_sum(tf.cast(loss > 0, distances.dtype), 0),
            )

        zero = tf.zeros_like(distances[:, 0])
        start = (1, zero, tf.zeros_like(distances), zero, zero)
        return TripletSums(*tf.while_loop(lambda first, *_: first < last, chunk, start)[1:])

    def get_config(self) -> dict[str, Any]:
        return {
            "lower": self.lower,
            "upper": self.upper,
            "fallback": self.fallback,
            "seed": self.seed,
            "dimension": self.dimension,
        }

    def _weights(self, distances: tf.Tensor, labels: tf.Tensor, dimension: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Weights whose largest in each row is 1, and their sums; both are 0 where nothing can be drawn."""
        dtype = distances.dtype
        d = tf.cast(dimension, dtype)
        negative = negative_mask(labels)
        allowed = negative if self.upper is None else negative & (distances < self.upper)
        square = tf.square(tf.clip_by_value(distances, self.lower, 2.0))
        # At 2, the far side of the sphere, q is 0: no finite weight.
        rest = tf.maximum(1.0 - 0.25 * square, 1e-6)
        log_weights = tf.math.log(square) * (1.0 - 0.5 * d) + tf.math.log(rest) * (1.5 - 0.5 * d)
        low = tf.constant(dtype.min, dtype)
        log_weights = tf.where(allowed, log_weights, low)
        # Masked before the largest is subtracted, and row by row: the weights of a whole batch span hundreds of powers of e.
        top = tf.maximum(tf.reduce_max(log_weights, 1, keepdims=True), low / 2)
        weights = tf.exp(log_weights - top)
        if self.fallback == "uniform":
            empty = ~tf.reduce_any(allowed, 1, keepdims=True)
            weights = tf.where(empty, tf.cast(negative, dtype), weights)
        return weights, tf.reduce_sum(weights, 1)

    def _known(self, dimension: Any) -> Any:
        dimension = self.dimension if dimension is None else dimension
        if dimension is None:
            raise ValueError(
                "dimension=None: the weights depend on the dimension of the embeddings, and a miner sees their distances only. "
                "Give it, for example DistanceWeighted(dimension=128), or use tfdml.losses.MarginLoss, which knows it."
            )
        return dimension


# How many positives of every anchor are handled together.
_SLOTS = 8
# Weights become integers that add up to about this: sums of them are exact in float32, in whatever order they are added, and
# nothing of weight 0 can ever be drawn.
_UNITS = float(2**23)


class _Draw:
    """Draws columns of each row, with replacement, by their weights: one cumulative sum, then a binary search for each draw."""

    def __init__(self, weights: tf.Tensor, total: tf.Tensor, key: tf.Tensor) -> None:
        share = tf.cast(tf.math.divide_no_nan(weights, total[:, None]), tf.float32)
        self.cumulative = tf.cumsum(tf.round(_UNITS * share), 1)
        self.key = key

    def __call__(self, first: tf.Tensor) -> tf.Tensor:
        """`[slots, B]` columns. Where a row has no weights, any."""
        batch = tf.shape(self.cumulative)[0]
        counter = tf.range(_SLOTS * batch) + first * batch
        uniform = tf.reshape(_uniform(self.key, counter), [_SLOTS, batch])
        target = uniform * self.cumulative[:, -1]

        def halve(step: tf.Tensor, below: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # `below` entries are known to be no larger than the target; are `step` more?
            further = below + step
            inside = further <= batch
            entry = take(self.cumulative, tf.where(inside, further, 1) - 1)
            return step // 2, tf.where(inside & (entry <= target), further, below)

        nothing = tf.zeros([_SLOTS, batch], tf.int32)
        _, below = tf.while_loop(lambda step, _: step > 0, halve, (tf.constant(2**15), nothing))
        return tf.minimum(below, batch - 1)


# tf.random's stateless numbers are others under XLA than without: these are the same everywhere.
_GOLDEN = 0x9E3779B97F4A7C15


def _key(seed: int, content: tf.Tensor) -> tf.Tensor:
    """A uint64 that changes with the seed, and with any bit of the content."""
    bits = tf.cast(tf.reshape(tf.bitcast(content, tf.int32), [-1]), tf.int64)
    place = tf.range(tf.shape(bits)[0], dtype=tf.int64)
    # Whole numbers wrap around, and their sum does not depend on the order in which they are added.
    each = _mixed(tf.bitcast(bits + place * (1 << 32), tf.uint64))
    content_key = tf.bitcast(tf.reduce_sum(tf.bitcast(each, tf.int64)), tf.uint64)
    return _mixed(content_key + _mixed(tf.constant(seed % 2**64, tf.uint64)) * _GOLDEN)


def _uniform(key: tf.Tensor, counter: tf.Tensor) -> tf.Tensor:
    """Floats in [0, 1) of 23 bits each, the `counter`-th of the key's sequence."""
    mixed = _mixed(key + (tf.cast(counter, tf.uint64) + 1) * _GOLDEN)
    return tf.cast(tf.cast(tf.bitwise.right_shift(mixed, 41), tf.int32), tf.float32) / _UNITS


def _mixed(x: tf.Tensor) -> tf.Tensor:
    # The mixer of SplitMix64 (G. Steele, D. Lea, C. Flood: Fast Splittable Pseudorandom Number Generators. OOPSLA 2014).
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 30)) * 0xBF58476D1CE4E5B9
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 27)) * 0x94D049BB133111EB
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 31))


def _is_number(x: object) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)
