"""What every head promises, whatever it computes: definitions, hostile batches, dtypes, compilers, saving, bad input."""

from __future__ import annotations

import math

import keras
import layers_oracles as oracles
import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import (
    ArcFace,
    ASoftmax,
    ClassifierHead,
    CosFace,
    IdentificationVerification,
    MarginHead,
    NormalizedSoftmax,
    ProxyAnchor,
    ProxyNCA,
)

C, D = 4, 3


def arc(margin, easy=False):
    def own(theta):
        if easy:
            return math.cos(theta + margin) if theta < math.pi / 2 else math.cos(theta)
        return math.cos(theta + margin) if theta + margin < math.pi else math.cos(theta) - margin * math.sin(margin)

    return own


# name: (how it is made, its definition in terms of embeddings, labels and the head's trainable weights)
HEADS = {
    "a-softmax 4": (
        lambda **kw: ASoftmax(C, margin=4, base=0, lambda_min=0, **kw),
        lambda x, y, w: oracles.a_softmax(x, y, w, 4, 0),
    ),
    "a-softmax 3": (
        lambda **kw: ASoftmax(C, margin=3, base=0, lambda_min=0.5, **kw),
        lambda x, y, w: oracles.a_softmax(x, y, w, 3, 0.5),
    ),
    "a-softmax 2": (
        lambda **kw: ASoftmax(C, margin=2, base=2, **kw),
        lambda x, y, w: oracles.a_softmax(x, y, w, 2, 5),
    ),
    "a-softmax 1": (lambda **kw: ASoftmax(C, margin=1, **kw), lambda x, y, w: oracles.a_softmax(x, y, w, 1, 1000)),
    "normalized": (lambda **kw: NormalizedSoftmax(C, 0.2, **kw), lambda x, y, w: oracles.cosine_softmax(x, y, w, 5)),
    "cosface": (
        lambda **kw: CosFace(C, 0.3, scale=8.0, **kw),
        lambda x, y, w: oracles.cosine_softmax(x, y, w, 8, lambda t: math.cos(t) - 0.3),
    ),
    "arcface": (
        lambda **kw: ArcFace(C, 0.4, scale=8.0, **kw),
        lambda x, y, w: oracles.cosine_softmax(x, y, w, 8, arc(0.4)),
    ),
    "arcface wide": (
        lambda **kw: ArcFace(C, 1.4, scale=4.0, **kw),
        lambda x, y, w: oracles.cosine_softmax(x, y, w, 4, arc(1.4)),
    ),
    "arcface easy": (
        lambda **kw: ArcFace(C, 0.4, scale=8.0, easy_margin=True, **kw),
        lambda x, y, w: oracles.cosine_softmax(x, y, w, 8, arc(0.4, easy=True)),
    ),
    "arcface sub-centres": (
        lambda **kw: ArcFace(C, 0.4, scale=8.0, sub_centers=3, **kw),
        lambda x, y, w: oracles.cosine_softmax(x, y, w, 8, arc(0.4), sub_centers=3),
    ),
    "proxy-anchor": (
        lambda **kw: ProxyAnchor(C, 0.1, alpha=8.0, **kw),
        lambda x, y, w: oracles.proxy_anchor(x, y, w, 0.1, 8),
    ),
    "proxy-nca++": (lambda **kw: ProxyNCA(C, **kw), lambda x, y, w: oracles.proxy_nca(x, y, w, 0.11, "all")),
    "proxy-nca": (
        lambda **kw: ProxyNCA(C, temperature=1.0, denominator="negatives", **kw),
        lambda x, y, w: oracles.proxy_nca(x, y, w, 1.0, "negatives"),
    ),
    **{
        f"deepid2 {form} {pairs}": (
            lambda form=form, pairs=pairs, **kw: IdentificationVerification(
                C, form, weight=0.6, pairs=pairs, margin=2.0, window=100, **kw
            ),
            lambda x, y, w, b, *cosine, form=form, pairs=pairs: oracles.deepid2(x, y, w, b, form, 0.6, pairs, 2.0, *cosine),
        )
        for form, pairs in [
            ("l2", "all"),
            ("l2+", "all"),
            ("l2-", "all"),
            ("l1", "all"),
            ("cosine", "all"),
            ("l2", "consecutive"),
            ("l1", "consecutive"),
            ("cosine", "consecutive"),
        ]
    },
    "margin": (
        lambda **kw: MarginHead(C, alpha=0.3, beta=1.5, nu=0.1, mining="all", **kw),
        lambda x, y, b, offsets: oracles.margin_all_pairs(x, y, b + offsets[y], 0.3, 0.1),
    ),
    "margin, one for all": (
        lambda **kw: MarginHead(alpha=0.3, beta=1.5, mining="all", **kw),
        lambda x, y, b: oracles.margin_all_pairs(x, y, b + np.zeros(len(y)), 0.3, 0.0),
    ),
}
every_head = pytest.mark.parametrize("make", [make for make, _ in HEADS.values()], ids=HEADS)
# For what takes long: one head for each path through the code.
PATHS = ("a-softmax 4", "arcface sub-centres", "proxy-anchor", "deepid2 l2 all", "deepid2 l1 all", "margin")
some_heads = pytest.mark.parametrize("make", [HEADS[name][0] for name in PATHS], ids=PATHS)


def batch(b=9, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((b, D)), np.append(rng.integers(0, C - 1, b - 1), 0)


def built(make, seed=1, **kwargs):
    """A head whose trainable weights are random but always the same."""
    head = make(**kwargs)
    head.build((None, D))
    rng = np.random.default_rng(seed)
    for weight in head.trainable_weights:
        old = np.asarray(weight) if not tuple(weight.shape) else 0.0
        weight.assign(old + rng.standard_normal(tuple(weight.shape)) * 0.5)
    return head


def value_and_gradients(head, x, y, training=True):
    x = tf.convert_to_tensor(x)
    weights = [getattr(w, "value", w) if not callable(getattr(w, "value", None)) else w for w in head.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = head.per_anchor(x, y, training=training)
        mean = tf.reduce_mean(values)
    gradients = tape.gradient(mean, [x, *weights])
    return values, [tf.convert_to_tensor(g) for g in gradients]


@pytest.mark.parametrize("name", HEADS)
def test_value_and_gradients_are_those_of_the_definition(name):
    make, definition = HEADS[name]
    head = built(make, dtype="float64")
    x, y = batch()
    weights = [np.asarray(w, np.float64) for w in head.trainable_weights]
    values, gradients = value_and_gradients(head, x, y)
    assert values.shape == (len(x),)
    assert values.dtype == tf.float64
    np.testing.assert_allclose(np.mean(values), definition(x, y, *weights), rtol=1e-9)
    for number, gradient in enumerate(gradients):
        inputs = [x, *weights]

        def moved(z, number=number, inputs=inputs):
            changed = [*inputs[:number], z, *inputs[number + 1 :]]
            return definition(changed[0], y, *changed[1:])

        np.testing.assert_allclose(gradient, oracles.slopes(moved, inputs[number]), rtol=1e-5, atol=1e-7)


def hostile_batches():
    x, y = batch()
    yield "one item", x[:1], y[:1]
    yield "one class", x, np.zeros_like(y)
    yield "collapsed", np.ones_like(x), y
    yield "zero vectors", np.zeros_like(x), y
    yield "some zero vectors", x * (np.arange(9) % 3 > 0)[:, None], y
    yield "tiny", x * 1e-30, y
    yield "large", x * 1e4, y


HOSTILE = {name: rest for name, *rest in hostile_batches()}


@every_head
@pytest.mark.parametrize("name", HOSTILE)
def test_finite_on_every_batch(make, name):
    x, y = HOSTILE[name]
    values, gradients = value_and_gradients(built(make), x.astype(np.float32), y)
    assert values.shape == (len(y),)
    assert values.dtype == tf.float32
    assert np.isfinite(values).all()
    assert all(np.isfinite(g).all() for g in gradients)


@every_head
def test_an_empty_batch_has_no_loss(make):
    head = built(make)
    assert head.per_anchor(tf.zeros([0, D]), tf.zeros([0], tf.int64), training=True).shape == (0,)


@every_head
def test_a_bad_embedding_is_not_hidden(make):
    x, y = batch()
    x[4, 1] = np.nan
    assert np.isnan(np.mean(built(make).per_anchor(tf.constant(x, tf.float32), y, training=True)))


@every_head
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_is_computed_in_float32(make, dtype):
    x, y = batch()
    x = tf.cast(x, dtype)
    policy = "mixed_float16" if dtype == tf.float16 else "mixed_bfloat16"
    expected = built(make).per_anchor(tf.cast(x, tf.float32), y, training=True)
    head = built(make, dtype=policy)
    values, gradients = value_and_gradients(head, x, y)
    assert values.dtype == tf.float32
    assert gradients[0].dtype == dtype
    np.testing.assert_array_equal(values, expected)
    assert all(np.isfinite(tf.cast(g, tf.float32)).all() for g in gradients)
    if isinstance(head, ClassifierHead):
        assert head(x, y, training=True).dtype == tf.float32


@some_heads
def test_graph_and_xla_give_the_same(make):
    x, y = batch()
    x, y = tf.constant(x, tf.float32), tf.constant(y)
    results = []
    for compiled in (False, None, True):
        head = built(make)

        def step(x, y, head=head):
            return value_and_gradients(head, x, y)

        results.append((step if compiled is False else tf.function(step, jit_compile=compiled))(x, y))
    for values, gradients in results[1:]:
        np.testing.assert_allclose(values, results[0][0], rtol=1e-5, atol=1e-6)
        for one, other in zip(gradients, results[0][1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@every_head
def test_saved_and_reloaded_in_a_functional_model(make, tmp_path):
    x, y = batch(8)
    images, labels = keras.Input((D,)), keras.Input((), dtype="int64")
    head = make()
    model = keras.Model([images, labels], head(keras.layers.Dense(D)(images), labels))
    of_logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=of_logits if isinstance(head, ClassifierHead) else None)
    if isinstance(head, ClassifierHead) and make in [HEADS[name][0] for name in PATHS]:
        model.fit([x, y], y, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[-1]) is type(head)
    assert again.layers[-1].get_config() == head.get_config()
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(again([x, y]), model([x, y]), rtol=1e-5, atol=1e-6)


@some_heads
def test_labels_out_of_range(make):
    x, y = batch()
    x = tf.constant(x, tf.float32)
    for wrong in (C, -1):
        bad = y.copy()
        bad[2] = wrong
        head = built(make)
        with pytest.raises(ValueError, match=rf"labels contain {wrong}: expected integers from 0 to 3.*RetrievalCallback"):
            head.per_anchor(x, bad, training=True)
        in_graph = tf.function(lambda x, y, head=head: head.per_anchor(x, y, training=True))
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected integers from 0 to 3"):
            in_graph(x, tf.constant(bad))
    # Assertions are not compiled, so that what is left is not a number.
    compiled = tf.function(lambda x, y: head.per_anchor(x, y, training=True), jit_compile=True)
    assert np.isnan(compiled(x, tf.constant(bad))[2])


@every_head
def test_bad_labels_are_refused_with_a_reason(make):
    x, y = batch()
    x = tf.constant(x, tf.float32)
    with pytest.raises(ValueError, match=r"labels are float32.*as integers"):
        built(make)(x, tf.constant(y, tf.float32))
    with pytest.raises(ValueError, match=r"labels have shape \(9, 4\).*argmax"):
        built(make)(x, tf.constant(np.eye(C, dtype=int)[y]))
    assert np.array_equal(built(make)(x, tf.constant(y[:, None])), built(make)(x, tf.constant(y)))


@pytest.mark.parametrize("head", [ASoftmax, ArcFace, CosFace, NormalizedSoftmax, ProxyAnchor, ProxyNCA, MarginHead])
@pytest.mark.parametrize("wrong", [1, 0, -3, 2.0, True, "4"])
def test_num_classes_is_checked(head, wrong):
    with pytest.raises(ValueError, match=r"num_classes=.*expected an integer >= 2"):
        head(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ASoftmax(C, margin=5), "margin=5: expected 1, 2, 3 or 4"),
        (lambda: ASoftmax(C, margin=1.5), "margin=1.5"),
        (lambda: ASoftmax(C, lambda_min=-1), "lambda_min=-1"),
        (lambda: ArcFace(C, margin=1.6), "margin=1.6: expected radians"),
        (lambda: ArcFace(C, scale=0), "scale=0"),
        (lambda: CosFace(C, margin=-0.1), "margin=-0.1"),
        (lambda: CosFace(C, sub_centers=0), "sub_centers=0: expected an integer >= 1"),
        (lambda: NormalizedSoftmax(C, temperature=0), "temperature=0"),
        (lambda: ProxyAnchor(C, alpha=-1), "alpha=-1"),
        (lambda: ProxyNCA(C, denominator="some"), "denominator='some' is not known"),
        (lambda: IdentificationVerification(C, "l3"), "verification='l3' is not known"),
        (lambda: IdentificationVerification(C, pairs="some"), "pairs='some' is not known"),
        (lambda: IdentificationVerification(C, window=0), "window=0"),
        (lambda: MarginHead(C, alpha=0), "alpha=0"),
        (lambda: MarginHead(C, num_images=0), "num_images=0"),
        (lambda: MarginHead(C, mining="harder"), "mining='harder' is not known"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
