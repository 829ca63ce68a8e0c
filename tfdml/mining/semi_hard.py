"""Semi-hard mining, as FaceNet does it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_choice
from tfdml.mining.base import TripletMiner, TripletSums, TripletTerm, one_by_one, sum_over_each_positive, take
from tfdml.mining.pairs import as_pairs


@keras.saving.register_keras_serializable(package="tfdml")
class SemiHard(TripletMiner):
    """For every ordered positive pair, the nearest negative that is farther than the positive.

    n(a, p) = argmin over n of { d(a, n) : d(a, n) > d(a, p) }

    Of Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015. The paper also asks that the negative lies inside the margin; one
    that does not has no loss in the hinge, so the condition changes counts only.

    Args:
        fallback: what to take for a pair whose positive is farther than every negative. `"farthest"`: the farthest negative
            (as TensorFlow Addons does); `"hardest"`: the nearest one; `"none"`: the pair has no triplet.

    >>> SemiHard(fallback="none")
    SemiHard(fallback='none')
    """

    def __init__(self, fallback: str = "farthest") -> None:
        self.fallback = check_choice("fallback", fallback, ("farthest", "hardest", "none"))

    def sums(self, distances: tf.Tensor, pairs: Any, term: TripletTerm) -> TripletSums:
        pairs = as_pairs(pairs)
        negative = pairs.negative
        far = tf.constant(distances.dtype.max, distances.dtype)
        # abs: a distance of -0.0 would break the order of the bits below.
        negatives = tf.where(negative, tf.abs(distances), far)
        next_above = _NextAbove(negatives)
        if self.fallback == "farthest":
            instead = tf.argmax(tf.where(negative, distances, -far), 1, output_type=tf.int32)
        else:
            instead = tf.argmin(negatives, 1, output_type=tf.int32)

        def negative_of(to_positive: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            nearest, distance = next_above(to_positive)
            found = (distance > to_positive) & (distance < far)
            if self.fallback == "none":
                return nearest, found
            return tf.where(found, nearest, instead), tf.ones_like(found)

        return sum_over_each_positive(distances, pairs, one_by_one(negative_of, pairs), term)

    def get_config(self) -> dict[str, Any]:
        return {"fallback": self.fallback}


class _NextAbove:
    """For each row of a matrix, the smallest entry above a threshold: one subtraction and one argmin over the matrix.

    Floats that are not negative are ordered as their bits, read as integers. The difference of two such integers, shifted so
    that it wraps around just at the threshold, is smallest for the entry that follows the threshold most closely, and the
    entries that do not lie above it come after all the others. That is exact, where a difference of floats is rounded.
    """

    def __init__(self, matrix: tf.Tensor) -> None:
        self.matrix = matrix
        self.integer = tf.int64 if matrix.dtype == tf.float64 else tf.int32
        self.bits = tf.bitcast(matrix, self.integer)

    def __call__(self, thresholds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The column (of any entry, if none lies above the row's threshold), and the entry there."""
        zero = tf.bitcast(tf.abs(thresholds), self.integer) - self.integer.max
        column = tf.argmin(self.bits - zero[:, None], 1, output_type=tf.int32)
        return column, take(self.matrix, column)
