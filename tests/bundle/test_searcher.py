"""Searching with the model alone, beside the index of the same bundle."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from bundle_helpers import ITEMS, SIDE, encoded, gallery_dataset, gallery_images, linked_copy, replace, tiny_model

from tfdml import bundle
from tfdml.bundle import Bundle, BundleError, Embedder, Searcher, deep_search, verify
from tfdml.bundle.graph_search import NO_DISTANCE
from tfdml.bundle.layout import MANIFEST
from tfdml.bundle.manifest import Manifest
from tfdml.bundle.search_fields import field_columns
from tfdml.index import ExactIndex

pytestmark = pytest.mark.one_stack


@pytest.fixture(scope="module", params=["exact", "ivf"])
def both(request, exported, exported_with_lists):
    return exported if request.param == "exact" else exported_with_lists


def test_it_answers_as_an_exact_search_of_the_index_vectors(both):
    searcher, images = Searcher(both.path.parent, batch_size=4), gallery_images()[:9]
    files = [encoded(image) for image in images]
    embeddings = Embedder(both.path).embed(files)
    with Bundle.open(both.path) as opened:
        exact = ExactIndex(opened.index.vectors(), opened.catalogue.ids(), opened.manifest.metric).search(embeddings, k=6)
        expected = opened.hits(exact.ids.tolist(), exact.distances)
    for answers in (
        searcher.search(files, k=6),
        searcher.search_images(images, k=6),
        searcher.search_embeddings(embeddings, k=6),
    ):
        assert answers.ids.tolist() == [[hit.id for hit in row] for row in expected]
        np.testing.assert_allclose(answers.distances, [[hit.distance for hit in row] for row in expected], rtol=1e-3, atol=1e-6)
        assert answers.count.tolist() == [6] * 9
        assert answers.valid.all()
        for name in ("label", "price"):
            assert answers.fields[name].tolist() == [[hit.fields[name] for hit in row] for row in expected]
    distances = searcher.search_embeddings(embeddings, k=6).distances
    np.testing.assert_allclose(distances, exact.distances, rtol=1e-6, atol=1e-12)


def test_every_item_finds_itself(both):
    answers = Searcher(both.path).search([both.data.image_bytes(number) for number in range(ITEMS)], k=1)
    assert answers.ids[:, 0].tolist() == [f"item/{number}" for number in range(ITEMS)]
    assert answers.distances.max() < 1e-6


def test_files_that_cannot_be_decoded_are_told(both):
    searcher, good = Searcher(both.path, batch_size=2), encoded(gallery_images()[4])
    answers = searcher.try_search([good, b"x", b"", good[:50], good], k=[1, 2, 3, 4, 5])
    assert answers.valid.tolist() == [True, False, False, False, True]
    assert answers.count.tolist() == [1, 0, 0, 0, 5]
    assert answers.ids.shape == (5, 5)
    assert answers.ids[[0, 4], 0].tolist() == ["item/4"] * 2
    assert answers.ids[0, 1:].tolist() == [""] * 4
    assert (answers.distances[1:4] == NO_DISTANCE).all()
    assert answers.fields["price"][0].tolist() == [6.0, 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"3 of 5 cannot be read as images, at positions 1, 2, 3"):
        searcher.search([good, b"x", b"", good[:50], good])


def test_nothing_gives_nothing(both):
    searcher = Searcher(both.path)
    assert len(searcher.search([], k=3)) == 0
    assert searcher.search_images(np.zeros([0, SIDE, SIDE, 3], np.uint8), k=[]).ids.shape == (0, 1)
    answers = searcher.search_embeddings(np.zeros([0, 6]), k=3)
    assert answers.valid.shape == (0,)
    assert {name: values.dtype for name, values in answers.fields.items()} == {"label": object, "price": np.float64}


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (0, "expected 1 to 100, the max_k"),
        (101, "expected 1 to 100"),
        ([1, 2], "one for each of the 3 queries"),
        (1.5, "expected a whole number"),
        ([[1, 1, 1]], "expected a whole number"),
    ],
)
def test_numbers_of_neighbours_that_make_no_sense(exported, k, message):
    with pytest.raises(ValueError, match=message):
        Searcher(exported.path).search([encoded(gallery_images()[0])] * 3, k=k)


def test_queries_that_make_no_sense(exported):
    searcher = Searcher(exported.path)
    with pytest.raises(ValueError, match=r"embeddings: shape \(2, 7\); expected \[N, 6\]"):
        searcher.search_embeddings(np.zeros([2, 7]))
    with pytest.raises(TypeError, match="files"):
        searcher.search(b"bytes")
    with pytest.raises(ValueError, match=r"images: uint8 \(1, 5, 5, 3\); expected uint8 \[N, 12, 12, 3\]"):
        searcher.search_images(np.zeros([1, 5, 5, 3], np.uint8))


def as_json(outputs: dict[str, np.ndarray], row: int) -> dict[str, object]:
    """One prediction as TF-Serving writes it; it has no words for NaN, infinity, or bytes that are not UTF-8."""
    plain = {
        name: [value.decode() for value in array[row]] if array.dtype == object else array[row].tolist()
        for name, array in outputs.items()
    }
    return json.loads(json.dumps(plain, allow_nan=False))


def test_an_answer_can_be_json(both):
    search = tf.saved_model.load(str(both.path)).signatures["search"]
    files = tf.constant([encoded(gallery_images()[2]), b"no image"])
    outputs = {name: value.numpy() for name, value in search(image_bytes=files, k=tf.constant([2, 3])).items()}
    assert {len(value) for value in outputs.values()} == {2}, "all outputs share dimension 0"
    good, bad = as_json(outputs, 0), as_json(outputs, 1)
    assert good["ids"][0] == "item/2"
    assert (good["count"], good["valid"], good["label"][0], good["price"][0]) == (2, True, "class-1", 3.0)
    assert bad == {
        "ids": [""] * 3,
        "distances": [NO_DISTANCE] * 3,
        "count": 0,
        "valid": False,
        "label": [""] * 3,
        "price": [0.0] * 3,
    }


def test_the_manifest_says_how_it_searches(exported, exported_with_lists):
    exact, lists = (Manifest.from_bytes((each.path / MANIFEST).read_bytes()) for each in (exported, exported_with_lists))
    assert exact.model.signatures == ("serving_default", "embed_images", "search", "search_images", "search_embedding")
    assert (exact.search.method, exact.search.max_k, exact.search.fields) == ("exact", 100, ("label", "price"))
    assert (exact.search.recall, exact.search.recall_at, exact.search.lists, exact.search.probes) == (1.0, 10, 0, 0)
    assert lists.search.method == "ivf"
    assert 1 <= lists.search.probes <= lists.search.most_probes <= lists.search.lists <= ITEMS
    assert (lists.search.recall, lists.search.most_recall, lists.search.recall_asked) == (1.0, 1.0, 1.0)


def test_a_model_that_only_embeds(tmp_path):
    with bundle.export(tiny_model(), gallery_dataset(), tmp_path, search=None) as published:
        assert published.manifest.search is None
        assert published.manifest.model.signatures == ("serving_default", "embed_images")
        assert len(verify(published.path, deep=True).checks) == 5
    with pytest.raises(BundleError, match=r"no search signatures. Export it with search='auto'"):
        Searcher(tmp_path)


def test_one_item_and_a_small_k(tmp_path):
    data = gallery_dataset(1)
    with bundle.export(tiny_model(), data, tmp_path, max_k=1, search="ivf") as published:
        answers = Searcher(published.path).search([data.image_bytes(0)], k=1)
        assert answers.ids.tolist() == [["item/0"]]


def test_a_recall_that_is_not_reached_publishes_nothing(tmp_path, monkeypatch):
    import tfdml.bundle.search_plan as search_plan

    monkeypatch.setattr(search_plan, "_probes", lambda *rest: (1, 1))
    with pytest.raises(BundleError, match=r"search='ivf': recall=0\.99 is not reached: the graph finds 0\.\d+ of the 10 true"):
        bundle.export(tiny_model(), gallery_dataset(), tmp_path / "to", search="ivf", recall=0.99, max_k=11)
    assert not (tmp_path / "to").exists() or not list((tmp_path / "to").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": "annoy"}, "search='annoy' is not known. Known: 'auto', 'exact', 'ivf'"),
        ({"max_k": 0}, "max_k=0"),
        ({"search_fields": ["colour"]}, "search_fields='colour' is not known. Known: 'label', 'title', 'price'"),
        ({"search_fields": "title"}, r"write \['title'\]"),
        ({"search_fields": ["title", "title"]}, "'title': the search returns something of this name already"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        bundle.export(None, gallery_dataset(), tmp_path / "to", **options)
    assert not (tmp_path / "to").exists()


def test_fields_as_arrays():
    columns = {"title": ["a", None], "stock": [3, True], "price": [1, 2.5], "count": [1, 2], "raw_bytes": ["x", "y"]}
    found = field_columns(columns, ["price", "title", "stock"], ["one", "two"])
    assert {name: (column.dtype, column.tolist()) for name, column in found.items()} == {
        "price": (np.float64, [1.0, 2.5]),
        "title": (object, ["a", ""]),
        "stock": (np.int64, [3, 1]),
    }
    for name, message in {"count": "of this name already", "raw_bytes": "ends in _bytes"}.items():
        with pytest.raises(ValueError, match=message):
            field_columns(columns, [name], ["one", "two"])
    with pytest.raises(ValueError, match=r"search_fields='stock': item 'two' has no value.*Fill it in"):
        field_columns({"stock": [3, None]}, ["stock"], ["one", "two"])


class TestTheDeepCheck:
    """Each lie of a search signature is noticed. The model is the real one; what it answers is changed on the way."""

    @pytest.fixture
    def lying(self, exported, monkeypatch):
        def check(change, search="search_embeddings"):
            original = getattr(deep_search.SignatureRunner, search)
            monkeypatch.setattr(deep_search.SignatureRunner, search, lambda self, *given: change(original(self, *given)))
            verify(exported.path, deep=True)

        return check

    def test_the_truth_is_accepted(self, lying):
        lying(lambda answers: answers)

    def test_other_distances(self, lying):
        with pytest.raises(BundleError, match="other distances than the vectors of the index"):
            lying(lambda answers: dataclasses.replace(answers, distances=answers.distances + np.float32(1e-3)))

    def test_other_items(self, lying):
        with pytest.raises(BundleError, match="other distances than the vectors of the index"):
            lying(lambda answers: dataclasses.replace(answers, ids=answers.ids[:, ::-1]))

    def test_items_that_are_not_there(self, lying):
        with pytest.raises(BundleError, match=r"an item that the catalogue has not: .*item/x"):
            lying(lambda answers: dataclasses.replace(answers, ids=np.full_like(answers.ids, "item/x")))

    def test_too_few(self, lying):
        with pytest.raises(BundleError, match="does not return 10 items for each query"):
            lying(lambda answers: dataclasses.replace(answers, count=answers.count - 1))

    def test_out_of_order(self, lying):
        def change(answers):
            return dataclasses.replace(
                answers,
                ids=answers.ids[:, ::-1],
                distances=answers.distances[:, ::-1],
                fields={name: values[:, ::-1] for name, values in answers.fields.items()},
            )

        with pytest.raises(BundleError, match="out of order"):
            lying(change)

    def test_other_fields(self, lying):
        with pytest.raises(BundleError, match="other values of 'price' than the catalogue"):
            lying(lambda a: dataclasses.replace(a, fields={**a.fields, "price": a.fields["price"] + 1}))

    @pytest.mark.parametrize(("search", "by"), [("search_embeddings", "vector"), ("search_bytes", "image")])
    def test_an_item_that_does_not_find_itself(self, exported, monkeypatch, search, by):
        original = getattr(deep_search.SignatureRunner, search)

        def without_the_first(runner, queries, k):
            answers = original(runner, queries, k + 1)
            return dataclasses.replace(
                answers,
                ids=answers.ids[:, 1:],
                distances=answers.distances[:, 1:],
                fields={name: values[:, 1:] for name, values in answers.fields.items()},
                count=answers.count - 1,
            )

        monkeypatch.setattr(deep_search.SignatureRunner, search, without_the_first)
        with pytest.raises(BundleError, match=rf"does not find item 'item/\d+' by its own {by}"):
            verify(exported.path, deep=True)


def test_fields_that_the_catalogue_has_not_are_refused(exported, tmp_path):
    from tfdml.bundle.layout import CATALOGUE, record_file

    copy = linked_copy(exported.path, tmp_path / "1")
    manifest = Manifest.from_bytes((copy / MANIFEST).read_bytes())
    manifest = dataclasses.replace(manifest, search=dataclasses.replace(manifest.search, fields=("label", "colour")))
    (copy / CATALOGUE).unlink()
    with Bundle.open(exported.path) as opened:
        ids = opened.catalogue.ids()
    bundle.write_catalogue(copy / CATALOGUE, ids, {"label": ids}, {"manifest_identity": manifest.identity()})
    files = {**manifest.files, CATALOGUE: record_file(copy / CATALOGUE)}
    replace(copy / MANIFEST, dataclasses.replace(manifest, files=files).to_bytes())
    with pytest.raises(BundleError, match=r"the search returns the field 'colour', which .*catalogue\.sqlite has not"):
        verify(copy)


def test_signatures_that_return_something_else_are_refused(exported):
    from tfdml.bundle.runner import SignatureRunner

    model = Manifest.from_bytes((exported.path / MANIFEST).read_bytes()).model
    with pytest.raises(BundleError, match=r"'search' has other inputs or outputs than image_bytes, k -> count, .*title"):
        SignatureRunner(exported.path, model, ["label", "price", "title"])
    with pytest.raises(BundleError, match=r"no signature 'search'\. Export it"):
        SignatureRunner(exported.path, model).search_bytes([b""], 1)
