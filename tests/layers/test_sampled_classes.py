"""Heads that look at a sample of their classes in each step: which, with what loss, and that nothing else is touched."""

from __future__ import annotations

import math

import keras
import layers_oracles as oracles
import numpy as np
import pytest
import tensorflow as tf
from test_heads_everywhere import value_and_gradients

import tfdml
from tfdml.layers import ArcFace, ASoftmax, CosFace, NormalizedSoftmax
from tfdml.layers._class_sample import draw_classes, first_of_each
from tfdml.optimizers import LazyAdam, LazySGD

C, D, S = 60, 5, 17

# name: (how it is made, its definition over the classes whose weights are given)
HEADS = {
    "a-softmax": (
        lambda **kw: ASoftmax(C, margin=3, base=0, lambda_min=0.5, **kw),
        lambda x, y, w: oracles.a_softmax(x, y, w, 3, 0.5),
    ),
    "normalized": (lambda **kw: NormalizedSoftmax(C, 0.2, **kw), lambda x, y, w: oracles.cosine_softmax(x, y, w, 5)),
    "cosface": (
        lambda **kw: CosFace(C, 0.3, scale=8.0, **kw),
        lambda x, y, w: oracles.cosine_softmax(x, y, w, 8, lambda t: math.cos(t) - 0.3),
    ),
    "arcface": (
        lambda **kw: ArcFace(C, 0.4, scale=8.0, **kw),
        lambda x, y, w: oracles.cosine_softmax(x, y, w, 8, lambda t: math.cos(t + 0.4)),
    ),
    "sub-centres": (
        lambda **kw: CosFace(C, 0.3, scale=8.0, sub_centers=2, **kw),
        lambda x, y, w: oracles.cosine_softmax(x, y, w, 8, lambda t: math.cos(t) - 0.3, sub_centers=2),
    ),
}
every_head = pytest.mark.parametrize("name", HEADS)


def batch(b=9, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, C, b)
    y[-1] = y[0]
    return rng.standard_normal((b, D)), y


def built(make, **kwargs):
    head = make(**kwargs)
    head.build((None, D))
    head.kernel.assign(np.random.default_rng(1).standard_normal(tuple(head.kernel.shape)))
    return head


def sample_of(y, step=0, size=S, seed=0, classes=C):
    return draw_classes(tf.constant(y, tf.int64), size, classes, seed, tf.constant(step, tf.int64))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_head
def test_a_sample_of_all_classes_is_the_whole_head(name, dtype):
    make, _ = HEADS[name]
    x, y = batch()
    whole = value_and_gradients(built(make, dtype=dtype), x.astype(dtype), y)
    sampled = value_and_gradients(built(make, dtype=dtype, sampled_classes=C), x.astype(dtype), y)
    allowed = 1e-12 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(sampled[0], whole[0], rtol=allowed)
    for one, other in zip(sampled[1], whole[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=allowed, atol=allowed)


@every_head
def test_value_and_gradients_are_those_of_the_definition_over_the_sample(name):
    make, definition = HEADS[name]
    head = built(make, dtype="float64", sampled_classes=S, seed=4)
    x, y = batch()
    w = np.asarray(head.kernel).copy()
    # In ascending order: the definition does not care, and shares no order with the library.
    classes = np.sort(sample_of(y, seed=4).classes)
    rows = (classes[:, None] * head.sub_centers + np.arange(head.sub_centers)).ravel()
    own = np.array([int(np.flatnonzero(classes == label)[0]) for label in y])
    values, (of_x, of_w) = value_and_gradients(head, x, y)
    np.testing.assert_allclose(np.mean(values), definition(x, own, w[rows]), rtol=1e-9)
    np.testing.assert_allclose(of_x, oracles.slopes(lambda z: definition(z, own, w[rows]), x), rtol=1e-5, atol=1e-7)
    expected = np.zeros_like(w)
    expected[rows] = oracles.slopes(lambda z: definition(x, own, z), w[rows])
    np.testing.assert_allclose(of_w, expected, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_the_weights_is_sparse_and_names_no_row_twice():
    head = built(HEADS["arcface"][0], sampled_classes=S)
    x, y = batch()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(head.per_anchor(tf.constant(x, tf.float32), y, training=True))
    kernel = head.kernel.value if not callable(head.kernel.value) else head.kernel
    gradient = tape.gradient(total, kernel)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.values.shape == (S, D)
    assert len(set(gradient.indices.numpy())) == S


@pytest.mark.parametrize("seed", range(5))
def test_the_batch_is_in_the_sample_and_no_class_is_in_it_twice(seed):
    _, y = batch(11, seed)
    for step in range(5):
        classes, own = sample_of(y, step)
        assert classes.shape == (S,)
        assert len(set(classes.numpy())) == S
        assert 0 <= min(classes) <= max(classes) < C
        np.testing.assert_array_equal(tf.gather(classes, own), y)


@pytest.mark.parametrize(("b", "size", "classes", "expected"), [(30, 8, C, 30), (200, 8, C, C), (0, 8, C, 8), (1, C, C, C)])
def test_there_is_room_for_every_class_of_the_batch(b, size, classes, expected):
    y = np.random.default_rng(0).integers(0, classes, b)
    for labels in (y, np.zeros_like(y)):
        found = sample_of(labels, 0, size, 0, classes)
        unknown = tf.function(
            lambda labels: draw_classes(labels, size, classes, 0, tf.constant(0, tf.int64))
        ).get_concrete_function(tf.TensorSpec([None], tf.int64))(tf.constant(labels, tf.int64))
        for sample in (found, unknown):
            assert len(set(sample.classes.numpy())) == len(sample.classes) == expected
            np.testing.assert_array_equal(tf.gather(sample.classes, sample.own), labels)


def chi_square(counts) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2).sum() / expected)


def test_others_are_drawn_evenly():
    """Each class, and each pair of classes, as often as any other: chi-square within five standard deviations of its mean."""
    classes, size, steps = 12, 6, 2000
    y = np.array([3, 3, 8])
    draw = tf.function(lambda step: draw_classes(tf.constant(y, tf.int64), size, classes, 5, step).classes)
    drawn = np.array([draw(tf.constant(step, tf.int64)) for step in range(steps)])
    present = np.zeros((steps, classes), int)
    np.put_along_axis(present, drawn, 1, 1)
    assert (present.sum(1) == size).all()
    assert present[:, [3, 8]].all()
    others = np.delete(present, [3, 8], 1)
    once, pairs = others.sum(0), (others.T @ others)[np.triu_indices(10, 1)]
    # Drawn without repetition, counts vary less than independent ones: by the share that is left out.
    assert abs(chi_square(once) - 9 * 0.6) < 5 * math.sqrt(2 * 9)
    assert chi_square(pairs) < 44 + 5 * math.sqrt(2 * 44)


def test_places_of_first_occurrences():
    values = np.random.default_rng(0).integers(0, 20, 100)
    expected = [list(values).index(v) for v in values]
    np.testing.assert_array_equal(first_of_each(tf.constant(values)), expected)
    assert first_of_each(tf.zeros([0], tf.int64)).shape == (0,)


def model_of(head, optimizer, **options):
    keras.utils.set_random_seed(3)
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(D)])
    model = tfdml.EmbeddingModel(encoder, head=head)
    model.compile(optimizer, **options)
    return model


def images(b=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((b, 4)).astype(np.float32), rng.integers(0, C, b)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: LazyAdam(0.01),
        lambda: LazySGD(0.1, momentum=0.9),
        lambda: LazySGD(0.1),
        lambda: keras.optimizers.SGD(0.1),
    ],
    ids=["LazyAdam", "LazySGD momentum", "LazySGD", "SGD"],
)
def test_a_step_touches_the_sample_and_nothing_else(optimizer):
    model = model_of(NormalizedSoftmax(C, 1.0, sampled_classes=S), optimizer())
    x, y = images()
    model.train_on_batch(x, y)
    # The first step made the optimizer's own weights; the second is looked at.
    slots = [v for v in optimizer_variables(model) if tuple(v.shape) == (C, D)]
    before = [np.asarray(v).copy() for v in (model.head.kernel, *slots)]
    model.train_on_batch(x, y)
    used = np.isin(np.arange(C), sample_of(y, 1).classes)
    changed = [(np.asarray(v) != old).any(1) for v, old in zip([model.head.kernel, *slots], before, strict=True)]
    np.testing.assert_array_equal(changed[0], used)
    if isinstance(model.optimizer, LazyAdam):
        assert len(slots) == 2
    if isinstance(model.optimizer, LazyAdam) or getattr(model.optimizer, "momentum", 0):
        assert len(slots) >= 1
        np.testing.assert_array_equal(changed[1:], [used] * len(slots))


def optimizer_variables(model):
    variables = model.optimizer.variables
    return variables() if callable(variables) else variables


def test_training_is_the_same_again_and_after_a_reload(tmp_path):
    x, y = images()

    def fresh(seed=7):
        return model_of(ArcFace(C, 0.2, scale=8.0, sampled_classes=S, seed=seed), LazyAdam(0.01))

    model, twin, other = fresh(), fresh(), fresh(seed=8)
    history = [[float(m.train_on_batch(x, y)) for _ in range(3)] for m in (model, twin, other)]
    assert history[0] == history[1]
    assert history[0] != history[2]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.head.sampled_classes == S
    assert again.head.get_config() == model.head.get_config()
    assert int(np.asarray(again.head.draws)) == 3
    for _ in range(3):
        assert float(again.train_on_batch(x, y)) == pytest.approx(float(model.train_on_batch(x, y)), rel=1e-6)
    np.testing.assert_allclose(again.head.kernel, model.head.kernel, rtol=1e-6, atol=1e-7)
    assert isinstance(again.optimizer, LazyAdam)


def test_outside_training_all_classes_count():
    x, y = batch()
    x = x.astype(np.float32)
    whole, head = built(HEADS["arcface"][0]), built(HEADS["arcface"][0], sampled_classes=S)
    np.testing.assert_array_equal(head(x), whole(x))
    np.testing.assert_array_equal(head(x, y), whole(x, y))
    np.testing.assert_array_equal(head.per_anchor(x, y, training=False), whole.per_anchor(x, y, training=False))
    assert int(np.asarray(head.draws)) == 0


def test_a_margin_is_annealed_by_sampled_steps_too():
    head = built(lambda **kw: ASoftmax(C, **kw), sampled_classes=S)
    x, y = batch()
    first = float(head.current_lambda())
    head.per_anchor(x.astype(np.float32), y, training=True)
    assert int(np.asarray(head.step)) == 1
    assert float(head.current_lambda()) < first


@pytest.mark.parametrize("name", ["a-softmax", "sub-centres"])
def test_eager_graph_and_xla_give_the_same(name):
    x, y = batch()
    results = []
    for compiled in ("eager", None, True):
        head = built(HEADS[name][0], sampled_classes=S)

        def step(x, y, head=head):
            return value_and_gradients(head, x, y)

        run = step if compiled == "eager" else tf.function(step, jit_compile=compiled)
        results.append(run(tf.constant(x, tf.float32), tf.constant(y)))
    for values, gradients in results[1:]:
        np.testing.assert_allclose(values, results[0][0], rtol=1e-5)
        for one, other in zip(gradients, results[0][1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_labels_out_of_range():
    x, y = batch()
    x = tf.constant(x, tf.float32)
    head = built(HEADS["cosface"][0], sampled_classes=S)
    compiled = tf.function(lambda x, y: head.per_anchor(x, y, training=True), jit_compile=True)
    for wrong in (C, -1):
        bad = y.copy()
        bad[2] = wrong
        with pytest.raises(ValueError, match=rf"labels contain {wrong}: expected integers from 0 to 59"):
            head.per_anchor(x, bad, training=True)
        np.testing.assert_array_equal(np.isnan(compiled(x, tf.constant(bad))), np.arange(len(y)) == 2)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy):
    half = tf.float16 if policy == "mixed_float16" else tf.bfloat16
    x, y = batch()
    x = tf.cast(x, half)
    head = built(HEADS["arcface"][0], sampled_classes=S, dtype=policy)
    expected = built(HEADS["arcface"][0], sampled_classes=S).per_anchor(tf.cast(x, tf.float32), y, training=True)
    values, gradients = value_and_gradients(head, x, y)
    assert values.dtype == tf.float32
    assert gradients[0].dtype == half
    np.testing.assert_array_equal(values, expected)


def test_an_empty_batch_has_no_loss():
    head = built(HEADS["arcface"][0], sampled_classes=S)
    assert head.per_anchor(tf.zeros([0, D]), tf.zeros([0], tf.int64), training=True).shape == (0,)


def test_a_bad_embedding_is_not_hidden():
    x, y = batch()
    x[3, 1] = np.nan
    head = built(HEADS["arcface"][0], sampled_classes=S)
    assert np.isnan(head.per_anchor(tf.constant(x, tf.float32), y, training=True)[3])


def test_as_a_layer_that_is_trained_on_logits_it_says_what_to_do_instead():
    features, labels = keras.Input((D,)), keras.Input((), dtype="int64")
    model = keras.Model([features, labels], NormalizedSoftmax(C, sampled_classes=S)(features, labels))
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = batch()
    assert model([x.astype(np.float32), y]).shape == (len(y), C)
    with pytest.raises(ValueError, match=r"(?s)sampled_classes=17: in training.*EmbeddingModel\(encoder, head=head\)"):
        model.fit([x, y], y, verbose=0)


@pytest.mark.parametrize("wrong", [1, 0, -3, 2.0, True, "4", C + 1])
def test_a_bad_size_is_refused(wrong):
    with pytest.raises(ValueError, match=r"sampled_classes=.*expected an integer >= 2, at most num_classes=60, or None"):
        ArcFace(C, sampled_classes=wrong)


@pytest.mark.parametrize("wrong", [2**31, 0.5, None])
def test_a_bad_seed_is_refused(wrong):
    with pytest.raises(ValueError, match=r"seed=.*expected an integer of 32 bits"):
        ArcFace(C, sampled_classes=S, seed=wrong)


def test_many_classes_are_learned_from_samples():
    """A tenth of the classes in each step finds the same neighbours as all of them."""
    rng = np.random.default_rng(0)
    classes = 400
    y = np.repeat(np.arange(classes), 12)
    x = (rng.standard_normal((classes, 32))[y] + 0.3 * rng.standard_normal((len(y), 32))).astype(np.float32)
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((32,)), keras.layers.Dense(16)])
    model = tfdml.EmbeddingModel(encoder, head=NormalizedSoftmax(classes, sampled_classes=80))
    model.compile(LazyAdam(1e-3, beta_2=0.99))
    model.fit(x, y, batch_size=40, epochs=4, verbose=0)
    found = tf.argmax(model.head(model(x)), 1).numpy()
    assert np.mean(found == y) > 0.95
