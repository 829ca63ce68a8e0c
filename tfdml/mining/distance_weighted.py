"""Distance-weighted sampling of negatives, as "Sampling Matters in Deep Embedding Learning" does it."""

from __future__ import annotations

import numbers
from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice, check_count
from tfdml.mining.base import TripletMiner, TripletSums, TripletTerm, sum_over_each_positive, take
from tfdml.mining.draws import UNITS, check_seed, content_key, uniform
from tfdml.mining.masks import first_step
from tfdml.mining.pairs import Pairs, as_pairs


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
        dimension: D, of the embeddings. None: as they are given to the loss; needed only where there are just distances.

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
        self.lower, self.upper = float(lower), None if upper is None else float(upper)
        self.fallback = check_choice("fallback", fallback, ("none", "uniform"))
        self.seed, self.dimension = check_seed(seed), None if dimension is None else check_count("dimension", dimension, 1)

    def probabilities(self, distances: Any, pairs: Any, dimension: int | None = None) -> tf.Tensor:
        """`[B, M]`: how likely each item is to be drawn as the negative of each anchor. A row is 0 if none can be."""
        distances = tf.convert_to_tensor(distances)
        weights, total = self._weights(distances, as_pairs(pairs), dimension)
        return tf.math.divide_no_nan(weights, total[:, None])

    def sums(self, distances: tf.Tensor, pairs: Any, term: TripletTerm) -> TripletSums:
        pairs = as_pairs(pairs)
        weights, total = self._weights(distances, pairs, None)
        key = content_key(self.seed, distances if pairs.embeddings is None else pairs.embeddings)
        draw = _Draw(weights, total, key)

        def negatives_of(k: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, None]:
            return draw(k), None

        return sum_over_each_positive(distances, pairs, negatives_of, term, total > 0, _SLOTS)

    def get_config(self) -> dict[str, Any]:
        return {
            "lower": self.lower,
            "upper": self.upper,
            "fallback": self.fallback,
            "seed": self.seed,
            "dimension": self.dimension,
        }

    def _weights(self, distances: tf.Tensor, pairs: Pairs, dimension: int | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Weights whose largest in each row is 1, and their sums; both are 0 where nothing can be drawn."""
        dtype = distances.dtype
        d = tf.cast(self._known(dimension, pairs), dtype)
        negative = pairs.negative
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

    def _known(self, dimension: int | None, pairs: Pairs) -> Any:
        dimension = self.dimension if dimension is None else dimension
        if dimension is not None:
            return dimension
        if pairs.embeddings is None:
            raise ValueError(
                "dimension=None: the weights depend on the dimension of the embeddings, and there are only distances here. "
                "Give it, for example DistanceWeighted(dimension=128), or tfdml.mining.Pairs.within(labels, embeddings)."
            )
        return tf.shape(pairs.embeddings)[1]


# How many positives of every anchor are handled together.
_SLOTS = 8


class _Draw:
    """Draws columns of each row, with replacement, by their weights: one cumulative sum, then a binary search for each draw."""

    def __init__(self, weights: tf.Tensor, total: tf.Tensor, key: tf.Tensor) -> None:
        # Integers that add up to about `UNITS`: sums of them are exact in float32, in whatever order they are added, and
        # nothing of weight 0 can ever be drawn.
        share = tf.cast(tf.math.divide_no_nan(weights, total[:, None]), tf.float32)
        self.cumulative = tf.cumsum(tf.round(UNITS * share), 1)
        self.key = key

    def __call__(self, k: tf.Tensor) -> tf.Tensor:
        """`[S, B]` columns, the k-th draws of each row, for `k` of `[S, 1]`. Where a row has no weights, any."""
        batch, width = tf.shape(self.cumulative)[0], tf.shape(self.cumulative)[1]
        target = uniform(self.key, k * batch + tf.range(batch)) * self.cumulative[:, -1]

        def halve(step: tf.Tensor, below: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # `below` entries are known to be no larger than the target; are `step` more?
            further = below + step
            inside = further <= width
            entry = take(self.cumulative, tf.where(inside, further, 1) - 1)
            return step // 2, tf.where(inside & (entry <= target), further, below)

        nothing = tf.zeros(tf.shape(target), tf.int32)
        _, below = tf.while_loop(lambda step, _: step > 0, halve, (first_step(tf.maximum(width, 1)), nothing))
        return tf.minimum(below, width - 1)


def _is_number(x: object) -> bool:
    return isinstance(x, numbers.Real) and not isinstance(x, bool)
