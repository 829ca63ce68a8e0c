"""Joint Bayesian against the Gaussians that it is made of, and on vectors drawn from its own model."""

from __future__ import annotations

import zipfile

import evaluation_oracles as oracles
import numpy as np
import pytest

from tfdml.evaluation import JointBayesian, verification

pytestmark = pytest.mark.one_stack


def covariance(dimension, seed, scale=1.0):
    a = np.random.default_rng(seed).normal(size=(dimension, dimension))
    return scale * (a @ a.T / dimension + 0.2 * np.eye(dimension))


def draw(between, within, sizes, seed=0, mean=0.0):
    random = np.random.default_rng(seed)
    dimension = len(between)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    classes = random.multivariate_normal(np.zeros(dimension), between, len(sizes))
    return mean + classes[labels] + random.multivariate_normal(np.zeros(dimension), within, len(labels)), labels


UNEVEN = np.array([1] * 30 + [2] * 40 + [3] * 20 + [7] * 10 + [60, 150])


@pytest.fixture(scope="module")
def fitted():
    x, labels = draw(covariance(5, 1, 2.0), covariance(5, 2), UNEVEN, mean=3.0)
    return JointBayesian(iterations=300, tolerance=0).fit(x, labels), x.astype(np.float32).astype(np.float64), labels


def test_scores_are_the_log_likelihood_ratios(fitted) -> None:
    model, x, _ = fitted
    centred = x - x.mean(0)
    expected = [
        [oracles.joint_bayesian_score(u, v, model.between, model.within) for v in centred[100:110]] for u in centred[:10]
    ]
    np.testing.assert_allclose(model.pairwise(x[:10], x[100:110]), expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.score(x[:10], x[100:110]), np.diag(expected), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.pairwise(x[:10]), model.pairwise(x[:10]).T, atol=1e-12)


def test_the_likelihood_is_that_of_the_definition_and_never_falls(fitted) -> None:
    model, x, labels = fitted
    rises = np.diff(model.log_likelihoods)
    assert len(rises) > 30
    assert rises.min() > -1e-11
    assert rises[0] > 1e-4
    # Between the first and the last step the constant of the whitening drops out.
    first = JointBayesian(iterations=1).fit(x, labels)
    again = JointBayesian(iterations=2, tolerance=0).fit(x, labels)
    after_one = oracles.joint_bayesian_log_likelihood(x - x.mean(0), labels, first.between, first.within)
    at_the_end = oracles.joint_bayesian_log_likelihood(x - x.mean(0), labels, model.between, model.within)
    assert (at_the_end - after_one) / len(x) == pytest.approx(model.log_likelihoods[-1] - again.log_likelihoods[1], abs=1e-8)


def test_no_covariances_are_likelier(fitted) -> None:
    model, x, labels = fitted
    centred = x - x.mean(0)
    best = oracles.joint_bayesian_log_likelihood(centred, labels, model.between, model.within)
    random = np.random.default_rng(0)
    for _ in range(20):
        change = 0.03 * random.normal(size=(5, 5))
        change = (change + change.T) / 2
        between, within = model.between + change * random.integers(0, 2), model.within + change
        assert oracles.joint_bayesian_log_likelihood(centred, labels, between, within) < best


def test_recovers_the_model_that_vectors_were_drawn_from() -> None:
    between, within = covariance(4, 5, 1.5), covariance(4, 6)
    x, labels = draw(between, within, np.random.default_rng(0).integers(1, 9, 4000))
    model = JointBayesian(iterations=500, tolerance=1e-9).fit(x, labels)
    assert np.abs(model.within - within).max() < 0.05
    assert np.abs(model.between - between).max() < 0.15
    # Where all is known, nothing beats the likelihood ratio.
    left, right = x[:-1:2], x[1::2]
    expected = [oracles.joint_bayesian_score(u, v, between, within) for u, v in zip(left[:50], right[:50], strict=True)]
    np.testing.assert_allclose(model.score(left[:50], right[:50]), expected, atol=0.8)


def test_beats_distances_where_directions_differ() -> None:
    # Much noise in one direction, which tells nothing of the class.
    between, within = np.diag([1.0, 1.0, 0.01, 0.01]), np.diag([0.3, 0.3, 30.0, 4.0])
    x, labels = draw(between, within, [6] * 200)
    seen, unseen = labels < 100, labels >= 100
    model = JointBayesian().fit(x[seen], labels[seen])
    by_distance = verification(x[unseen], labels[unseen], metric="euclidean")
    by_score = verification(x[unseen], labels[unseen], metric=model)
    assert by_score.auc > by_distance.auc + 0.2
    assert by_score.metric == "JointBayesian"
    # The ratio is one: at 0 both are equally likely.
    assert by_score.eer_threshold == pytest.approx(0, abs=1.0)


def test_invariant_to_any_linear_map(fitted) -> None:
    model, x, labels = fitted
    mapped = JointBayesian(iterations=300, tolerance=0).fit(x @ np.random.default_rng(3).normal(size=(5, 5)) + 7, labels)
    np.testing.assert_allclose(mapped.log_likelihoods[:50], model.log_likelihoods[:50], atol=1e-5)


def test_principal_components_come_first() -> None:
    random = np.random.default_rng(0)
    x, labels = draw(covariance(3, 1), covariance(3, 2), [5] * 60)
    wide = x @ np.linalg.qr(random.normal(size=(8, 3)))[0].T  # three directions of eight, the others empty
    for components in (None, 3):
        model = JointBayesian(components).fit(wide, labels)
        assert repr(model) == f"JointBayesian(components={components}, 8 -> 3 dimensions)"
        np.testing.assert_allclose(model.pairwise(wide[:9]), JointBayesian().fit(x, labels).pairwise(x[:9]), atol=0.02)
    spread = np.concatenate([x, 1e-3 * random.normal(size=(300, 5))], axis=1)
    kept = JointBayesian(3).fit(spread, labels)
    np.testing.assert_allclose(kept.pairwise(spread[:9]), JointBayesian().fit(x, labels).pairwise(x[:9]), atol=0.05)


def test_a_dead_unit_and_very_large_numbers_do_no_harm() -> None:
    x, labels = draw(covariance(4, 1), covariance(4, 2), UNEVEN)
    expected = JointBayesian().fit(x, labels).pairwise(x[:5])
    dead = np.concatenate([x, np.zeros((len(x), 2))], axis=1)
    np.testing.assert_allclose(JointBayesian().fit(dead, labels).pairwise(dead[:5]), expected)
    huge = JointBayesian().fit(1e12 * x, labels)
    np.testing.assert_allclose(huge.pairwise(1e12 * x[:5]), expected, rtol=1e-3, atol=1e-3)


def test_saved_and_loaded_without_a_pickle(tmp_path, fitted) -> None:
    model, x, _ = fitted
    model.save(tmp_path / "faces")
    loaded = JointBayesian.load(tmp_path / "faces.npz")
    np.testing.assert_array_equal(loaded.pairwise(x[:7], x[7:12]), model.pairwise(x[:7], x[7:12]))
    assert loaded.components == 5
    with np.load(tmp_path / "faces.npz", allow_pickle=False) as file:
        kinds = {name: file[name].dtype.kind for name in file.files}
    assert kinds == {"format": "i", "mean": "f", "transform": "f", "ratio": "f"}


def test_files_that_are_none(tmp_path, fitted) -> None:
    model, _, _ = fitted
    path = tmp_path / "a.npz"
    model.save(path)
    with np.load(path) as file:
        good = {name: file[name] for name in file.files}
    for change in ({"format": 2}, {"ratio": good["ratio"][1:]}, {"mean": good["mean"] * np.nan}, {"ratio": -good["ratio"]}):
        np.savez(path, **{**good, **change})
        with pytest.raises(ValueError, match="expected format 1 with finite numbers"):
            JointBayesian.load(path)
    np.savez(path, mean=good["mean"])
    with pytest.raises(ValueError, match=r"not a JointBayesian that save\(\) wrote"):
        JointBayesian.load(path)
    np.savez(path, **{**good, "mean": np.array([object()])}, allow_pickle=True)
    with pytest.raises(ValueError, match="not a JointBayesian"):
        JointBayesian.load(path)
    model.save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises((ValueError, zipfile.BadZipFile), match="not a JointBayesian"):
        JointBayesian.load(path)
    with pytest.raises(FileNotFoundError):
        JointBayesian.load(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"components": 0}, "components=0"),
        ({"components": 2.0}, "components=2.0"),
        ({"iterations": 0}, "iterations=0"),
        ({"tolerance": -1}, "tolerance=-1"),
    ],
)
def test_bad_arguments(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        JointBayesian(**arguments)


@pytest.mark.parametrize(
    ("components", "features", "labels", "message"),
    [
        (None, np.full((4, 2), np.nan), [0, 0, 1, 1], "features: NaN or infinity"),
        (None, np.eye(4), [0, 0, 0, 0], "labels: 1 classes"),
        (None, np.eye(4), [0, 1, 2, 3], "the largest of 1 vectors"),
        (None, np.ones((4, 3)), [0, 0, 1, 1], "all vectors are equal"),
        (3, np.random.default_rng(0).normal(size=(4, 3)), [0, 0, 1, 1], "tell 2 directions apart"),
        (4, np.random.default_rng(0).normal(size=(9, 3)), [0, 0, 0, 1, 1, 1, 2, 2, 2], "tell 3 directions apart"),
        (None, np.eye(3)[[0, 0, 0, 1, 1, 1, 2, 2, 2]], [0, 0, 0, 1, 1, 1, 2, 2, 2], "do not differ at all"),
        (None, np.eye(4), [0, 0, 1], "labels: expected 4 labels"),
    ],
)
def test_features_that_tell_nothing(components, features, labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        JointBayesian(components).fit(features, labels)


def test_misuse(fitted) -> None:
    model, x, _ = fitted
    with pytest.raises(ValueError, match="not fitted yet"):
        JointBayesian().score(x, x)
    with pytest.raises(ValueError, match="dimension 4, but it was fitted to vectors of 5"):
        model.pairwise(x[:, :4])
    with pytest.raises(ValueError, match="right: 3 vectors, but left has 2"):
        model.score(x[:2], x[:3])
