"""What the two players of DAML minimise: J_hard, J_reg and J_adv for the generator, J_m for the encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdml import distances as _distances
from tfdml._checks import check_choice, check_positive
from tfdml.losses import ContrastiveLoss, LiftedStructureLoss, NPairLoss, TripletLoss
from tfdml.losses.base import mean_over
from tfdml.losses.log_sums import log_sum_exp
from tfdml.mining import ClassGroups, negative_mask
from tfdml.mining.base import take

MINING = ("semi_hard", "hard", "random")


@dataclasses.dataclass(frozen=True)
class Weighting:
    """How the terms are put together; see `DAML`."""

    metric_weight: float
    regular_weight: float
    adversarial_weight: float
    margin: float | None
    feature_distance: str

    def __post_init__(self) -> None:
        for name in ("metric_weight", "regular_weight", "adversarial_weight"):
            check_positive(name, getattr(self, name), allow_zero=True)
        if self.margin is not None:
            check_positive("margin", self.margin, allow_zero=True)
        check_choice("feature_distance", self.feature_distance, ("relative", "squared"))

    def objectives(self, terms: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """lambda J_m, and J_gen."""
        j_gen = terms["j_hard"] + self.regular_weight * terms["j_reg"] + self.adversarial_weight * terms["j_adv"]
        return self.metric_weight * terms["j_m"], j_gen

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Triplets(NamedTuple):
    """T anchors with a positive and S negatives each. T is R times the batch: every item has R rows, one after the other.

    Attributes:
        anchors: `[T]` item numbers.
        positives: `[T]` item numbers.
        negatives: `[T, S]` item numbers.
        valid: `[T, S]` booleans: the anchor has that many positives, and that many negatives.
    """

    anchors: tf.Tensor
    positives: tf.Tensor
    negatives: tf.Tensor
    valid: tf.Tensor


def draw_triplets(labels: tf.Tensor, embeddings: tf.Tensor, positives: int, negatives: int, mining: str, seed: Any) -> Triplets:
    """For every item of a batch some of its positives at random, and for each of them some negatives, all different.

    Args:
        labels: `[B]`.
        embeddings: `[B, D]`; `mining="random"` does not look at them.
        positives: R. Items with fewer take part with all that they have.
        negatives: S.
        mining: which negatives. `"random"`: all are equally likely. `"hard"`: the nearest. `"semi_hard"`: the nearest that are
            farther than the positive, then those that are nearer, the farthest first.
        seed: two integers.

    >>> triplets = draw_triplets(tf.constant([5, 7, 5]), tf.eye(3), 1, 2, "random", (0, 0))
    >>> triplets.positives.numpy()[[0, 2]].tolist(), triplets.negatives.numpy()[[0, 2], 0].tolist()
    ([2, 0], [1, 1])
    >>> triplets.valid.numpy().astype(int).tolist()
    [[1, 0], [0, 0], [1, 0]]
    """
    groups = ClassGroups.of(labels)
    batch = tf.shape(labels)[0]
    rows = batch * positives
    seed = tf.cast(tf.convert_to_tensor(seed), tf.int64)
    anchors, place = tf.repeat(tf.range(batch), positives), tf.tile(tf.range(positives), [batch])
    others = tf.gather(groups.size - 1, anchors)
    begin = tf.random.stateless_uniform([batch], seed, minval=0, maxval=2**24, dtype=tf.int32)
    step = 1 + (tf.gather(begin, anchors) + place) % tf.maximum(others, 1)
    member = tf.gather(groups.start, anchors) + (tf.gather(groups.rank, anchors) + step) % tf.gather(groups.size, anchors)
    positive = tf.gather(groups.order, member)
    if mining == "random":
        order = tf.random.stateless_uniform([rows, batch], seed + 1)
    else:
        distances = tf.gather(_distances.pairwise_distances(tf.stop_gradient(embeddings)), anchors)
        # In the same order between 0 and 1, whatever their scale.
        order = tf.math.divide_no_nan(distances, distances + tf.reduce_mean(distances))
        nearer = distances <= take(distances, positive)[:, None]
        # The nearest first; but for semi-hard negatives, those nearer than the positive last, and in reverse.
        order = tf.where(nearer, order - 2.0, -order) if mining == "semi_hard" else -order
    order = tf.where(tf.gather(negative_mask(labels), anchors), order, tf.constant(_NEVER, order.dtype))
    found, negative = tf.math.top_k(order, tf.minimum(negatives, batch))
    # A batch smaller than S leaves places that are filled and marked as not valid.
    missing = [[0, 0], [0, tf.maximum(negatives - batch, 0)]]
    valid = tf.pad(found > _NEVER, missing) & (place < others)[:, None]
    return Triplets(anchors, positive, tf.ensure_shape(tf.pad(negative, missing), [None, negatives]), valid)


_NEVER = -1e30


class Judged(NamedTuple):
    """Triplets with synthetic negatives, as the learnt metric sees them.

    Attributes:
        anchors: `[T, D]` embeddings.
        positives: `[T, D]` embeddings.
        observed: `[T, S, D]` embeddings of the negatives that the synthetic ones were made from.
        synthetic: `[T, S, D]` embeddings of the synthetic negatives.
        partners: `[T]` which of the T rows has the positive as its anchor.
        valid: `[T, S]` booleans.
    """

    anchors: tf.Tensor
    positives: tf.Tensor
    observed: tf.Tensor
    synthetic: tf.Tensor
    partners: tf.Tensor
    valid: tf.Tensor

    def distances(self, metric: str) -> tuple[tf.Tensor, tf.Tensor]:
        """`[T]` to the positive, `[T, S]` to the synthetic negatives."""
        return (
            _distances.paired_distances(self.anchors, self.positives, metric),
            _distances.paired_distances(self.anchors[:, None], self.synthetic, metric),
        )


def mean_terms(
    loss: Any, judged: Judged, weighting: Weighting, anchors: tf.Tensor, observed: tf.Tensor, synthetic: tf.Tensor
) -> dict[str, tf.Tensor]:
    """`j_m` (`[T]` values, whose mean it is), the means `j_hard`, `j_reg` and `j_adv`, and the share `harder_negatives`.

    Args:
        loss: the base loss.
        judged: the triplets in the learnt metric.
        weighting: of which `margin` and `feature_distance` matter here.
        anchors: `[T, F]` features.
        observed: `[T, S, F]` features of real negatives.
        synthetic: `[T, S, F]` features of those made from them.
    """
    metric = str(getattr(loss, "distance", "squared_euclidean"))
    to_positive, to_synthetic = judged.distances(metric)
    to_observed = _distances.paired_distances(judged.anchors[:, None], judged.observed, metric)
    kept = tf.cast(judged.valid, to_positive.dtype)
    count = tf.reduce_sum(kept)

    def mean(values: tf.Tensor) -> tf.Tensor:
        return tf.math.divide_no_nan(tf.reduce_sum(kept * values), count)

    def apart(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        return mean(_distances.paired_distances(one, other, "squared_euclidean"))

    j_hard, j_reg = apart(synthetic, anchors[:, None]), apart(synthetic, observed)
    if weighting.feature_distance == "relative":
        unit = tf.stop_gradient(apart(observed, anchors[:, None]))
        j_hard, j_reg = tf.math.divide_no_nan(j_hard, unit), tf.math.divide_no_nan(j_reg, unit)
    alpha = margin_of(loss) if weighting.margin is None else weighting.margin
    return {
        "j_m": metric_term(loss, judged),
        "j_hard": j_hard,
        "j_reg": j_reg,
        "j_adv": mean(tf.nn.relu(to_synthetic - to_positive[:, None] - alpha)),
        "harder_negatives": mean(tf.cast(to_synthetic < to_observed, kept.dtype)),
    }


def metric_term(loss: Any, judged: Judged) -> tf.Tensor:
    """J_m: the base loss on synthetic in place of real negatives. `[T]` values, whose mean is the term."""
    return next(form for base, form in _FORMS.items() if isinstance(loss, base))(loss, judged)


def margin_of(loss: Any) -> float:
    """The alpha of J_adv: the margin of the base loss; the paper's 1 if it has none, and 0 if the margin is soft."""
    margin = getattr(loss, "margin", 1.0)
    return 0.0 if margin == "soft" else float(margin)


def check_base_loss(loss: Any) -> None:
    """Raises a `ValueError` unless DAML can stand on this loss."""
    if not any(isinstance(loss, base) for base in _FORMS):
        known = ", ".join(base.__name__ for base in _FORMS)
        raise ValueError(f"loss={loss!r}: expected the loss that DAML stands on, of tfdml.losses: {known}.")
    if "explicit" in (getattr(loss, "pairs", None), getattr(loss, "mining", None)):
        raise ValueError("loss: explicit pairs or triplets leave no batch to draw from; expected a loss on labels.")
    if loss.reduction != "sum_over_batch_size":
        raise ValueError(f"loss: reduction={loss.reduction!r}, but DAML takes means; expected 'sum_over_batch_size'.")


def default_negatives(loss: Any) -> int:
    """How many synthetic negatives a pair has, unless the user says."""
    return 16 if isinstance(loss, (LiftedStructureLoss, NPairLoss)) else 1


def _contrastive(loss: ContrastiveLoss, judged: Judged) -> tf.Tensor:
    to_positive, to_synthetic = judged.distances(loss.distance)
    kept = tf.cast(judged.valid, to_positive.dtype)
    pull = loss.terms(to_positive, kept[:, 0], tf.zeros_like(to_positive)).pull
    push = loss.terms(to_synthetic, tf.zeros_like(kept), kept).push
    pushed = tf.sign(tf.stop_gradient(push)) if loss.average == "balanced" else kept
    return mean_over(pull, tf.reduce_sum(kept[:, 0])) + mean_over(tf.reduce_sum(push, 1), tf.reduce_sum(pushed))


def _triplet(loss: TripletLoss, judged: Judged) -> tf.Tensor:
    to_positive, to_synthetic = judged.distances(loss.distance)
    kept = tf.cast(judged.valid, to_positive.dtype)
    x = to_positive[:, None] - to_synthetic
    values = kept * (tf.nn.softplus(x) if loss.margin == "soft" else tf.nn.relu(x + loss.margin))
    active = tf.cast(values > 0, values.dtype) if loss.counts_active else kept
    return mean_over(tf.reduce_sum(values, 1), tf.reduce_sum(active))


def _lifted(loss: LiftedStructureLoss, judged: Judged) -> tf.Tensor:
    to_positive, to_synthetic = judged.distances(loss.distance)
    near = loss.margin - to_synthetic
    valid = judged.valid
    if loss.variant == "original":
        # The negatives of both items of the pair.
        near = tf.concat([near, tf.gather(near, judged.partners)], 1)
        valid = tf.concat([valid, tf.gather(valid, judged.partners)], 1)
    kept = tf.cast(judged.valid[:, 0], to_positive.dtype)
    hinge = kept * tf.nn.relu(_log_sum(near, valid) + to_positive)
    return mean_over(0.5 * tf.square(hinge) if loss.variant == "original" else hinge, tf.reduce_sum(kept))


def _n_pair(loss: NPairLoss, judged: Judged) -> tf.Tensor:
    own = tf.reduce_sum(judged.anchors * judged.positives, -1)
    x = tf.reduce_sum(judged.anchors[:, None] * judged.synthetic, -1)
    kept = tf.cast(judged.valid, own.dtype)
    if loss.variant == "mc":
        values = tf.nn.softplus(_log_sum(x, judged.valid) - own)
    else:
        values = tf.reduce_sum(kept * tf.nn.softplus(x - own[:, None]), 1)
    norms = 0.5 * tf.reduce_sum(tf.square(judged.anchors) + tf.square(judged.positives), -1)
    return mean_over(kept[:, 0] * (values + loss.l2 * norms), tf.reduce_sum(kept[:, 0]))


_FORMS: dict[type, Callable[[Any, Judged], tf.Tensor]] = {
    ContrastiveLoss: _contrastive,
    TripletLoss: _triplet,
    LiftedStructureLoss: _lifted,
    NPairLoss: _n_pair,
}


def _log_sum(x: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """`[B]` log of the sum of e^x over the kept entries of each row, with its gradient."""
    fixed = tf.stop_gradient(x)
    value, weights = log_sum_exp(fixed, kept)
    # The derivative by x is known: this has its value, and its slope.
    return value + tf.reduce_sum(weights * (x - fixed), 1)
