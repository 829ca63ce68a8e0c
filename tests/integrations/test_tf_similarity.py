"""tfdml's losses and indexes in TF Similarity's SimilarityModel. On the TF 2.15 stack."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdml import losses
from tfdml.index import IndexFormatError
from tfdml.integrations import AnnoySearch, ExactSearch

BACKENDS = {"annoy": AnnoySearch, "exact": ExactSearch}


@pytest.fixture
def similarity():
    if not tf.__version__.startswith("2.15"):
        pytest.skip("TF Similarity works on TF 2.15 only")
    return pytest.importorskip("tensorflow_similarity", exc_type=ImportError)


@pytest.fixture(params=BACKENDS)
def backend(request, similarity):
    return BACKENDS[request.param]


def classes_in_a_plane(count=60, classes=6, seed=0):
    """Items of each class around a point of their own, and noise in two more directions."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    angle = 2 * np.pi * y / classes
    x = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.3 * rng.normal(size=(count, 2))
    return np.concatenate([x, rng.normal(size=(count, 2))], 1).astype(np.float32), y


def make_model(similarity, units=3, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    outputs = similarity.layers.MetricEmbedding(units)(inputs)
    model = similarity.models.SimilarityModel(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.05), **options)
    return model


def exact_neighbours(gallery, queries, distance, k):
    if distance == "cosine":
        unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, gallery)]
        matrix = 1.0 - unit[0] @ unit[1].T
    else:
        matrix = np.linalg.norm(queries[:, None] - gallery[None], axis=2) ** (2 if distance == "squared_euclidean" else 1)
    order = np.argsort(matrix, 1)[:, :k]
    return order, np.take_along_axis(matrix, order, 1)


# -- losses -------------------------------------------------------------------------------------------------------------------

WITH_A_DISTANCE = [
    losses.TripletLoss(0.2, "hard", "cosine"),
    losses.TripletLoss(0.2, "semi_hard", "squared_euclidean"),
    losses.ContrastiveLoss(0.5),
    losses.LiftedStructureLoss(1.0),
]
WITHOUT = [losses.MultiSimilarityLoss(), losses.CircleLoss(), losses.NTXentLoss(), losses.MarginLoss(), losses.NPairLoss()]


@pytest.mark.parametrize("loss", WITH_A_DISTANCE, ids=lambda loss: f"{loss.name}-{loss.distance}")
def test_a_loss_tells_the_model_its_distance(similarity, loss):
    model = make_model(similarity, loss=loss)
    assert model._index.distance.name == loss.distance


SLOW = [pytest.param(loss, marks=pytest.mark.slow) for loss in WITHOUT[1:]]


@pytest.mark.parametrize("loss", [WITH_A_DISTANCE[0], WITHOUT[0], *SLOW], ids=lambda loss: loss.name)
def test_training_lowers_the_loss_and_finds_the_classes(similarity, loss):
    x, y = classes_in_a_plane()
    model = make_model(similarity, loss=loss, distance="cosine", search=ExactSearch("cosine", 3))
    history = model.fit(x, y, batch_size=60, epochs=12, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    model.index(x, y, verbose=0)
    queries, truth = classes_in_a_plane(seed=1)
    found = [[hit.label for hit in hits] for hits in model.lookup(queries, k=1, verbose=0)]
    assert np.mean(np.ravel(found) == truth) > 0.5


def test_a_training_step_is_that_of_a_plain_model(similarity):
    x, y = classes_in_a_plane()
    loss = losses.TripletLoss(0.2, "hard", "cosine")
    model = make_model(similarity, loss=loss)
    plain = keras.Model(model.inputs, model.outputs)
    expected = loss(y, plain(x)).numpy()
    np.testing.assert_allclose(model.evaluate(x, y, batch_size=60, verbose=0), expected, rtol=1e-5)


# -- the whole way ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "distance"),
    [
        (AnnoySearch, "cosine"),
        (ExactSearch, "squared_euclidean"),
        pytest.param(AnnoySearch, "euclidean", marks=pytest.mark.slow),
        pytest.param(AnnoySearch, "squared_euclidean", marks=pytest.mark.slow),
        pytest.param(ExactSearch, "cosine", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "canonical_name", value),
)
def test_train_index_look_up_calibrate_save_and_load(similarity, backend, distance, tmp_path):
    x, y = classes_in_a_plane()
    model = make_model(similarity, loss=losses.TripletLoss(0.2, "semi_hard", distance), search=backend(distance, 3))
    model.fit(x, y, batch_size=60, epochs=3, verbose=0)
    model.index(x[:40], y[:40], data=x[:40], verbose=0)
    model.index_single(x[40], int(y[40]), data=x[40], verbose=0)
    assert model.index_size() == 41

    embeddings = model.predict(x, verbose=0)
    order, distances = exact_neighbours(embeddings[:41], embeddings[41:], distance, 3)
    hits = model.lookup(x[41:], k=3, verbose=0)
    np.testing.assert_allclose([[hit.distance for hit in row] for row in hits], distances, atol=1e-5)
    assert [[hit.label for hit in row] for row in hits] == y[order].tolist()
    assert [hit.label for hit in model.single_lookup(x[41], k=3)] == y[order[0]].tolist()
    np.testing.assert_array_equal(hits[0][0].data, x[order[0, 0]])

    calibration = model.calibrate(x[41:], y[41:], verbose=0)
    matched = model.match(x[41:], verbose=0)
    assert calibration.cutpoints["optimal"]["distance"] > 0

    model.save(str(tmp_path / "model"))
    again = keras.models.load_model(str(tmp_path / "model"))
    again.load_index(str(tmp_path / "model"))
    assert type(again._index.search) is backend
    same = again.lookup(x[41:], k=3, verbose=0)
    assert [[(hit.label, hit.distance) for hit in row] for row in same] == [[(h.label, h.distance) for h in r] for r in hits]
    assert again.match(x[41:], verbose=0) == matched

    # What was loaded can grow.
    again.index(x[41:], y[41:], verbose=0)
    nearest = [row[0].distance for row in again.lookup(x[41:], k=1, verbose=0)]
    np.testing.assert_allclose(nearest, np.zeros(19), atol=1e-5)
    again.reset_index()
    assert again.index_size() == len(again._index.search) == 0


def test_evaluation_of_retrieval(similarity, backend):
    x, y = classes_in_a_plane()
    model = make_model(similarity, loss=losses.TripletLoss(distance="cosine"), search=backend("cosine", 3))
    model.fit(x, y, batch_size=60, epochs=12, verbose=0)
    model.index(x, y, verbose=0)
    metrics = [similarity.retrieval_metrics.RecallAtK(k=1, drop_closest_lookup=True)]
    ours = model.evaluate_retrieval(x, y, metrics, verbose=0)
    embeddings = model.predict(x, verbose=0)
    matrix = embeddings @ embeddings.T - 9.0 * np.eye(60)
    np.testing.assert_allclose(ours["recall@1"], np.mean(y[matrix.argmax(1)] == y), atol=1e-6)


def test_an_index_without_items_is_saved_and_loaded(similarity, backend, tmp_path):
    model = make_model(similarity, loss=losses.TripletLoss(distance="cosine"), search=backend("cosine", 3))
    model.save(str(tmp_path / "model"))
    again = keras.models.load_model(str(tmp_path / "model"))
    again.load_index(str(tmp_path / "model"))
    assert again.index_size() == 0
    assert again._index.search.lookup(np.ones(3), k=4) == ([], [])


@pytest.mark.slow
def test_another_process_loads_the_index(similarity, tmp_path):
    x, y = classes_in_a_plane()
    model = make_model(similarity, loss=losses.TripletLoss(distance="cosine"), search=AnnoySearch("cosine", 3))
    model.index(x, y, verbose=0)
    expected = model.lookup(x[:1], k=2, verbose=0)[0]
    model.save(str(tmp_path / "model"))
    np.save(tmp_path / "x.npy", x[:1])
    script = (
        "import sys, numpy as np, keras, tensorflow_similarity, tfdml\n"
        "tfdml.losses, tfdml.integrations.AnnoySearch\n"
        "model = keras.models.load_model(sys.argv[1] + '/model')\n"
        "model.load_index(sys.argv[1] + '/model')\n"
        "print('found', [hit.label for hit in model.lookup(np.load(sys.argv[1] + '/x.npy'), k=2, verbose=0)[0]])\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert f"found {[hit.label for hit in expected]}" in run.stdout, run.stderr[-2000:]


# -- a search by itself -------------------------------------------------------------------------------------------------------


def test_settings_survive_the_pattern(similarity):
    from tensorflow_similarity.search import make_search

    search = AnnoySearch("sql2", 4, trees=12, recall=0.8, seed=3, search_k=50, verbose=1, name="mine")
    again = make_search(search.get_config())
    assert isinstance(again, AnnoySearch)
    assert again.get_config() == search.get_config()
    assert again.get_config()["distance"] == "squared_euclidean"


def test_trees_are_built_once_for_many_additions(similarity, monkeypatch):
    built = []
    build = AnnoySearch._build
    monkeypatch.setattr(AnnoySearch, "_build", lambda self, rows, ids: built.append(len(rows)) or build(self, rows, ids))
    search = AnnoySearch("euclidean", 2)
    rows = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    search.batch_add(rows[:10], range(10), verbose=0)
    for number in range(10, 30):
        search.add(rows[number], number, verbose=0)
    assert built == []
    assert search.lookup(rows[20], k=1)[0] == [20]
    search.batch_lookup(rows, k=2)
    assert built == [30]


def test_fewer_items_than_asked_for(backend):
    search = backend("euclidean", 2)
    search.batch_add([[0.0, 0.0], [3.0, 4.0]], [7, 5], verbose=0)
    assert search.lookup([0.0, 0.0], k=5) == ([7, 5], [0.0, 5.0])


def test_the_numbers_of_items_are_kept(backend, tmp_path):
    search = backend("euclidean", 1)
    search.batch_add([[0.0], [1.0], [2.0]], [30, 10, 20], verbose=0)
    search.save(str(tmp_path))
    again = backend("euclidean", 1)
    again.load(str(tmp_path))
    assert again.batch_lookup([[0.9], [2.1]], k=2)[0] == [[10, 30], [20, 10]]
    with pytest.raises(ValueError, match="20 is already the number"):
        again.add([5.0], 20)


def test_bad_items(backend):
    search = backend("cosine", 2)
    with pytest.raises(ValueError, match=r"shape \(1, 3\).*expected \[1, 2\].*dim=3"):
        search.add([1.0, 2.0, 3.0], 0)
    with pytest.raises(ValueError, match="zero vector in row 1"):
        search.batch_add([[1.0, 0.0], [0.0, 0.0]], [0, 1])
    with pytest.raises(ValueError, match="NaN"):
        search.add([np.nan, 1.0], 0)
    with pytest.raises(ValueError, match="3 is already the number"):
        search.batch_add([[1.0, 0.0], [0.0, 1.0]], [3, 3])
    assert len(search) == 0


def test_distances_that_no_index_has(backend):
    with pytest.raises(ValueError, match=r"distance='manhattan'.*'cosine', 'euclidean'.*nmslib"):
        backend("l1", 4)


@pytest.mark.parametrize(("key", "value"), [("distance", "cosine"), ("dim", 4), ("backend", "NMSLibSearch")])
def test_the_folder_of_another_search_is_refused(backend, tmp_path, key, value):
    search = backend("euclidean", 2)
    search.batch_add([[0.0, 0.0], [3.0, 4.0]], [0, 1], verbose=0)
    search.save(str(tmp_path))
    record = tmp_path / "search_index.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), key: value}))
    with pytest.raises(IndexFormatError, match=key):
        backend("euclidean", 2).load(str(tmp_path))


def test_damaged_files_are_refused(backend, tmp_path):
    search = backend("euclidean", 2)
    search.batch_add([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]], [0, 1, 2], verbose=0)
    search.save(str(tmp_path))
    data = next(path for path in tmp_path.iterdir() if path.suffix != ".json")
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(IndexFormatError):
        backend("euclidean", 2).load(str(tmp_path))
    (tmp_path / "search_index.json").write_text('{"backend": ')
    with pytest.raises(IndexFormatError, match=r"search_index\.json: not a record of a search, or damaged"):
        backend("euclidean", 2).load(str(tmp_path))


# -- without TF Similarity ----------------------------------------------------------------------------------------------------


def test_without_tf_similarity_the_error_says_what_to_install():
    script = (
        "import sys\n"
        "sys.modules['tensorflow_similarity'] = None\n"
        "import tfdml.integrations\n"
        "assert 'tensorflow' not in sys.modules\n"
        "tfdml.integrations.AnnoySearch('cosine', 8)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "ImportError: TF Similarity is not installed" in run.stderr
    assert "TensorFlow 2.15 and Python 3.11" in run.stderr
    assert "pip install 'tfdml[keras2]'" in run.stderr


def test_an_unknown_name():
    import tfdml.integrations

    with pytest.raises(AttributeError, match="no attribute 'FaissSearch'"):
        _ = tfdml.integrations.FaissSearch
    assert {"AnnoySearch", "ExactSearch", "DistanceContrastiveLoss"} <= set(dir(tfdml.integrations))
