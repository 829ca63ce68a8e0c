"""EmbeddingModel with a head: training, saving, going on, replicas; and exports that hold nothing of the head."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdml
from tfdml.layers import (
    ArcFace,
    ASoftmax,
    CosFace,
    Head,
    IdentificationVerification,
    MarginHead,
    NormalizedSoftmax,
    ProxyAnchor,
    ProxyNCA,
)
from tfdml.models import conv_encoder

SHAPE = (8, 8, 3)
LABELS = np.repeat(np.arange(4), 4)

HEADS = {
    "a-softmax": (lambda: ASoftmax(4, margin=2), {"normalize": False}),
    "arcface": (lambda: ArcFace(4, margin=0.2, scale=8.0), {}),
    "cosface, sub-centres": (lambda: CosFace(4, margin=0.1, scale=8.0, sub_centers=2), {}),
    "normalized softmax": (lambda: NormalizedSoftmax(4, temperature=0.2), {}),
    "proxy-anchor": (lambda: ProxyAnchor(4, alpha=8.0), {}),
    "proxy-nca": (lambda: ProxyNCA(4, temperature=0.5), {}),
    "deepid2": (lambda: IdentificationVerification(4, window=500, reset_every=5), {"normalize": False}),
    "margin": (lambda: MarginHead(4, mining="all"), {}),
}
# Each takes seconds: those that share their code with another are marked slow.
SLOW = ("arcface", "normalized softmax", "proxy-anchor", "proxy-nca")
every_head = pytest.mark.parametrize(
    ("make", "kwargs"),
    [pytest.param(*head, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, head in HEADS.items()],
)


@pytest.fixture
def images() -> np.ndarray:
    """Four classes, each of its own colour, with noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 200, (4, 1, 1, 3))[LABELS]
    return np.clip(colours + rng.integers(-50, 50, (16, *SHAPE)), 0, 255).astype(np.uint8)


def compiled(make, jit=None, loss=None, rate=3e-3, **kwargs) -> tfdml.EmbeddingModel:
    keras.utils.set_random_seed(0)
    model = tfdml.EmbeddingModel(conv_encoder(SHAPE, filters=(8,), dimension=5), head=make(), **kwargs)
    model.compile(keras.optimizers.Adam(rate), loss=loss, jit_compile=jit if jit is not None else False)
    return model


@every_head
def test_fit_lowers_the_loss_and_reload_keeps_everything(images, make, kwargs, tmp_path):
    model = compiled(make, rate=1e-2, **kwargs)
    before = [np.array(w) for w in model.head.trainable_weights]
    history = model.fit(images, LABELS, batch_size=16, epochs=25, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    for old, new in zip(before, model.head.trainable_weights, strict=True):
        assert np.abs(old - np.asarray(new)).max() > 0
    assert model(images).shape == (16, 5)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.head) is type(model.head)
    assert again.head.get_config() == model.head.get_config()
    assert len(again.head.weights) == len(model.head.weights) > 0
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(again(images), model(images), rtol=1e-5, atol=1e-6)


def test_a_reloaded_model_goes_on_where_it_was(images, tmp_path):
    model = compiled(lambda: IdentificationVerification(4, window=500, reset_every=2), normalize=False)
    model.fit(images, LABELS, batch_size=16, epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    losses = [m.fit(images, LABELS, batch_size=16, epochs=3, shuffle=False, verbose=0).history["loss"] for m in (model, again)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert len(set(losses[0])) == 3


def test_annealing_counts_training_steps_only(images, tmp_path):
    model = compiled(lambda: ASoftmax(4), normalize=False)
    model.fit(images, LABELS, batch_size=8, epochs=3, validation_data=(images, LABELS), verbose=0)
    model.evaluate(images, LABELS, verbose=0)
    model.embed(images)
    assert int(model.head.step) == 6
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert int(again.head.step) == 6
    again.fit(images, LABELS, batch_size=8, verbose=0)
    assert int(again.head.step) == 8


def test_evaluation_leaves_the_margin_out(images):
    model = compiled(lambda: CosFace(4, margin=0.5, scale=10.0))
    with_margin = model.head.per_anchor(model(images), LABELS, training=True)
    without = model.head.per_anchor(model(images), LABELS)
    np.testing.assert_allclose(model.evaluate(images, LABELS, batch_size=16, verbose=0), np.mean(without), rtol=1e-4)
    assert np.mean(with_margin) > np.mean(without) + 1
    # Batch normalisation differs in training, so the loss is only near.
    first = model.fit(images, LABELS, batch_size=16, verbose=0).history["loss"][0]
    assert abs(first - np.mean(with_margin)) < abs(first - np.mean(without))


def test_a_compiled_loss_is_added(images):
    frozen = {"rate": 0.0}
    both = compiled(lambda: ArcFace(4), loss=tfdml.losses.ContrastiveLoss(1.9), **frozen)
    alone = compiled(lambda: ArcFace(4), **frozen)
    losses = [m.evaluate(images, LABELS, batch_size=16, verbose=0) for m in (both, alone)]
    contrastive = tfdml.losses.ContrastiveLoss(1.9)(LABELS, both(images))
    np.testing.assert_allclose(losses[0], losses[1] + contrastive, rtol=1e-4)
    history = both.fit(images, LABELS, batch_size=16, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()


def test_sample_weights_and_columns_of_labels(images):
    model = compiled(lambda: NormalizedSoftmax(4))
    values = model.head.per_anchor(model(images), LABELS).numpy()
    weights = np.linspace(0, 2, 16).astype(np.float32)
    found = model.evaluate(images, LABELS, sample_weight=weights, batch_size=16, verbose=0)
    np.testing.assert_allclose(found, np.mean(values * weights), rtol=1e-4)
    np.testing.assert_allclose(model.evaluate(images, LABELS[:, None], batch_size=16, verbose=0), np.mean(values), rtol=1e-4)


def test_fit_with_xla(images):
    model = compiled(lambda: ASoftmax(4), jit=True, normalize=False)
    history = model.fit(images, LABELS, batch_size=16, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert int(model.head.step) == 2


@pytest.mark.parametrize("policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.one_stack)])
def test_fit_in_mixed_precision(images, policy):
    before = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else "float32"
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = compiled(lambda: ArcFace(4, margin=0.2, scale=16.0))
        history = model.fit(images, LABELS, batch_size=16, epochs=15, verbose=0).history["loss"]
        logits = model.head(model(images), LABELS, training=True)
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert history[-1] < history[0]
    assert logits.dtype == tf.float32


def test_a_functional_model_trains_with_the_same_head(images):
    keras.utils.set_random_seed(0)
    encoder = conv_encoder(SHAPE, filters=(8,), dimension=5)
    pictures, labels = keras.Input(SHAPE), keras.Input((), dtype="int64")
    embedding = encoder(pictures)
    logits = ArcFace(4, margin=0.2, scale=8.0)(embedding, labels)
    model = keras.Model([pictures, labels], logits)
    model.compile(keras.optimizers.Adam(1e-2), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = images.astype(np.float32)
    history = model.fit([x, LABELS], LABELS, batch_size=16, epochs=25, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    assert keras.Model(pictures, embedding)(x).shape == (16, 5)


def test_the_exported_bundle_holds_nothing_of_the_head(images, tmp_path):
    model = compiled(lambda: NormalizedSoftmax(1000))
    model.fit(images, LABELS, batch_size=16, verbose=0)
    data = tfdml.datasets.Dataset.from_arrays(images, LABELS)
    bundle = model.export(tmp_path / "bundle", gallery=data, thumbnails=0)
    shapes = dict(tf.train.list_variables(str(bundle.path / "variables" / "variables")))
    assert any(np.prod(shape) > 1 for shape in shapes.values())
    assert not any(1000 in shape for shape in shapes.values())
    np.testing.assert_allclose(bundle.search(model.embed(images[:1]), k=1)[0][0].distance, 0, atol=1e-3)


def test_keras_own_export_holds_nothing_of_the_head(images, tmp_path):
    model = compiled(lambda: NormalizedSoftmax(1000))
    expected = model.embed(images)
    model.export(str(tmp_path / "saved"))
    shapes = dict(tf.train.list_variables(str(tmp_path / "saved" / "variables" / "variables")))
    assert not any(1000 in shape for shape in shapes.values())
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(tf.constant(images, tf.float32)), expected, rtol=1e-4, atol=1e-5)


def test_without_head_shares_the_encoder(images, tmp_path):
    model = compiled(lambda: ArcFace(4))
    alone = model.without_head()
    assert alone.head is None
    assert alone.encoder is model.encoder
    np.testing.assert_array_equal(alone.embed(images), model.embed(images))
    assert len(alone.weights) == len(model.weights) - 1
    alone.save(tmp_path / "alone.keras")
    assert keras.models.load_model(tmp_path / "alone.keras").head is None


def test_wrong_heads_are_refused_with_a_reason(images):
    encoder = conv_encoder(SHAPE, filters=(8,), dimension=5)
    with pytest.raises(ValueError, match=r"expected a tfdml\.layers\.Head"):
        tfdml.EmbeddingModel(encoder, head="arcface")
    for head in (ASoftmax(4), IdentificationVerification(4)):
        with pytest.raises(ValueError, match=r"lengths of embeddings.*normalize=False"):
            tfdml.EmbeddingModel(encoder, head=head)
    with pytest.raises(ValueError, match="it needs labels"):
        compiled(lambda: ArcFace(4)).fit(images, verbose=0)
    model = compiled(lambda: ArcFace(4))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="expected integers from 0 to 3"):
        model.fit(images, LABELS + 1, verbose=0)
    assert issubclass(ArcFace, Head)
