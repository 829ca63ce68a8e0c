"""Anchors compared with references instead of their batch: definitions, gradients to both sides, and what does not count."""

import between_oracles as oracles
import numpy as np
import pytest
import tensorflow as tf
from losses_helpers import drawn_pairs, random_batch
from oracles import numeric_gradient

from tfdml.losses import (
    CircleLoss,
    ContrastiveLoss,
    LiftedStructureLoss,
    MarginLoss,
    MultiSimilarityLoss,
    NPairLoss,
    NTXentLoss,
    SupConLoss,
    TripletLoss,
)
from tfdml.mining import DistanceWeighted, Pairs

# name: (the loss, its definition in terms of kinds of pairs, anchors, references, and of where the weights are held)
LOSSES = {
    "contrastive": (ContrastiveLoss(1.1), lambda k, x, r, _: oracles.contrastive(k, x, r, 1.1)),
    "contrastive balanced": (
        ContrastiveLoss(1.1, average="balanced"),
        lambda k, x, r, _: oracles.contrastive(k, x, r, 1.1, "balanced"),
    ),
    "contrastive hinge": (
        ContrastiveLoss(1.1, form="hinge"),
        lambda k, x, r, _: oracles.contrastive(k, x, r, 1.1, "pairs", "hinge"),
    ),
    "semi-hard": (TripletLoss(0.4), lambda k, x, r, _: oracles.triplet(k, x, r, 0.4, "semi_hard", "valid")),
    "hard": (TripletLoss("soft", "hard"), lambda k, x, r, _: oracles.triplet(k, x, r, "soft", "hard", "valid")),
    "all": (TripletLoss(0.4, "all"), lambda k, x, r, _: oracles.triplet(k, x, r, 0.4, "all", "active")),
    "all soft": (
        TripletLoss("soft", "all", average="valid"),
        lambda k, x, r, _: oracles.triplet(k, x, r, "soft", "all", "valid"),
    ),
    "n-pair": (NPairLoss("mc", 0.1, "all"), lambda k, x, r, _: oracles.n_pair(k, x, r, "mc", 0.1)),
    "n-pair ovo": (NPairLoss("ovo", 0.0, "all"), lambda k, x, r, _: oracles.n_pair(k, x, r, "ovo", 0.0)),
    "lifted": (LiftedStructureLoss(0.7), lambda k, x, r, _: oracles.lifted(k, x, r, 0.7, "original")),
    "lifted generalized": (
        LiftedStructureLoss(0.7, "generalized"),
        lambda k, x, r, _: oracles.lifted(k, x, r, 0.7, "generalized"),
    ),
    "margin all": (
        MarginLoss(0.3, 1.0, "all"),
        lambda k, x, r, _: oracles.margin_pairs(k, x, r, np.argwhere(k == 1), np.argwhere(k == -1), 0.3, 1.0, "active"),
    ),
    "multi-similarity": (MultiSimilarityLoss(), lambda k, x, r, _: oracles.multi_similarity(k, x, r)),
    "circle": (CircleLoss(0.3, 10.0), lambda k, x, r, held: oracles.circle(k, x, r, 0.3, 10.0, held)),
    "nt-xent": (NTXentLoss(0.3), lambda k, x, r, _: oracles.nt_xent(k, x, r, 0.3)),
    "sup-con": (SupConLoss(0.3), lambda k, x, r, _: oracles.sup_con(k, x, r, 0.3)),
}
RANDOM = {
    "random": TripletLoss(0.4, "random"),
    "distance-weighted": MarginLoss(mining=DistanceWeighted(upper=None)),
    "margin random": MarginLoss(mining="random"),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
every_and_random = pytest.mark.parametrize("loss", [loss for loss, _ in LOSSES.values()] + list(RANDOM.values()))


def two_sides(b=7, m=11, d=3, seed=0):
    """Some anchors have no positive, some have many; one reference does not count, two anchors are among the references."""
    rng = np.random.default_rng(seed)
    labels, others = rng.integers(0, 4, b), rng.integers(0, 4, m)
    labels[-1] = 9
    x, r = 0.6 * rng.standard_normal((b, d)), 0.6 * rng.standard_normal((m, d))
    valid, itself = np.ones(m, bool), np.full(b, -1)
    valid[3] = False
    for a, j in ((0, 5), (4, 8)):
        others[j], r[j], itself[a] = labels[a], x[a], j
    return labels, x, others, r, valid, itself


@every_loss
def test_equals_the_definition(name):
    loss, definition = LOSSES[name]
    labels, x, others, r, valid, itself = two_sides()
    kinds = oracles.kinds_of(labels, others, valid, itself)
    weights = np.random.default_rng(9).random(len(x))

    def value(x_, r_):
        return weights @ definition(kinds, x_, r_, (x, r))

    for dtype, allowed in ((np.float32, 2e-4), (np.float64, 1e-7)):
        a, b = tf.constant(x.astype(dtype)), tf.constant(r.astype(dtype))
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            values = loss.between(labels, a, others, b, valid, itself)
            total = tf.reduce_sum(values * weights.astype(dtype))
        assert values.dtype == dtype
        np.testing.assert_allclose(values, definition(kinds, x, r, (x, r)), atol=allowed, rtol=allowed)
        for gradient, slope in zip(
            tape.gradient(total, [a, b]),
            (numeric_gradient(lambda z: value(z, r), x), numeric_gradient(lambda z: value(x, z), r)),
            strict=True,
        ):
            np.testing.assert_allclose(gradient, slope, atol=allowed, rtol=max(allowed, 1e-6))


@every_and_random
def test_with_the_batch_itself_it_is_the_plain_loss(loss):
    labels, x = random_batch(b=13, d=4)
    x = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        plain, between = loss.call(labels, x), loss.between(labels, x, labels, x, itself=np.arange(13))
    np.testing.assert_allclose(between, plain, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(tape.gradient(between, x), tape.gradient(plain, x), rtol=1e-5, atol=1e-7)


@every_and_random
def test_what_is_not_valid_does_not_matter(loss):
    labels, x, others, r, valid, itself = two_sides(m=14)
    valid[[7, 11]] = False
    outside = np.where(valid[:, None], r, np.nan)
    expected = loss.between(labels, x, others, r, valid, itself)
    np.testing.assert_array_equal(loss.between(labels, x, others, outside, valid, itself), expected)
    # As if they had never been there, and in whatever order the others stand.
    order = np.flatnonzero(valid)[::-1]
    place = np.array([np.flatnonzero(order == j)[0] if j >= 0 else -1 for j in itself])
    if loss not in RANDOM.values():
        np.testing.assert_allclose(loss.between(labels, x, others[order], r[order], itself=place), expected, rtol=1e-9)


@every_and_random
def test_nothing_to_compare_with(loss):
    labels, x, others, r, _, _ = two_sides()
    anchors = tf.constant(x)
    for references, reference_labels, valid in ((r, others, np.zeros(11, bool)), (r[:0], others[:0], None)):
        with tf.GradientTape() as tape:
            tape.watch(anchors)
            values = loss.between(labels, anchors, reference_labels, references, valid)
        assert values.shape == (7,)
        assert not values.numpy().any()
        assert not tf.convert_to_tensor(tape.gradient(values, anchors)).numpy().any()
    assert loss.between(labels[:0], x[:0], others, r).shape == (0,)


@every_and_random
def test_bad_numbers_are_not_hidden(loss):
    labels, x, others, r, valid, itself = two_sides()
    for side in (x, r):
        kept, side[2, 1] = side[2, 1], np.inf
        assert np.isnan(loss.between(labels, x, others, r, valid, itself)).all()
        side[2, 1] = kept


@pytest.mark.parametrize(
    "loss", [LOSSES[n][0] for n in ("contrastive", "semi-hard", "hard", "lifted", "n-pair ovo")] + list(RANDOM.values())
)
def test_graph_and_xla_give_the_same(loss):
    labels, x, others, r, valid, itself = (tf.constant(part) for part in two_sides())
    x, r = tf.cast(x, tf.float32), tf.cast(r, tf.float32)

    def step(*batch):
        with tf.GradientTape() as tape:
            tape.watch([batch[1], batch[3]])
            values = loss.between(*batch)
        return [values, *tape.gradient(values, [batch[1], batch[3]])]

    eager = step(labels, x, others, r, valid, itself)
    open_shapes = [tf.TensorSpec([None, *part.shape[1:]], part.dtype) for part in (labels, x, others, r, valid, itself)]
    for compiled in (tf.function(step, input_signature=open_shapes), tf.function(step, jit_compile=True)):
        for one, other in zip(eager, compiled(labels, x, others, r, valid, itself), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_random_draws_are_negatives_of_the_anchor():
    labels, x, others, r, valid, itself = two_sides()
    kinds = oracles.kinds_of(labels, others, valid, itself)
    d = tf.constant(oracles.distances(x, r))
    for mining in (loss.mining for loss in RANDOM.values()):
        pairs = Pairs.between(labels, others, valid, itself, tf.constant(x))
        positives, negatives = drawn_pairs(mining, pairs, x, d)
        assert not negatives[kinds != -1].any()
        np.testing.assert_array_equal(positives, kinds == 1)
        np.testing.assert_array_equal(negatives.sum(1), positives.sum(1))


def test_half_precision_and_exact_labels():
    labels, x, others, r, valid, itself = two_sides()
    loss = TripletLoss(0.4)
    half = [tf.cast(part, tf.float16) for part in (x, r)]
    expected = loss.between(labels, tf.cast(half[0], tf.float32), others, tf.cast(half[1], tf.float32), valid, itself)
    assert expected.dtype == tf.float32
    for shift in (0, 2**24, 2**62):
        found = loss.between(labels + shift, half[0], others + shift, half[1], valid, itself)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(loss.between(labels[:, None], half[0], others[:, None], half[1], valid, itself), expected)
    for one, other in ((np.int16, np.int64), (np.uint8, np.int32), (np.int32, np.float32)):
        found = loss.between(labels.astype(one), half[0], others.astype(other), half[1], valid, itself)
        np.testing.assert_array_equal(found, expected)
    # 65,536 more is another class, though not in 16 bits.
    far = loss.between(labels.astype(np.int16), half[0], others + 2**16, half[1], valid, itself)
    assert not far.numpy().any()


def test_memory_and_time_do_not_grow_with_the_square():
    # 20,000 references: a matrix of all with all would hold 400,000,000 numbers.
    rng = np.random.default_rng(0)
    x, r = rng.standard_normal((4, 2)).astype(np.float32), rng.standard_normal((20000, 2)).astype(np.float32)
    labels, others = np.arange(4), np.arange(20000) % 5000
    spec = [tf.TensorSpec(np.shape(part), tf.as_dtype(np.asarray(part).dtype)) for part in (labels, x, others, r)]
    for loss in (ContrastiveLoss(), TripletLoss(), TripletLoss(mining="all"), MarginLoss(), LiftedStructureLoss()):
        graph = tf.function(loss.between).get_concrete_function(*spec).graph
        sizes = [np.prod(t.shape.as_list()) for op in graph.get_operations() for t in op.outputs if t.shape.is_fully_defined()]
        assert max(sizes) <= 4 * 20000
        assert np.isfinite(loss.between(labels, x, others, r)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["a"] * 7}, "labels holds strings"),
        ({"reference_labels": np.eye(11)}, r"reference_labels has shape \(11, 11\).*argmax.*tf.bool"),
        ({"labels": np.arange(6)}, "labels has 6 labels and embeddings 7"),
        ({"reference_labels": np.arange(6)}, "reference_labels has 6 labels and references 11"),
        ({"embeddings": np.zeros((7, 2, 2))}, r"embeddings has shape \(7, 2, 2\)"),
        ({"references": np.zeros((11, 5))}, "references have 5 dimensions: expected those of the embeddings, 3"),
        ({"valid": np.ones(11)}, r"valid is float64.*one boolean per reference, \[M\]"),
        ({"valid": np.ones(10, bool)}, "valid has 10 entries for 11 references"),
        ({"itself": np.ones(7)}, "itself is float64.*-1 for none"),
        ({"itself": np.arange(6)}, "itself has 6 entries for 7 anchors"),
        ({"labels": np.ones((7, 3), bool)}, "booleans for both"),
        ({"labels": np.ones((7, 3), bool), "reference_labels": np.ones((11, 4), bool)}, "labels have 3 columns.* 4"),
    ],
)
def test_bad_input_is_refused_with_a_reason(change, message):
    labels, x, others, r, valid, itself = two_sides()
    given = {"labels": labels, "embeddings": x, "reference_labels": others, "references": r, "valid": valid, "itself": itself}
    with pytest.raises(ValueError, match=message):
        ContrastiveLoss().between(**{**given, **change})


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (NPairLoss(), r"positives='one'.*NPairLoss\(positives='all'\)"),
        (TripletLoss(mining="explicit"), r"mining='explicit'.*TripletLoss\(mining='semi_hard'\)"),
        (ContrastiveLoss(pairs="explicit"), r"pairs='explicit'.*ContrastiveLoss\(pairs='batch'\)"),
    ],
)
def test_losses_whose_definition_has_no_references(loss, message):
    labels, x, others, r, _, _ = two_sides()
    with pytest.raises(ValueError, match=message):
        loss.between(labels, x, others, r)
