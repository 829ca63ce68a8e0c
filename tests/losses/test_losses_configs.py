"""Options as users write them, and configurations as files keep them."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

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
from tfdml.mining import DistanceWeighted, SemiHard

EMBEDDINGS = np.random.default_rng(1).random((6, 3)).astype("float32")


@pytest.mark.parametrize("margin", [np.float32(0.5), np.int64(1), np.float64(0.5)])
@pytest.mark.parametrize("family", [TripletLoss, ContrastiveLoss])
def test_a_margin_may_be_a_numpy_number(family, margin):
    loss = family(margin)
    assert family.from_config(json.loads(json.dumps(loss.get_config()))).margin == pytest.approx(float(margin))


def test_all_other_numbers_may_be_numpys_too():
    n = np.float32(0.25)
    miner = DistanceWeighted(n, np.float32(1.5), seed=np.int64(3), dimension=np.int32(4))
    pairs = [CircleLoss(n, n), LiftedStructureLoss(n), MarginLoss(n, n, miner), MultiSimilarityLoss(n, n, n, n)]
    for loss in (*pairs, NPairLoss(l2=n), NTXentLoss(n), SupConLoss(n), TripletLoss(n, miner)):
        config = json.loads(json.dumps(loss.get_config()))
        assert type(loss).from_config(config).get_config() == loss.get_config()


@pytest.mark.parametrize("margin", ["0.2", True, np.float32("nan"), -1])
@pytest.mark.parametrize("family", [TripletLoss, ContrastiveLoss])
def test_other_margins_are_refused(family, margin):
    with pytest.raises(ValueError, match="margin="):
        family(margin)


@pytest.mark.parametrize(
    "loss", [TripletLoss(), TripletLoss(mining="hard"), TripletLoss(mining="all"), ContrastiveLoss(average="balanced")]
)
def test_labels_of_two_bytes_under_xla(loss):
    labels = np.array([0, 0, 1, 1, 65535, 65535], np.uint16)
    compiled = tf.function(lambda y, x: loss(y, x), jit_compile=True)
    expected = loss(labels.astype("int64"), EMBEDDINGS)
    np.testing.assert_allclose(compiled(tf.constant(labels), tf.constant(EMBEDDINGS)), expected, rtol=1e-5)


@pytest.mark.parametrize("mining", ["semi_hard", "hard", "all", SemiHard(fallback="none")])
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_compiled_model_is_saved_with_its_loss(tmp_path, mining, ending):
    if ending == ".h5" and not isinstance(mining, str):
        mining = "semi_hard"  # the older format cannot hold objects inside objects
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", loss=TripletLoss(mining=mining))
    model.fit(EMBEDDINGS, np.arange(6) // 2, verbose=0)
    model.save(tmp_path / f"model{ending}")
    again = keras.models.load_model(tmp_path / f"model{ending}")
    assert again.loss.get_config() == model.loss.get_config()
