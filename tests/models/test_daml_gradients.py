"""What the two players of DAML learn: gradients and logged terms of the definition, as plain gradient descent shows them."""

from __future__ import annotations

import daml_oracles as oracles
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml.layers import HardNegativeGenerator
from tfdml.losses import TripletLoss
from tfdml.models import DAML
from tfdml.models.daml_terms import draw_triplets


class Linear:
    """An encoder of two dense layers without biases, and a generator with one hidden layer, in NumPy as well."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.x = rng.standard_normal((8, 4)).astype(np.float32)
        self.labels = np.repeat(np.arange(4), 2)
        inputs = keras.Input((4,))
        features = keras.layers.Dense(3, use_bias=False, name="trunk")(inputs)
        self.encoder = keras.Model(inputs, keras.layers.Dense(2, use_bias=False, name="metric")(features))
        self.kernels = [rng.standard_normal((4, 3)), rng.standard_normal((3, 2))]
        self.weights = [rng.standard_normal(shape) * 0.3 for shape in ((9, 6), (6,), (6, 3), (3,))]

    def model(self, **kwargs):
        generator = HardNegativeGenerator(units=(6,), residual=False)
        settings = {"pretrain_steps": 0, "generator_steps": 0, "normalize": False, "feature_distance": "squared"}
        settings |= {"adversarial_weight": 50.0, "regular_weight": 0.5, "metric_weight": 2.0, "margin": 0.2, "positives": 1}
        model = DAML(self.encoder, generator=generator, **{**settings, **kwargs})
        self.encoder.set_weights(self.kernels)
        generator.set_weights(self.weights)
        loss = TripletLoss(1.0, "random", "squared_euclidean")
        model.compile(keras.optimizers.SGD(1.0), loss=loss, generator_optimizer=keras.optimizers.SGD(1.0))
        return model

    def triplets(self, model):
        embeddings = tf.constant(self.x @ self.kernels[0] @ self.kernels[1])
        found = draw_triplets(tf.constant(self.labels), embeddings, 1, 1, model.mining, (model.seed, 0))
        return list(zip(range(8), found.positives.numpy(), found.negatives.numpy()[:, 0], strict=True))

    def players(self, triplets, kernels, weights, made_with=None):
        """(J_gen, 2 J_m); `made_with`: kernels that the features of the synthetic negatives come from, if others."""
        features = self.x.astype(np.float64) @ kernels[0]
        sources = features if made_with is None else self.x.astype(np.float64) @ made_with[0]
        embed = lambda z: z @ kernels[1]  # noqa: E731
        generate = lambda a, p, n: oracles.generate(a, p, n, weights, False)  # noqa: E731
        j_gen = oracles.j_gen(triplets, features, embed, generate, 0.2, 0.5, 50.0)[3]
        rows = [
            (embed(features[a]), embed(features[p]), [embed(generate(sources[a], sources[p], sources[n]))])
            for a, p, n in triplets
        ]
        return j_gen, 2.0 * oracles.j_triplet(rows, 1.0, "squared_euclidean")

    def steps(self, **kwargs):
        """What one training step subtracts from the encoder's and the generator's weights, and the model."""
        model = self.model(**kwargs)
        model.fit(self.x, self.labels, batch_size=8, shuffle=False, verbose=0)
        of_encoder = [old - new for old, new in zip(self.kernels, self.encoder.get_weights(), strict=True)]
        of_generator = [old - new for old, new in zip(self.weights, model.generator.get_weights(), strict=True)]
        return of_encoder, of_generator, model


def expected_steps(setup, model, of_encoder, of_generator):
    """Slopes of `of_encoder(kernels)` and `of_generator(weights)`."""

    def each(f, parts):
        return [oracles.slopes(lambda w, i=i: f([*parts[:i], w, *parts[i + 1 :]]), part) for i, part in enumerate(parts)]

    return each(of_encoder, setup.kernels), each(of_generator, setup.weights)


def assert_steps(setup, found, expected):
    for one, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3 * np.abs(other).max() + 1e-5)


def test_separate_players_each_minimise_their_own():
    setup = Linear()
    *found, model = setup.steps(players="separate")
    triplets = setup.triplets(model)
    expected = expected_steps(
        setup,
        model,
        lambda kernels: setup.players(triplets, kernels, setup.weights)[1],
        lambda weights: setup.players(triplets, setup.kernels, weights)[0],
    )
    assert_steps(setup, found, expected)


def test_constant_synthetic_negatives_teach_the_metric_only():
    setup = Linear()
    *found, model = setup.steps(players="constant")
    triplets = setup.triplets(model)
    expected = expected_steps(
        setup,
        model,
        lambda kernels: setup.players(triplets, kernels, setup.weights, made_with=setup.kernels)[1],
        lambda weights: setup.players(triplets, setup.kernels, weights)[0],
    )
    assert_steps(setup, found, expected)
    with pytest.raises(AssertionError):
        assert_steps(setup, setup.steps(players="separate")[:2], expected)


def test_joint_players_both_minimise_the_sum():
    setup = Linear()
    *found, model = setup.steps(players="joint")
    triplets = setup.triplets(model)
    expected = expected_steps(
        setup,
        model,
        lambda kernels: sum(setup.players(triplets, kernels, setup.weights)),
        lambda weights: sum(setup.players(triplets, setup.kernels, weights)),
    )
    assert_steps(setup, found, expected)


@pytest.mark.parametrize("players", ["separate", "joint"])
@pytest.mark.slow
def test_alone_the_generator_minimises_its_own(players):
    setup = Linear()
    *found, model = setup.steps(generator_steps=1, players=players)
    triplets = setup.triplets(model)
    expected = expected_steps(
        setup, model, lambda kernels: 0.0, lambda weights: setup.players(triplets, setup.kernels, weights)[0]
    )
    assert_steps(setup, found, expected)


def test_the_logs_are_the_terms_of_the_definition():
    setup = Linear()
    model = setup.model(players="separate")
    triplets = setup.triplets(model)
    logs = model.fit(setup.x, setup.labels, batch_size=8, shuffle=False, verbose=0).history
    features = setup.x @ setup.kernels[0]
    generate = lambda a, p, n: oracles.generate(a, p, n, setup.weights, False)  # noqa: E731
    embed = lambda z: z @ setup.kernels[1]  # noqa: E731
    hard, reg, adv, j_gen = oracles.j_gen(triplets, features, embed, generate, 0.2, 0.5, 50.0)
    two_j_m = setup.players(triplets, setup.kernels, setup.weights)[1]
    harder = np.mean(
        [
            oracles.squared(embed(generate(features[a], features[p], features[n])), embed(features[a]))
            < oracles.squared(embed(features[n]), embed(features[a]))
            for a, p, n in triplets
        ]
    )
    expected = {
        "j_hard": hard,
        "j_reg": reg,
        "j_adv": adv,
        "j_m": two_j_m / 2,
        "loss": j_gen + two_j_m,
        "harder_negatives": harder,
    }
    assert set(logs) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name][0], value, rtol=1e-4, atol=1e-5)


def test_weights_of_samples_weigh_anchors():
    setup = Linear()
    weights = np.linspace(0, 2, 8).astype(np.float32)
    model = setup.model()
    logs = model.fit(setup.x, setup.labels, sample_weight=weights, batch_size=8, shuffle=False, verbose=0).history
    embeddings = setup.x @ setup.kernels[0] @ setup.kernels[1]
    features, triplets = setup.x @ setup.kernels[0], setup.triplets(model)
    values = []
    for a, p, n in triplets:
        negative = oracles.generate(features[a], features[p], features[n], setup.weights, False) @ setup.kernels[1]
        values.append(oracles.j_triplet([(embeddings[a], embeddings[p], [negative])], 1.0, "squared_euclidean"))
    np.testing.assert_allclose(logs["j_m"][0], np.mean(values * weights), rtol=1e-4)
    pretraining = setup.model(pretrain_steps=1)
    pretraining.compile("sgd", loss=TripletLoss(1.0, "all"))
    logs = pretraining.fit(setup.x, setup.labels, sample_weight=weights, batch_size=8, shuffle=False, verbose=0).history
    expected = np.mean(pretraining.loss.call(setup.labels, tf.constant(embeddings, tf.float32)) * weights)
    np.testing.assert_allclose(logs["loss"][0], expected, rtol=1e-4)
