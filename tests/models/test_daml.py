"""DAML as a model: who learns when, saving, precision, XLA, exports, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdml
from tfdml.layers import HardNegativeGenerator
from tfdml.losses import ContrastiveLoss, LiftedStructureLoss, NPairLoss, TripletLoss
from tfdml.models import DAML, conv_encoder
from tfdml.models.splitting import split_encoder

SHAPE = (8, 8, 3)
LABELS = np.repeat(np.arange(4), 4)
TERMS = {"j_m", "j_hard", "j_reg", "j_adv", "harder_negatives"}


@pytest.fixture
def images() -> np.ndarray:
    """Four classes, each of its own colour, with noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 200, (4, 1, 1, 3))[LABELS]
    return np.clip(colours + rng.integers(-50, 50, (16, *SHAPE)), 0, 255).astype(np.uint8)


def made(encoder=None, loss=None, rate=3e-3, jit=False, **kwargs) -> DAML:
    keras.utils.set_random_seed(0)
    kwargs = {"pretrain_steps": 2, "generator_steps": 2, "generator": HardNegativeGenerator(units=(8,)), **kwargs}
    model = DAML(encoder or conv_encoder(SHAPE, filters=(8,), dimension=5), **kwargs)
    model.compile(keras.optimizers.Adam(rate), loss=loss or TripletLoss(0.3, "random"), jit_compile=jit)
    return model


def fit(model, images, steps, **kwargs):
    """One step an epoch."""
    return model.fit(images, LABELS, batch_size=16, epochs=steps, shuffle=False, verbose=0, **kwargs).history


def copies(layer):
    return [np.array(w) for w in layer.trainable_weights]


def moved(layer, before):
    return max(np.abs(old - np.asarray(new)).max() for old, new in zip(before, layer.trainable_weights, strict=True))


# Who learns, phase by phase.


def test_each_phase_moves_its_own_player_and_begins_at_its_step(images):
    model = made(pretrain_steps=2, generator_steps=3)
    for step, (phase, encoder, generator) in enumerate(
        [("pretrain", 1, 0)] * 2 + [("generator", 0, 1)] * 3 + [("joint", 1, 1)] * 2
    ):
        assert model.phase == phase, step
        before = copies(model.encoder), copies(model.generator)
        averages = [np.array(w) for w in model.encoder.non_trainable_weights]
        logs = fit(model, images, 1)
        assert (moved(model.encoder, before[0]) > 0) == encoder, step
        assert (moved(model.generator, before[1]) > 0) == generator, step
        # The metric that the generator learns against stands still, moving averages included.
        still = all(np.array_equal(o, n) for o, n in zip(averages, model.encoder.non_trainable_weights, strict=True))
        assert still == (phase == "generator"), step
        assert set(logs) == ({"loss"} if phase == "pretrain" else {"loss", *TERMS})
        assert int(model.step) == step + 1
    assert int(model.optimizer.iterations) == 4
    assert int(model.generator_optimizer.iterations) == 5


@pytest.mark.slow
@pytest.mark.one_stack
def test_phases_change_in_the_middle_of_an_epoch(images):
    model = made(pretrain_steps=3, generator_steps=2)
    data = tf.data.Dataset.from_tensors((images, LABELS)).repeat()
    history = model.fit(data, steps_per_epoch=7, epochs=2, verbose=0).history
    assert model.phase == "joint"
    assert int(model.optimizer.iterations) == 12
    assert int(model.generator_optimizer.iterations) == 11
    assert set(history) == {"loss", *TERMS}


def test_without_the_first_two_phases_it_is_joint_at_once(images):
    model = made(pretrain_steps=0, generator_steps=0)
    assert model.phase == "joint"
    fit(model, images, 1)
    assert int(model.optimizer.iterations) == int(model.generator_optimizer.iterations) == 1


@pytest.mark.slow
def test_steps_per_execution(images):
    model = made(pretrain_steps=4, generator_steps=2)
    model.compile(keras.optimizers.Adam(1e-3), loss=TripletLoss(), steps_per_execution=2)
    data = tf.data.Dataset.from_tensors((images, LABELS)).repeat()
    model.fit(data, steps_per_epoch=8, epochs=1, verbose=0)
    assert int(model.step) == 8
    assert int(model.optimizer.iterations) == 6
    assert int(model.generator_optimizer.iterations) == 4


@pytest.mark.slow
@pytest.mark.one_stack
def test_regularisers_count():
    def model(l2):
        keras.utils.set_random_seed(0)
        layers = [keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(l2)), keras.layers.Dense(2)]
        return made(keras.Sequential(layers), pretrain_steps=1, generator_steps=0)

    x = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    histories = [
        m.fit(x, LABELS, batch_size=16, epochs=2, shuffle=False, verbose=0).history["loss"] for m in map(model, (0.0, 0.5))
    ]
    assert all(heavy > light + 0.1 for light, heavy in zip(*histories, strict=True))


# In practice.


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(TripletLoss(0.3), id="triplet"),
        pytest.param(ContrastiveLoss(0.8), id="contrastive", marks=pytest.mark.one_stack),
        pytest.param(LiftedStructureLoss(1.0), id="lifted", marks=pytest.mark.one_stack),
        pytest.param(NPairLoss(l2=0.01), id="n-pair"),
    ],
)
@pytest.mark.slow
def test_it_learns_over_every_loss(images, loss):
    model = made(loss=loss, rate=1e-2, pretrain_steps=5, generator_steps=5, normalize=not isinstance(loss, NPairLoss))
    before = np.mean(loss.call(LABELS, model(images, training=False)))
    history = fit(model, images, 30)
    assert np.isfinite(history["loss"]).all()
    assert np.mean(loss.call(LABELS, model(images, training=False))) < 0.8 * before


@pytest.mark.slow
@pytest.mark.one_stack
def test_the_generator_learns_to_make_negatives_hard(images):
    model = made(pretrain_steps=0, generator_steps=60, rate=1e-2, regular_weight=1.0)
    history = fit(model, images, 60)
    assert history["loss"][-1] < 0.97 * history["loss"][0]
    assert np.mean(history["harder_negatives"][-10:]) > 0.7
    assert history["j_hard"][-1] < history["j_hard"][0]


@pytest.mark.slow
def test_saved_reloaded_and_going_on(images, tmp_path):
    model = made(pretrain_steps=2, generator_steps=2, metric_from="embedding", players="joint", negatives=3, margin=0.4, seed=5)
    model.compile(keras.optimizers.Adam(1e-3), loss=TripletLoss(0.3), generator_optimizer=keras.optimizers.SGD(1e-2, 0.9))
    for number, steps in enumerate((1, 2, 3)):  # in each of the phases
        fit(model, images, steps)
        path = tmp_path / f"{number}.keras"
        model.save(path)
        again = keras.models.load_model(path)
        assert type(again) is DAML
        plain = [{k: v for k, v in m.get_config().items() if k not in ("encoder", "generator")} for m in (again, model)]
        assert plain[0] == plain[1]
        assert again.generator.get_config() == model.generator.get_config()
        assert again.phase == model.phase == ("pretrain", "generator", "joint")[number]
        assert isinstance(again.generator_optimizer, keras.optimizers.SGD)
        assert len(again.weights) == len(model.weights)
        for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(again(images), model(images), rtol=1e-5, atol=1e-6)
    histories = [fit(m, images, 3) for m in (model, again)]
    for name in histories[0]:
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-4, atol=1e-6)
    assert int(again.step) == int(model.step) == 9


@pytest.mark.slow
def test_weights_of_an_earlier_phase_bring_their_phase_back(images, tmp_path):
    model = made(pretrain_steps=2, generator_steps=1)
    fit(model, images, 1)
    model.save_weights(tmp_path / "early.weights.h5")
    fit(model, images, 5)
    assert model.phase == "joint"
    model.load_weights(tmp_path / "early.weights.h5")
    assert model.phase == "pretrain"
    assert set(fit(model, images, 1)) == {"loss"}


@pytest.mark.slow
def test_compiled_again_for_another_loss(images):
    model = made()
    fit(model, images, 5)
    model.compile("sgd", loss=ContrastiveLoss(0.8))
    assert np.isfinite(fit(model, images, 2)["loss"]).all()
    assert int(model.step) == 7


@pytest.mark.slow
def test_evaluation_is_the_loss_on_real_negatives(images):
    model = made(loss=TripletLoss(0.3))
    fit(model, images, 6)
    logs = model.evaluate(images, LABELS, batch_size=16, return_dict=True, verbose=0)
    assert set(logs) == {"loss"}
    np.testing.assert_allclose(logs["loss"], np.mean(model.loss.call(LABELS, model(images))), rtol=1e-5)
    history = fit(model, images, 1, validation_data=(images, LABELS))
    assert set(history) == {"loss", "val_loss", *TERMS}
    data = tfdml.datasets.Dataset.from_arrays(images, LABELS)
    assert model.evaluate(data)["queries"] == 16
    assert "val_recall_at_1" in fit(model, images, 1, callbacks=[tfdml.evaluation.RetrievalCallback(data, verbose=0)])


@pytest.mark.slow
def test_train_on_batch_and_eagerly(images):
    model = made(pretrain_steps=1, generator_steps=1)
    for _ in range(3):
        assert np.isfinite(model.train_on_batch(images, LABELS, return_dict=True)["loss"])
    assert model.phase == "joint"
    model.compile("sgd", loss=TripletLoss(), run_eagerly=True)
    assert np.isfinite(fit(model, images, 1)["loss"]).all()


@pytest.mark.slow
def test_fit_with_xla_gives_the_same(images):
    histories = [fit(made(jit=jit, loss=LiftedStructureLoss(1.0)), images, 6) for jit in (False, True)]
    for name in {"loss", *TERMS} - {"harder_negatives"}:  # which rounding decides while the synthetic negative is the real one
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.one_stack)])
@pytest.mark.slow
def test_fit_in_mixed_precision(images, policy, tmp_path):
    before = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else "float32"
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = made(rate=1e-2, pretrain_steps=3, generator_steps=10)
        parts = copies(model.encoder), copies(model.generator)
        history = fit(model, images, 30)
        model.save(tmp_path / "model.keras")
        again = fit(keras.models.load_model(tmp_path / "model.keras"), images, 1)
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(again["loss"]).all()
    assert moved(model.encoder, parts[0]) > 0
    assert moved(model.generator, parts[1]) > 0
    assert hasattr(model.generator_optimizer, "inner_optimizer") == (policy == "mixed_float16")
    assert model(images).dtype == tf.float32
    assert np.mean(history["harder_negatives"][-5:]) > 0.5


def test_a_feature_that_is_not_a_number_is_not_hidden(images):
    model = made(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]), pretrain_steps=0)
    x = np.ones((16, 4), np.float32)
    x[3] = np.nan
    logs = model.fit(x, LABELS, batch_size=16, verbose=0).history
    assert all(np.isnan(logs[name][0]) for name in ("loss", "j_m", "j_hard", "j_reg", "j_adv"))


@pytest.mark.parametrize("labels", [np.zeros(16, int), np.arange(16)], ids=["one class", "all different"])
@pytest.mark.slow
@pytest.mark.one_stack
def test_batches_without_triplets_teach_nothing(images, labels):
    model = made(pretrain_steps=0, generator_steps=0)
    before = copies(model.encoder), copies(model.generator)
    logs = model.fit(images, labels, batch_size=16, epochs=2, verbose=0).history
    assert logs["loss"] == [0.0, 0.0]
    assert moved(model.encoder, before[0]) == moved(model.generator, before[1]) == 0


@pytest.mark.slow
def test_the_export_holds_nothing_of_the_generator(images, tmp_path):
    model = made(generator=HardNegativeGenerator(units=(1000,)))
    fit(model, images, 5)
    data = tfdml.datasets.Dataset.from_arrays(images, LABELS)
    bundle = model.export(tmp_path / "bundle", gallery=data, thumbnails=0)
    model.export(str(tmp_path / "saved"))
    alone = model.without_generator()
    alone.save(tmp_path / "alone.keras")
    for folder in (bundle.path, tmp_path / "saved"):
        shapes = dict(tf.train.list_variables(str(folder / "variables" / "variables")))
        assert any(np.prod(shape) > 1 for shape in shapes.values())
        assert not any(1000 in shape for shape in shapes.values())
    assert type(keras.models.load_model(tmp_path / "alone.keras")) is tfdml.EmbeddingModel
    assert alone.encoder is model.encoder
    np.testing.assert_array_equal(alone.embed(images), model.embed(images))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(tf.constant(images, tf.float32)), model(images), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bundle.search(model.embed(images[:1]), k=1)[0][0].distance, 0, atol=1e-3)


# Bad input.


def test_arguments_are_checked():
    encoder = conv_encoder(SHAPE, filters=(8,), dimension=5)
    for wrong, message in [
        ({"players": "both"}, "players='both' is not known. Known: 'separate', 'constant', 'joint'"),
        ({"mining": "easy"}, "mining='easy' is not known"),
        ({"pretrain_steps": -1}, "pretrain_steps=-1: expected an integer >= 0"),
        ({"generator_steps": 2.5}, "generator_steps=2.5"),
        ({"positives": 0}, "positives=0"),
        ({"negatives": 0}, "negatives=0"),
        ({"seed": "a"}, "seed='a': expected an integer"),
        ({"regular_weight": -1}, "regular_weight=-1"),
        ({"generator": "mlp"}, r"generator='mlp': expected a tfdml.layers.HardNegativeGenerator"),
        ({"metric_from": "dense"}, r"metric_from='dense' is not a layer.*'embedding'"),
    ]:
        with pytest.raises(ValueError, match=message):
            DAML(encoder, **wrong)
    with pytest.raises(ValueError, match="loss=None: expected the loss that DAML stands on"):
        DAML(encoder).compile("adam")


def test_labels_are_needed(images):
    with pytest.raises(ValueError, match="DAML needs labels"):
        made().fit(images, verbose=0)


def test_several_labels_for_an_item_are_refused_at_the_first_step(images):
    with pytest.raises(ValueError, match=r"labels have shape .*4.*: DAML draws triplets of classes"):
        made().fit(images, LABELS[:, None] == np.arange(4), verbose=0)


def test_encoders_are_cut_where_they_can_be():
    inputs = keras.Input(SHAPE)
    maps = keras.layers.Conv2D(4, 3, name="maps")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    hidden = keras.layers.Dense(6, "relu", name="hidden")(pooled)
    encoder = keras.Model(inputs, keras.layers.Dense(5, name="embedding")(hidden))
    assert [split_encoder(encoder, name).width for name in (None, "embedding", "hidden")] == [6, 6, 4]
    split = split_encoder(encoder, "hidden")
    x = np.random.default_rng(0).random((3, *SHAPE)).astype(np.float32)
    features, embeddings = split.both(x)
    np.testing.assert_allclose(embeddings, encoder(x), rtol=1e-5)
    np.testing.assert_allclose(split.metric(features), embeddings, rtol=1e-5)
    with pytest.raises(ValueError, match=r"metric_from='maps': the layer's input is \(None, 8, 8, 3\).*'hidden'"):
        split_encoder(encoder, "maps")
    past = keras.Model(inputs, keras.layers.Concatenate()([keras.layers.Dense(5, name="side")(pooled), pooled]))
    assert split_encoder(past, "side").width == 4  # the same features go both ways
    past = keras.Model(inputs, keras.layers.Concatenate()([keras.layers.Dense(5, name="top")(hidden), pooled]))
    with pytest.raises(ValueError, match="metric_from='top': not all of the encoder goes through"):
        split_encoder(past, "top")
    with pytest.raises(ValueError, match="has no weights"):
        split_encoder(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)))
    backbone = keras.Model(inputs, pooled)
    assert split_encoder(keras.Sequential([backbone, keras.layers.Dense(3)])).width == 4

    class Written(keras.Model):
        pass

    with pytest.raises(ValueError, match="not made of layers that can be taken apart"):
        split_encoder(Written())
