import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.losses import ContrastiveLoss, EmbeddingLoss, NPairLoss, NTXentLoss, TripletLoss, TwoTowerLoss


def towers(b=8, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((b, 2, d)).astype(np.float32)


@pytest.mark.parametrize("loss", [NTXentLoss(0.3), TripletLoss(0.4), TripletLoss(0.4, "hard"), ContrastiveLoss(1.5)])
def test_it_is_the_loss_between_the_sides(loss):
    x, y = towers(), np.array([0, 1, 2, 3, 4, 5, 0, 1])
    one, other = loss.between(y, x[:, 0], y, x[:, 1]), loss.between(y, x[:, 1], y, x[:, 0])
    np.testing.assert_allclose(TwoTowerLoss(loss, symmetric=False).call(y, x), one, rtol=1e-6)
    np.testing.assert_allclose(TwoTowerLoss(loss).call(y, x), 0.5 * (one + other), rtol=1e-6)


def test_one_positive_each_is_cross_entropy_on_the_matrix():
    x = towers()
    unit = x / np.linalg.norm(x, axis=2, keepdims=True)
    logits = unit[:, 0] @ unit[:, 1].T / 0.2
    rows = [np.log(np.exp(row).sum()) - row[i] for m in (logits, logits.T) for i, row in enumerate(m)]
    assert TwoTowerLoss(NTXentLoss(0.2))(np.arange(8), x).numpy() == pytest.approx(np.mean(rows), rel=1e-5)
    assert TwoTowerLoss(NPairLoss(l2=0.0, positives="all"))(np.arange(8), x).numpy() == pytest.approx(
        np.mean([np.log(np.exp(m).sum(1)) - np.diag(m) for m in (x[:, 0] @ x[:, 1].T, x[:, 1] @ x[:, 0].T)]), rel=1e-5
    )


def test_forms_of_labels():
    x, y = towers(), np.array([0, 1, 2, 3, 0, 1, 2, 3])
    expected = TwoTowerLoss(NTXentLoss(0.3)).call(y, x)
    for labels in (y[:, None], np.stack([y, y], 1), np.eye(4, dtype=bool)[y], (y + 2**62).tolist()):
        np.testing.assert_array_equal(TwoTowerLoss(NTXentLoss(0.3)).call(labels, x), expected)
    crossed = TwoTowerLoss(NTXentLoss(0.3), symmetric=False).call(np.stack([y, y[::-1]], 1), x)
    np.testing.assert_array_equal(crossed, NTXentLoss(0.3).between(y, x[:, 0], y[::-1], x[:, 1]))


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_two_networks_learn_through_fit(jit, tmp_path):
    # The references are a fixed turn of the queries, which the second tower must undo.
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((64, 6)).astype(np.float32)
    references = queries @ rng.standard_normal((6, 5)).astype(np.float32)
    inputs = keras.Input((6,)), keras.Input((5,))
    sides = [keras.layers.Reshape((1, 4))(keras.layers.Dense(4)(side)) for side in inputs]
    model = keras.Model(inputs, keras.layers.Concatenate(axis=1)(sides))
    model.compile(keras.optimizers.Adam(0.03), loss=TwoTowerLoss(NTXentLoss(0.2)), jit_compile=jit)
    losses = model.fit([queries, references], np.arange(64), batch_size=32, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.loss.get_config() == model.loss.get_config()
    expected = model.evaluate([queries, references], np.arange(64), verbose=0)
    np.testing.assert_allclose(again.evaluate([queries, references], np.arange(64), verbose=0), expected, rtol=1e-6)


def test_finite_empty_and_bad_numbers():
    loss = TwoTowerLoss(NTXentLoss(0.3))
    x = towers()
    assert loss(np.zeros(8, int), x) == 0
    assert loss(np.zeros(1, int), x[:1]) == 0
    assert loss.call(np.zeros(0, int), x[:0]).shape == (0,)
    assert loss.call(np.arange(8), tf.cast(x, tf.float16)).dtype == tf.float32
    x[3, 1, 0] = np.nan
    assert np.isnan(loss(np.arange(8), x))


def test_bad_input_is_refused_with_a_reason():
    class Other(EmbeddingLoss):
        def per_anchor(self, labels, embeddings):
            return embeddings[:, 0]

    for wrong in ("nt_xent", None, Other(), TwoTowerLoss(NTXentLoss())):
        with pytest.raises(TypeError, match=r"loss=.*expected a loss on pairs"):
            TwoTowerLoss(wrong)
    loss = TwoTowerLoss(NTXentLoss())
    with pytest.raises(ValueError, match=r"y_pred has shape \(8, 3\).*\[B, 2, D\]"):
        loss(np.arange(8), towers()[:, 0])
    with pytest.raises(ValueError, match=r"y_true has shape \(8, 3\)"):
        loss(np.ones((8, 3)), towers())
    with pytest.raises(ValueError, match="positives='one'"):
        TwoTowerLoss(NPairLoss())(np.arange(8), towers())
