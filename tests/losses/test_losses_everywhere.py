"""What every loss promises, whatever it computes: every loss, on hostile batches, dtypes, compilers, and through Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.losses import (
    CircleLoss,
    ContrastiveLoss,
    EmbeddingLoss,
    LiftedStructureLoss,
    MarginLoss,
    MultiSimilarityLoss,
    NPairLoss,
    NTXentLoss,
    SupConLoss,
    TripletLoss,
)
from tfdml.mining import DistanceWeighted, SemiHard

LOSSES = {
    "contrastive": lambda **kw: ContrastiveLoss(2.0, **kw),
    "contrastive balanced": lambda **kw: ContrastiveLoss(average="balanced", **kw),
    "contrastive hinge": lambda **kw: ContrastiveLoss(1.0, average="balanced", form="hinge", **kw),
    "contrastive legacy": lambda **kw: ContrastiveLoss(1.0, form="legacy", **kw),
    "contrastive cosine": lambda **kw: ContrastiveLoss(0.4, distance="cosine", **kw),
    "semi-hard": lambda **kw: TripletLoss(**kw),
    "semi-hard squared": lambda **kw: TripletLoss(0.2, SemiHard("none"), "squared_euclidean", **kw),
    "hard": lambda **kw: TripletLoss("soft", "hard", **kw),
    "hard cosine": lambda **kw: TripletLoss(0.3, "hard", "cosine", average="active", **kw),
    "all": lambda **kw: TripletLoss(0.2, "all", **kw),
    "all soft": lambda **kw: TripletLoss("soft", "all", **kw),
    "random": lambda **kw: TripletLoss(0.2, "random", **kw),
    "distance-weighted triplets": lambda **kw: TripletLoss(0.2, DistanceWeighted(dimension=4, fallback="uniform"), **kw),
    "n-pair": lambda **kw: NPairLoss(**kw),
    "n-pair ovo": lambda **kw: NPairLoss("ovo", **kw),
    "n-pair all": lambda **kw: NPairLoss(positives="all", **kw),
    "n-pair ovo all": lambda **kw: NPairLoss("ovo", 0.0, "all", **kw),
    "lifted": lambda **kw: LiftedStructureLoss(**kw),
    "lifted squared": lambda **kw: LiftedStructureLoss(0.5, distance="squared_euclidean", **kw),
    "lifted generalized": lambda **kw: LiftedStructureLoss(0.5, "generalized", **kw),
    "margin": lambda **kw: MarginLoss(**kw),
    "margin all": lambda **kw: MarginLoss(0.3, 1.0, "all", "valid", **kw),
    "margin random": lambda **kw: MarginLoss(mining="random", **kw),
    "margin uniform": lambda **kw: MarginLoss(mining=DistanceWeighted(0.3, None, "uniform", seed=5), **kw),
    "multi-similarity": lambda **kw: MultiSimilarityLoss(**kw),
    "circle": lambda **kw: CircleLoss(**kw),
    "nt-xent": lambda **kw: NTXentLoss(**kw),
    "sup-con": lambda **kw: SupConLoss(0.0002, **kw),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())


def these_losses(*names):
    """For what takes long: one loss for each path through the code."""
    return pytest.mark.parametrize("make", [LOSSES[name] for name in names], ids=names)


def batch(b=12, d=4, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, b), rng.standard_normal((b, d)).astype(np.float32)


def value_and_gradient(loss, labels, x):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x)
    return value.numpy(), tf.convert_to_tensor(tape.gradient(value, x)).numpy()


def hostile_batches():
    y, x = batch()
    yield "one item", y[:1], x[:1]
    yield "two of one class", [1, 1], x[:2]
    yield "two of two classes", [1, 2], x[:2]
    yield "one class", np.zeros_like(y), x
    yield "all different", np.arange(12), x
    yield "collapsed", y, np.ones_like(x)
    yield "duplicates", y, np.repeat(x[:3], 4, axis=0)
    yield "zero vectors", y, np.zeros_like(x)
    yield "some zero vectors", y, x * (np.arange(12) % 3 > 0)[:, None].astype(np.float32)
    yield "huge", y, x * np.float32(1e30)
    yield "squares overflow", y, x * np.float32(1e19)
    yield "tiny", y, x * np.float32(1e-30)
    yield "huge and tiny", y, x * np.float32(10.0) ** np.linspace(-25, 25, 12, dtype=np.float32)[:, None]
    yield "one dimension", y, x[:, :1]
    yield "negative labels", y - 100, x


HOSTILE = {name: rest for name, *rest in hostile_batches()}


@every_loss
@pytest.mark.parametrize("name", HOSTILE)
def test_finite_on_every_batch(make, name):
    labels, x = HOSTILE[name]
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = make().call(labels, x)
        value = tf.reduce_mean(values)
    assert values.shape == (len(x),)
    assert values.dtype == tf.float32
    assert np.isfinite(value)
    assert value >= 0
    assert np.isfinite(tf.convert_to_tensor(tape.gradient(value, x))).all()


@every_loss
def test_empty_choices_have_no_loss_and_no_gradient(make):
    _, x = batch()
    value, gradient = value_and_gradient(make(), [3], x[:1])
    assert value == 0
    assert not gradient.any()
    if isinstance(make(), TripletLoss):
        for labels in (np.zeros(12, int), np.arange(12)):
            value, gradient = value_and_gradient(make(), labels, x)
            assert value == 0
            assert not gradient.any()


@every_loss
def test_an_empty_batch_has_no_loss(make):
    assert make()(np.zeros(0, np.int64), np.zeros((0, 4), np.float32)).numpy().sum() == 0
    run = tf.function(make().call, input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 4], tf.float32)])
    assert run(np.zeros(0, np.int64), np.zeros((0, 4), np.float32)).shape == (0,)


@every_loss
def test_an_anchor_without_positives_has_no_triplet(make):
    if not isinstance(make(), TripletLoss):
        pytest.skip("pairs, not triplets")
    y, x = np.repeat(np.arange(4), 3), batch()[1]
    values = make().call(np.append(y, 9), np.append(x, x[:1], 0)).numpy()
    assert values[-1] == 0
    assert values[:-1].any()


@every_loss
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_embedding_is_not_hidden(make, bad):
    y, x = batch()
    x[4, 1] = bad
    assert np.isnan(make().call(y, x)).all()
    value, gradient = value_and_gradient(make(), y, x)
    assert np.isnan(value)
    assert not np.isfinite(gradient).all()


@every_loss
def test_label_forms_agree(make):
    y, x = batch()
    expected = make()(y, x)
    for labels in (y[:, None], y.astype(np.int32), y.astype(np.uint8), y.astype(np.float32), y - 2**40, y.tolist(), -y):
        assert make()(labels, x) == expected


@every_loss
def test_labels_are_exact(make):
    # In float32, 2^24 and 2^24 + 1 are one number, and so are 2^62 and 2^62 + 1.
    y, x = batch(classes=2)
    for start in (2**24, 2**62):
        assert make()(y.astype(np.int64) + start, x) == make()(y, x)


@these_losses("contrastive", "semi-hard")
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_labels_are_exact_through_fit(make, jit):
    x = batch(16)[1]
    y = np.arange(16, dtype=np.int64) // 2
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.5), loss=make(), jit_compile=jit)
    history = model.fit(x, y + 2**24, batch_size=16, epochs=1, shuffle=False, verbose=0)
    after = model.get_weights()
    # The same step by hand.
    model.set_weights(before)
    with tf.GradientTape() as tape:
        value = make()(y, model(x))
    gradients = tape.gradient(value, model.trainable_variables)
    np.testing.assert_allclose(history.history["loss"][0], value, rtol=1e-5)
    for a, b, g in zip(after, before, gradients, strict=True):
        np.testing.assert_allclose(a, b - 0.5 * g.numpy(), atol=1e-5)


@these_losses(
    "contrastive",
    "semi-hard",
    "hard cosine",
    "all soft",
    "random",
    "n-pair",
    "n-pair all",
    "n-pair ovo all",
    "lifted",
    "lifted generalized",
    "margin uniform",
    "multi-similarity",
    "circle",
    "nt-xent",
    "sup-con",
)
def test_graph_and_xla_give_the_same(make):
    y, x = batch(13, 5)
    y = tf.constant(y)

    def step(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = make().call(y, x)
        return values, tape.gradient(values, x)

    eager = step(y, tf.constant(x))
    spec = [tf.TensorSpec([None], y.dtype), tf.TensorSpec([None, None], tf.float32)]
    for compiled in (tf.function(step, input_signature=spec), tf.function(step, jit_compile=True)):
        for one, other in zip(eager, compiled(y, tf.constant(x)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@these_losses("contrastive", "semi-hard", "n-pair", "multi-similarity")
def test_a_graph_of_tensorflow_1_gives_the_same(make):
    # There `==` of two tensors asks whether they are one object.
    y, x = batch()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        values = session.run(make().call(tf.constant(y), tf.constant(x)))
    np.testing.assert_allclose(values, make().call(y, x), rtol=1e-5, atol=1e-6)


@every_loss
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_is_computed_in_float32(make, dtype):
    y, x = batch()
    x = tf.cast(x, dtype)
    values = make().call(y, x)
    assert values.dtype == tf.float32
    np.testing.assert_array_equal(values, make().call(y, tf.cast(x, tf.float32)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = make()(y, x)
    gradient = tape.gradient(value, x)
    assert gradient.dtype == dtype
    assert np.isfinite(tf.cast(gradient, tf.float32)).all()


@these_losses("contrastive", "semi-hard")
def test_mixed_precision_through_fit(make):
    y, x = batch(16)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, dtype="mixed_float16")])
    model.compile("sgd", loss=make())
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


@every_loss
def test_reductions_and_weights(make):
    y, x = batch()
    values = make().call(y, x).numpy()
    weights = np.linspace(0, 2, 12, dtype=np.float32)
    for reduction, reduce in (
        ("sum_over_batch_size", np.mean),
        ("auto", np.mean),
        ("mean", np.mean),
        ("sum", np.sum),
        ("none", np.asarray),
        (None, np.asarray),
    ):
        loss = make(reduction=reduction)
        np.testing.assert_allclose(loss(y, x), reduce(values), rtol=1e-5)
        for given in (weights, weights[:, None], weights.tolist()):
            np.testing.assert_allclose(loss(y, x, sample_weight=given), reduce(values * weights), rtol=1e-5)
        np.testing.assert_allclose(loss(y, x, sample_weight=3.0), reduce(3 * values), rtol=1e-5)


def test_keras_own_names_of_reductions_are_known():
    reduction = getattr(keras.losses, "Reduction", None)
    if reduction is None:
        pytest.skip("Keras 3 has strings only")
    assert ContrastiveLoss(reduction=reduction.AUTO).reduction == "sum_over_batch_size"
    assert ContrastiveLoss(reduction=reduction.NONE).reduction == "none"


@these_losses("contrastive", "semi-hard")
def test_sample_weights_through_fit(make):
    y, x = batch(8)
    weights = np.linspace(0, 2, 8).astype(np.float32)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.0), loss=make())
    expected = np.mean(make().call(y, model(x)) * weights)
    history = model.fit(x, y, sample_weight=weights, batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_allclose(history.history["loss"][0], expected, rtol=1e-4)


@every_loss
def test_saved_and_reloaded_with_its_model(make, tmp_path):
    y, x = batch()
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", loss=make(name="mine", reduction="sum"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == model.loss.get_config()
    # What `evaluate` would say, without tracing a graph for it.
    np.testing.assert_allclose(loaded.loss(y, loaded(x)), model.loss(y, model(x)), rtol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(make()))
    assert type(again) is type(make())
    assert again(y, x) == make()(y, x)


@every_loss
def test_bad_input_is_refused_with_a_reason(make):
    y, x = batch()
    with pytest.raises(ValueError, match=r"y_true holds strings.*return_inverse"):
        make()(y.astype(str), x)
    with pytest.raises(ValueError, match="12 labels and y_pred 11 embeddings"):
        make()(y, x[:11])
    with pytest.raises(ValueError, match=r"y_true has shape \(12, 4\).*argmax.*tf\.bool"):
        make()(np.eye(4)[y], x)
    with pytest.raises(ValueError, match=r"y_pred has shape \(12, 2, 2\).*\[B, D\]"):
        make()(y, x.reshape(12, 2, 2))
    with pytest.raises(ValueError, match="y_pred has shape"):
        make()(y, x[:, 0])
    with pytest.raises(ValueError, match=r"sample_weight has shape \(12, 2\)"):
        make()(y, x, sample_weight=np.ones((12, 2)))
    with pytest.raises(ValueError, match=r"reduction='total'.*'sum'"):
        make(reduction="total")


def test_lengths_that_are_not_known_while_tracing_are_checked_when_run():
    y, x = batch()
    run = tf.function(TripletLoss(), input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 4], tf.float32)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="one label per embedding"):
        run(y, x[:11])


def test_the_base_class_asks_for_per_anchor():
    with pytest.raises(TypeError, match="per_anchor"):
        EmbeddingLoss()
