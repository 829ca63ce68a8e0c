"""docs/migration.md, row by row: both columns are computed on the same batch."""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import migration_page
import numpy as np
import pytest
import tensorflow as tf

from tfdml import layers, losses, samplers
from tfdml.distances import pairwise_distances
from tfdml.evaluation import retrieval
from tfdml.integrations import DistanceContrastiveLoss

ROWS = migration_page.rows()
PEER = json.loads(Path(__file__).with_name("pytorch_metric_learning_values.json").read_text(encoding="utf-8"))
LIBRARY = {"TF Addons": "tfa", "TF Similarity": "tfsim"}


@pytest.fixture(scope="module")
def peers():
    """The libraries that the left column names, on the stack that has them."""
    if not tf.__version__.startswith("2.15"):
        pytest.skip("TF Addons and TF Similarity work on TF 2.15 only")
    tfa = pytest.importorskip("tensorflow_addons", exc_type=ImportError)
    tfsim = pytest.importorskip("tensorflow_similarity", exc_type=ImportError)

    return {"tfa": tfa, "tfsim": tfsim}


def names(y, x) -> dict:
    """What the cells of a row may speak of."""
    ours = {name: getattr(room, name) for room in (losses, layers) for name in room.__all__}
    ours |= {"pairwise_distances": pairwise_distances, "retrieval": retrieval, "PKSampler": samplers.PKSampler}
    ours |= {"DistanceContrastiveLoss": DistanceContrastiveLoss, "tf": tf, "keras": keras}
    return ours | {"x": x, "y": y, "unit": lambda x: tf.math.l2_normalize(x, 1)}


def computed(cell, row, extra=()):
    """The number (or numbers) that a cell stands for, and the gradient of the mean by `x` (and by the class weights)."""
    y, start = migration_page.batch(row.batch)
    if "retrieval" in cell or "Sampler(" in cell:
        return evaluated(cell, names(y if "Sampler(" in cell else tf.constant(y), start) | dict(extra), y), []
    x, weights = tf.constant(start), []
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = eval(cell, names(y, x) | dict(extra))
        if isinstance(value, layers.Head):
            value.build((None, migration_page.DIMENSION))
            weights = value.trainable_weights
            weights[0].assign(migration_page.class_weights(weights[0].shape[0]))
            value = value.per_anchor(x, tf.constant(y), training=True)
        elif callable(value):
            value = value(y, x)
        # Losses may return one value for each anchor; matrices and layers' outputs are compared entry by entry.
        value = tf.convert_to_tensor(value)
        mean = tf.reduce_mean(value)
    is_loss = value.shape.rank < 2 or value.shape[1] == 1
    gradients = [g.numpy() for g in tape.gradient(mean, [x, *weights])]
    return (mean if is_loss else value).numpy(), gradients


def evaluated(cell, known, y):
    """Figures, and the composition of batches, which have no gradient."""
    found = eval(cell, known | {"found": correct_neighbours(known["x"], y), "sizes": {int(c): 3 for c in set(y)}})
    if "Sampler(" not in cell:
        return np.asarray(found)
    labels = found.batch_at(0)[1] if isinstance(found, samplers.PKSampler) else found[0][1]
    return np.sort(np.unique(np.asarray(labels), return_counts=True)[1])


def correct_neighbours(x, y):
    """Whether each neighbour of each item, the nearest first, is of its class."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit.T - 9.0 * np.eye(len(x))), 1)[:, :-1]
    return tf.constant(y[order] == y[:, None])


def select(*libraries, differ=False):
    chosen = [row for row in ROWS if row.library in libraries and bool(row.why) == differ]
    return pytest.mark.parametrize("row", chosen, ids=str)


@select("TF Addons", "TF Similarity")
def test_same_numbers(peers, row):
    (theirs, their_gradients), (ours, our_gradients) = computed(row.theirs, row, peers), computed(row.ours, row)
    # In their matrices an item can be 0.001 from itself.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-3 if np.ndim(ours) == 2 else 2e-6)
    for their_gradient, our_gradient in zip(their_gradients, our_gradients, strict=True):
        np.testing.assert_allclose(our_gradient, their_gradient, rtol=1e-4, atol=2e-6)


@select("TF Addons", "TF Similarity", differ=True)
def test_different_numbers(peers, row):
    (theirs, _), (ours, gradients) = computed(row.theirs, row, peers), computed(row.ours, row)
    assert not np.allclose(ours, theirs, rtol=1e-2)
    assert np.isfinite(ours)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.isnan(theirs) == ("NaN there" in row.why)


@select("pytorch-metric-learning")
def test_same_numbers_as_were_computed_with_pytorch_metric_learning(row):
    assert str(row) in PEER, "a new row: run make_pytorch_metric_learning_values.py"
    expected = PEER[str(row)]
    value, gradients = computed(row.ours, row)
    np.testing.assert_allclose(value, expected["value"], rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(gradients[0], expected["gradient"], rtol=1e-3, atol=1e-5)
    assert len(gradients) == 1 + ("weights_gradient" in expected)
    if len(gradients) > 1:
        np.testing.assert_allclose(gradients[1], expected["weights_gradient"], rtol=1e-3, atol=1e-5)


@select("pytorch-metric-learning", differ=True)
def test_different_numbers_than_were_computed_with_pytorch_metric_learning(row):
    value, gradients = computed(row.ours, row)
    assert np.isfinite(value)
    assert np.isfinite(gradients[0]).all()
    assert not np.allclose(value, PEER[str(row)]["value"], rtol=1e-2)


def test_every_value_of_pytorch_metric_learning_has_its_row():
    assert set(PEER) == {"pytorch-metric-learning"} | {str(row) for row in ROWS if row.library == "pytorch-metric-learning"}


def test_the_page_speaks_of_every_batch_and_library():
    text = migration_page.PAGE.read_text(encoding="utf-8")
    assert {row.library for row in ROWS} == {*LIBRARY, "pytorch-metric-learning"}
    described = set(re.findall(r"^\| ([\w ]+) \| [a-z1P`]", text, re.MULTILINE))
    assert {row.batch for row in ROWS} - {"all different", "one class"} <= described
    # A slip of the parser must not empty the tests.
    assert len([row for row in ROWS if not row.why]) > 45
    assert len([row for row in ROWS if row.why]) > 8


@pytest.mark.parametrize("library", LIBRARY)
def test_no_loss_of_theirs_is_forgotten(peers, library):
    """Every metric loss is in the table, or named as without a counterpart."""
    room = peers[LIBRARY[library]].losses
    public = [name for name in dir(room) if isinstance(getattr(room, name), type)]
    page = migration_page.PAGE.read_text(encoding="utf-8")
    not_of_embeddings = ("GIoU", "SigmoidFocal", "WeightedKappa", "Pinball", "Sparsemax", "MetricLoss")
    missing = [name for name in public if name not in page and not name.startswith(not_of_embeddings)]
    assert public
    assert missing == []


# -- what the second tables say in words --------------------------------------------------------------------------------------


def unit_batch(name):
    y, x = migration_page.batch(name)
    return y, x / np.linalg.norm(x, axis=1, keepdims=True)


def test_addons_hard_counts_anchors_without_a_positive(peers):
    y, x = migration_page.batch("any")
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    values, alone = [], []
    for a in range(24):
        positives, negatives = d[a, (y == y[a]) & (np.arange(24) != a)], d[a, y != y[a]]
        alone.append(len(positives) == 0)
        values.append(max((0.0 if alone[-1] else positives.max()) - negatives.min() + 0.2, 0.0))
    assert 0 < sum(alone) < 24
    np.testing.assert_allclose(peers["tfa"].losses.TripletHardLoss(0.2)(y, tf.constant(x)), np.mean(values), rtol=1e-5)
    kept = np.asarray(values)[~np.asarray(alone)]
    np.testing.assert_allclose(losses.TripletLoss(0.2, "hard")(y, tf.constant(x)), np.mean(kept), rtol=1e-5)


def test_addons_n_pairs_spreads_the_target(peers):
    y, x = migration_page.batch("P x K")
    logits = tf.matmul(x[::2], x[1::2], transpose_b=True).numpy().astype(np.float64)
    same = y[::2][:, None] == y[::2][None]
    chances = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    spread = -np.mean(np.sum(chances * same / same.sum(1, keepdims=True), 1))
    np.testing.assert_allclose(peers["tfa"].losses.NpairsLoss()(y[::2], tf.constant(logits, tf.float32)), spread, rtol=1e-5)
    others = np.where(same & ~np.eye(12, dtype=bool), -np.inf, logits)
    apart = -np.mean(np.log(np.exp(np.diag(logits)) / np.exp(others).sum(1)))
    np.testing.assert_allclose(losses.NPairLoss(l2=0.0)(y, tf.constant(x)), apart, rtol=1e-5)


def test_similarity_semi_hard_has_one_triplet_for_each_anchor(peers):
    y, x = unit_batch("P x K")
    d = 1.0 - x @ x.T
    values = []
    for a in range(24):
        positive, negatives = d[a, (y == y[a]) & (np.arange(24) != a)].max(), d[a, y != y[a]]
        beyond = negatives[negatives > positive]
        values.append(max(positive - (beyond.min() if len(beyond) else negatives.max()) + 0.2, 0.0))
    theirs = peers["tfsim"].losses.TripletLoss("cosine", "hard", "semi-hard", margin=0.2)
    np.testing.assert_allclose(theirs(y, tf.constant(x)), np.mean(values), rtol=1e-5)


def test_nmslib_gives_squared_distances(peers):
    from tensorflow_similarity.search import NMSLibSearch

    from tfdml.integrations import AnnoySearch

    found = []
    for search in (NMSLibSearch("euclidean", 2), AnnoySearch("euclidean", 2)):
        search.batch_add(np.array([[3.0, 0.0], [9.0, 9.0]], np.float32), [0, 1], verbose=0)
        found.append(search.lookup(np.zeros(2, np.float32), k=1)[1][0])
    np.testing.assert_allclose(found, [9.0, 3.0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_float32_here(peers, dtype):
    y, x = unit_batch("P x K")
    half = tf.cast(x, dtype)
    theirs = peers["tfa"].losses.TripletSemiHardLoss(0.2)(y, half)
    ours = losses.TripletLoss(0.2, "semi_hard")(y, half)
    assert (theirs.dtype, ours.dtype) == (tf.as_dtype(dtype), tf.float32)
    np.testing.assert_allclose(ours, tf.cast(theirs, tf.float32), rtol=0.02)
