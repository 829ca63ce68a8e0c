"""The terms of DAML against their definitions, and which triplets are drawn."""

from __future__ import annotations

import daml_oracles as oracles
import numpy as np
import pytest
import tensorflow as tf

from tfdml.losses import (
    CircleLoss,
    ContrastiveLoss,
    LiftedStructureLoss,
    MarginLoss,
    NPairLoss,
    TripletLoss,
)
from tfdml.models.daml_terms import (
    Judged,
    Weighting,
    check_base_loss,
    default_negatives,
    draw_triplets,
    margin_of,
    mean_terms,
    metric_term,
)

LABELS = np.array([3, 3, 3, 7, 7, 9, 9, 1])

# name: (loss, its definition on (anchor, positive, synthetic negatives) of every row, and the partners of the rows)
FORMS = {
    "contrastive": (ContrastiveLoss(1.5), lambda g, p: oracles.j_contrastive(g, 1.5, "euclidean")),
    "contrastive squared": (
        ContrastiveLoss(2.0, distance="squared_euclidean"),
        lambda g, p: oracles.j_contrastive(g, 2.0, "squared_euclidean"),
    ),
    "contrastive hinge": (
        ContrastiveLoss(1.5, form="hinge", average="balanced"),
        lambda g, p: oracles.j_contrastive(g, 1.5, "euclidean", "hinge", "balanced"),
    ),
    "contrastive legacy": (
        ContrastiveLoss(1.5, form="legacy"),
        lambda g, p: oracles.j_contrastive(g, 1.5, "euclidean", "legacy"),
    ),
    "triplet": (TripletLoss(0.7), lambda g, p: oracles.j_triplet(g, 0.7, "euclidean")),
    "triplet of the paper": (
        TripletLoss(1.0, "random", "squared_euclidean"),
        lambda g, p: oracles.j_triplet(g, 1.0, "squared_euclidean"),
    ),
    "triplet soft": (TripletLoss("soft", "hard"), lambda g, p: oracles.j_triplet(g, "soft", "euclidean")),
    "triplet active": (
        # "active" is the default of "all".
        TripletLoss(0.3, "all", "cosine"),
        lambda g, p: oracles.j_triplet(g, 0.3, "cosine", "active"),
    ),
    "lifted": (LiftedStructureLoss(1.0), lambda g, p: oracles.j_lifted(g, p, 1.0, "euclidean")),
    "lifted generalized": (
        LiftedStructureLoss(0.5, "generalized"),
        lambda g, p: oracles.j_lifted(g, p, 0.5, "euclidean", "generalized"),
    ),
    "n-pair": (NPairLoss(l2=0.02), lambda g, p: oracles.j_n_pair(g, 0.02)),
    "n-pair ovo": (NPairLoss("ovo", l2=0.0), lambda g, p: oracles.j_n_pair(g, 0.0, "ovo")),
}
every_form = pytest.mark.parametrize("name", FORMS)


def rows(t=6, s=3, d=4, seed=0):
    """Embeddings of T rows with S synthetic negatives; the rows are each other's partners."""
    rng = np.random.default_rng(seed)
    # As an anchor, the positive of row i is row i + 1, and the other way round.
    partners = np.arange(t) ^ 1
    anchors = rng.standard_normal((t, d))
    return anchors, anchors[partners], rng.standard_normal((t, s, d)), partners


def judged(anchors, positives, synthetic, partners, valid=None, observed=None):
    valid = np.ones(synthetic.shape[:2], bool) if valid is None else valid
    observed = synthetic if observed is None else observed
    floats = (tf.convert_to_tensor(x) for x in (anchors, positives, observed, synthetic))
    return Judged(*floats, partners=tf.constant(partners), valid=tf.constant(valid))


def groups(anchors, positives, synthetic, valid=None):
    valid = np.ones(synthetic.shape[:2], bool) if valid is None else valid
    return [(a, p, list(n[v])) for a, p, n, v in zip(anchors, positives, synthetic, valid, strict=True) if v.any()]


@every_form
def test_the_metric_term_and_its_gradients_are_those_of_the_definition(name):
    loss, definition = FORMS[name]
    anchors, positives, synthetic, partners = rows()
    inputs = [tf.convert_to_tensor(x) for x in (anchors, positives, synthetic)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = metric_term(loss, judged(*inputs, partners))
        mean = tf.reduce_mean(values)
    assert values.shape == (6,)
    np.testing.assert_allclose(mean, definition(groups(anchors, positives, synthetic), partners), rtol=1e-9)
    # In the definition, positives and anchors are inputs of their own.
    if name == "lifted":
        inputs, moving = inputs[2:], [(2, synthetic)]
        gradients = [tape.gradient(mean, inputs[0])]
    else:
        gradients, moving = tape.gradient(mean, inputs), list(enumerate((anchors, positives, synthetic)))
    for gradient, (number, x) in zip(gradients, moving, strict=True):

        def moved(z, number=number):
            changed = [anchors, positives, synthetic]
            changed[number] = z
            return definition(groups(*changed), partners)

        np.testing.assert_allclose(gradient, oracles.slopes(moved, x), rtol=1e-5, atol=1e-7)


@every_form
def test_what_is_not_valid_does_not_count(name):
    loss, definition = FORMS[name]
    anchors, positives, synthetic, partners = rows()
    valid = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 1, 0], [1, 0, 0]], bool)
    synthetic[~valid] = 1e3
    found = np.mean(metric_term(loss, judged(anchors, positives, synthetic, partners, valid)))
    renumbered = np.array([1, 0, 3, 2])
    np.testing.assert_allclose(found, definition(groups(anchors, positives, synthetic, valid), renumbered), rtol=1e-9)


@every_form
def test_no_triplet_at_all_is_no_loss(name):
    loss, _ = FORMS[name]
    anchors, positives, synthetic, partners = rows()
    nothing = np.zeros(synthetic.shape[:2], bool)
    x = [tf.convert_to_tensor(z) for z in (anchors, positives, synthetic)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = metric_term(loss, judged(*x, partners, nothing))
    assert not np.any(values)
    assert not any(np.any(g) for g in tape.gradient(values, x) if g is not None)
    terms = mean_terms(loss, judged(*x, partners, nothing), weighting(), x[0], x[2], x[2])
    assert all(float(tf.reduce_sum(value)) == 0 for value in terms.values())


def weighting(**kwargs):
    return Weighting(
        **{
            "metric_weight": 1.0,
            "regular_weight": 1.0,
            "adversarial_weight": 50.0,
            "margin": None,
            "feature_distance": "squared",
            **kwargs,
        }
    )


def test_worked_out_by_hand():
    # Features and embeddings are the same here: a = (1, 0), p = (.8, .6), n = (0, 1), x~ = (.6, .8).
    a, p, n, made = (tf.constant([x], tf.float64) for x in ([1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]))
    seen = Judged(a, p, n[None], made[None], tf.constant([0]), tf.constant([[True]]))
    for alpha, j_adv, j_m in ((0.1, 0.3, 0.0), (1.0, 0.0, 0.6)):
        loss = TripletLoss(alpha, "random", "squared_euclidean")
        terms = mean_terms(loss, seen, weighting(), a, n[None], made[None])
        found = [float(tf.reduce_mean(terms[name])) for name in ("j_hard", "j_reg", "j_adv", "j_m", "harder_negatives")]
        np.testing.assert_allclose(found, [0.8, 0.4, j_adv, j_m, 1.0], atol=1e-12)
        of_encoder, of_generator = weighting(metric_weight=3.0, regular_weight=2.0).objectives({**terms, "j_m": found[3]})
        np.testing.assert_allclose([of_encoder, of_generator], [3 * j_m, 0.8 + 2 * 0.4 + 50 * j_adv])


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("metric", ["squared_euclidean", "euclidean", "cosine"])
def test_the_generator_terms_are_those_of_the_definition(relative, metric):
    rng = np.random.default_rng(4)
    features, kernel = rng.standard_normal((6, 5)), rng.standard_normal((5, 3))
    triplets = [(0, 1, 2), (1, 0, 4), (3, 5, 0), (4, 3, 1)]
    a, p, n = (np.array(column) for column in zip(*triplets, strict=True))
    made = 0.6 * features[n] + 0.4 * features[a] + 0.1 * features[p]
    seen = judged(
        features[a] @ kernel, features[p] @ kernel, (made @ kernel)[:, None], a * 0, observed=(features[n] @ kernel)[:, None]
    )
    weights = weighting(margin=0.05, feature_distance="relative" if relative else "squared", regular_weight=3.0)
    loss = TripletLoss(0.3, distance=metric)
    terms = mean_terms(loss, seen, weights, tf.constant(features[a]), features[n][:, None], tf.constant(made[:, None]))
    expected = oracles.j_gen(
        triplets,
        features,
        lambda x: x @ kernel,
        lambda a, p, n: 0.6 * n + 0.4 * a + 0.1 * p,
        0.05,
        3.0,
        50.0,
        metric,
        relative,
    )
    found = [terms["j_hard"], terms["j_reg"], terms["j_adv"], weights.objectives(terms)[1]]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    harder = [
        oracles.distance(made[i] @ kernel, features[a[i]] @ kernel, metric)
        < oracles.distance(features[n[i]] @ kernel, features[a[i]] @ kernel, metric)
        for i in range(4)
    ]
    assert float(terms["harder_negatives"]) == np.mean(harder)


def test_the_unit_of_relative_distances_is_a_constant():
    features = tf.constant(np.random.default_rng(0).standard_normal((4, 3)))
    other = tf.reverse(features, [0])
    seen = judged(features, other, other[:, None], np.arange(4))
    with tf.GradientTape() as tape:
        tape.watch(other)
        terms = mean_terms(
            TripletLoss(), seen, weighting(feature_distance="relative"), features, other[:, None], other[:, None]
        )
    # x~ = x- lies exactly one unit from the anchor; it would have no gradient if the unit moved along.
    np.testing.assert_allclose(terms["j_hard"], 1.0)
    assert np.abs(tape.gradient(terms["j_hard"], other)).max() > 0


@pytest.mark.parametrize("mining", ["random", "hard", "semi_hard"])
@pytest.mark.parametrize("positives", [1, 2, 4])
def test_triplets_are_triplets(mining, positives):
    x = np.random.default_rng(1).standard_normal((8, 3))
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    for step in range(20):
        found = draw_triplets(tf.constant(LABELS), tf.constant(x), positives, 2, mining, (5, 2 * step))
        assert found.anchors.numpy().tolist() == np.repeat(range(8), positives).tolist()
        for a in range(8):
            own = [i for i in range(8) if i != a and LABELS[i] == LABELS[a]]
            drawn = slice(a * positives, (a + 1) * positives)
            valid = found.valid.numpy()[drawn].all(1)
            assert valid.sum() == found.valid.numpy()[drawn].any(1).sum() == min(positives, len(own))
            p = found.positives.numpy()[drawn][valid]
            assert len(set(p)) == len(p)
            assert set(p) <= set(own)
            for p_, n in zip(p, found.negatives.numpy()[drawn][valid], strict=True):
                others = [i for i in range(8) if LABELS[i] != LABELS[a]]
                assert len(set(n)) == 2
                assert set(n) <= set(others)
                if mining == "hard":
                    assert n.tolist() == sorted(others, key=lambda i: distances[a, i])[:2]
                if mining == "semi_hard":
                    far = sorted((i for i in others if distances[a, i] > distances[a, p_]), key=lambda i: distances[a, i])
                    near = sorted((i for i in others if distances[a, i] <= distances[a, p_]), key=lambda i: -distances[a, i])
                    assert n.tolist() == (far + near)[:2]


def test_random_triplets_are_equally_likely_and_repeat_with_the_seed():
    counts_p, counts_n = np.zeros(8), np.zeros(8)
    x = tf.zeros([8, 2])
    draws = 1500
    draw = tf.function(lambda step: draw_triplets(tf.constant(LABELS), x, 1, 1, "random", tf.stack([3, 2 * step])))
    for step in range(draws):
        found = draw(tf.constant(step))
        counts_p[found.positives.numpy()[0]] += 1
        counts_n[found.negatives.numpy()[0, 0]] += 1
    assert counts_p[[0, 3, 4, 5, 6, 7]].sum() == counts_n[:3].sum() == 0
    # Chi-square with 1 and 4 degrees of freedom, at 1 in 10,000.
    for counts, limit in ((counts_p[1:3], 15.1), (counts_n[3:], 23.5)):
        expected = draws / len(counts)
        assert np.sum((counts - expected) ** 2 / expected) < limit
    again = [draw(tf.constant(7)).negatives.numpy().tolist() for _ in range(2)]
    assert again[0] == again[1] != draw(tf.constant(8)).negatives.numpy().tolist()


def test_small_and_poor_batches():
    for labels in ([4], [4, 4], [4, 5], [4, 4, 4, 4]):
        b = len(labels)
        for mining in ("random", "hard", "semi_hard"):
            found = draw_triplets(tf.constant(labels), tf.zeros([b, 2]), 3, 5, mining, (0, 0))
            assert found.negatives.shape == (3 * b, 5)
            assert not np.any(found.valid)
            for numbers in found[:3]:
                assert np.all((numbers >= 0) & (numbers < b))


def test_which_losses_it_stands_on():
    for loss, _ in FORMS.values():
        check_base_loss(loss)
    for loss in (None, "mse", CircleLoss(), MarginLoss(), TripletLoss):
        with pytest.raises(ValueError, match=r"stands on, of tfdml.losses: ContrastiveLoss, TripletLoss, Lifted.*NPairLoss"):
            check_base_loss(loss)
    with pytest.raises(ValueError, match="no batch to draw from"):
        check_base_loss(ContrastiveLoss(pairs="explicit"))
    with pytest.raises(ValueError, match="reduction='sum', but DAML takes means"):
        check_base_loss(TripletLoss(reduction="sum"))


def test_margins_and_numbers_of_negatives_follow_the_loss():
    assert margin_of(TripletLoss(0.3)) == 0.3
    assert margin_of(TripletLoss("soft")) == 0.0
    assert margin_of(ContrastiveLoss(0.7)) == 0.7
    assert margin_of(NPairLoss()) == 1.0
    assert [default_negatives(f()) for f in (TripletLoss, ContrastiveLoss, LiftedStructureLoss, NPairLoss)] == [1, 1, 16, 16]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metric_weight": -1}, "metric_weight=-1"),
        ({"regular_weight": float("nan")}, "regular_weight=nan"),
        ({"adversarial_weight": "50"}, "adversarial_weight='50'"),
        ({"margin": -0.1}, "margin=-0.1"),
        ({"feature_distance": "cosine"}, "feature_distance='cosine' is not known. Known: 'relative', 'squared'"),
    ],
)
def test_weights_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        weighting(**wrong)
