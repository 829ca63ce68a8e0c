"""The client of TF-Serving alone: what it sends for each signature, and how it reads TF-Serving's answers."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from bundle_helpers import encoded, gallery_images
from client_runs import BOTH
from misbehaving import Misbehaving, answers, cuts
from model_servers import KINDS, Address, model_server
from tfdml_serving.client import BadRequest, Embedded, Found, Hit, ModelVersion, NotFound, Retry, Unavailable, UnexpectedAnswer

NO_DISTANCE = 3.4028234663852886e38
ROWS = [
    {"ids": ["a", "b"], "distances": [0.5, 1], "label": ["mug", ""], "price": [2, 3.5], "count": 2, "valid": True},
    {"ids": ["", ""], "distances": [NO_DISTANCE] * 2, "label": ["", ""], "price": [0, 0], "count": 0, "valid": False},
    {"ids": ["b", ""], "distances": [0.25, NO_DISTANCE], "label": ["", ""], "price": [3.5, 0], "count": 1, "valid": True},
]
B = Hit("b", 1.0, {"label": "", "price": 3.5})
FOUND = [
    Found(True, (Hit("a", 0.5, {"label": "mug", "price": 2}), B)),
    Found(False, ()),
    Found(True, (Hit("b", 0.25, {"label": "", "price": 3.5}),)),
]


@pytest.fixture(params=BOTH, ids=["blocking", "awaiting"])
def ask(request):
    def run(server, method, *args, **options):
        retry = Retry(attempts=3, first=0.001)
        where = (server.rest if isinstance(server, Address) else server.url, "products")
        return request.param.call(request.param.tf_serving, *where, method=method, args=args, retry=retry, **options)

    return run


def test_images_are_searched_row_by_row_each_with_its_k(ask):
    with Misbehaving(answers(200, {"predictions": ROWS})) as server:
        assert ask(server, "search", [b"one", b"two", b"three"], [2, 1, 1]) == FOUND
    [request] = server.requests
    assert request.target == "/v1/models/products:predict"
    files = [base64.b64encode(data).decode() for data in (b"one", b"two", b"three")]
    assert request.json == {
        "signature_name": "search",
        "instances": [{"image_bytes": {"b64": file}, "k": k} for file, k in zip(files, [2, 1, 1], strict=True)],
    }


def test_arrays_and_embeddings(ask):
    pixels = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    with Misbehaving(answers(200, {"predictions": ROWS[:2]})) as server:
        for images in (pixels, list(pixels), pixels.tolist()):
            assert ask(server, "search_images", images, 2) == FOUND[:2]
        assert ask(server, "search_embedding", np.float32([[0.5, 1], [2, 3]]), 2) == FOUND[:2]
    sent = [request.json for request in server.requests]
    assert sent[0] == sent[1] == sent[2]
    assert [row["images"] for row in sent[0]["instances"]] == pixels.tolist()
    assert sent[3] == {
        "signature_name": "search_embedding",
        "instances": [{"embedding": [0.5, 1.0], "k": 2}, {"embedding": [2.0, 3.0], "k": 2}],
    }


def test_embedding(ask):
    rows = [{"embedding": [0.5, 1], "valid": True}, {"embedding": [0, 0], "valid": False}]
    with Misbehaving(answers(200, {"predictions": rows})) as server:
        assert ask(server, "embed", [b"one", b"two"]) == [Embedded(True, (0.5, 1.0)), Embedded(False, (0.0, 0.0))]
        ask(server, "embed_images", np.zeros([2, 1, 1, 3], np.uint8))
    assert [request.json["signature_name"] for request in server.requests] == ["serving_default", "embed_images"]


@pytest.mark.parametrize(
    ("which", "path"), [({"version": 3}, "/versions/3"), ({"label": "stable/x"}, "/labels/stable%2Fx"), ({}, "")]
)
def test_a_version_or_a_label_can_be_named(ask, which, path):
    status = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    lost = {"version": "2", "state": "END", "status": {"error_code": "NOT_FOUND", "error_message": "no variables"}}
    with Misbehaving(answers(200, {"model_version_status": [status, lost]})) as server:
        assert ask(server, "status", **which) == [ModelVersion(3, "AVAILABLE"), ModelVersion(2, "END", "no variables")]
    assert server.requests[0].target == f"/v1/models/products{path}"


def test_what_tf_serving_refuses_is_told_in_its_words(ask):
    unknown = answers(404, {"error": "Servable not found for request: Latest(products)"})
    with Misbehaving(unknown) as server, pytest.raises(NotFound, match="Servable not found"):
        ask(server, "search", [b"x"])
    with Misbehaving(answers(400, {"error": "k must be 1 to 100"})) as server, pytest.raises(BadRequest, match="1 to 100"):
        ask(server, "search", [b"x"], 1000)
    assert len(server.requests) == 1


def test_trouble_that_passes_is_not_seen(ask):
    with Misbehaving(
        cuts, answers(503, {"error": "batching queue is full"}), answers(200, {"predictions": ROWS[:1]})
    ) as server:
        assert ask(server, "search", [b"x"], 2) == FOUND[:1]
    with (
        Misbehaving(answers(503, {"error": "batching queue is full"})) as server,
        pytest.raises(Unavailable, match="queue is full"),
    ):
        ask(server, "search", [b"x"], 2)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (ROWS[:2], "2 predictions; expected 1"),
        ([{**ROWS[0], "count": 3}], "counts 3 hits"),
        ([{**ROWS[0], "count": -1}], "counts -1 hits"),
        ([{**ROWS[0], "label": ["mug"]}], "counts 2 hits"),
        ([{**ROWS[0], "distances": [0, "x"]}], r"distances\[1\] is 'x'"),
        ([[0.5, 1.0]], "expected an object"),
    ],
)
def test_nonsense_is_called_nonsense(ask, rows, says):
    with Misbehaving(answers(200, {"predictions": rows})) as server, pytest.raises(UnexpectedAnswer, match=says):
        ask(server, "search", [b"x"])


@pytest.mark.parametrize(
    ("method", "args", "says"),
    [
        ("search", ["photo.jpg"], "For one image"),
        ("search", [[]], "at least one"),
        ("search", [[b"x"], 0], "k=0"),
        ("search", [[b"x"], True], "k=True"),
        ("search", [[b"x"], [1, 2]], "each of the 1 queries"),
        ("search_images", [np.zeros([1, 2, 2, 3])], "float64"),
        ("search_images", [[[[[0, 300, 0]]]]], "300 is not a pixel"),
        ("search_embedding", [[[float("inf")]]], "place 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_sent(ask, method, args, says):
    with Misbehaving(answers(200, {})) as server, pytest.raises(ValueError, match=says):
        ask(server, method, *args)
    assert server.requests == []


@pytest.mark.parametrize("wrong", [{"model": "a/b"}, {"model": ""}, {"version": 1, "label": "x"}])
def test_models_that_make_no_sense_are_refused(wrong):
    for both in BOTH:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            both.tf_serving("http://localhost:8501", **{"model": "products", **wrong})


# ---- a real model, behind TF-Serving's rules


@pytest.fixture(scope="module", params=KINDS)
def server(request, exported, tmp_path_factory):
    with model_server(request.param, exported.path.parent, tmp_path_factory.mktemp("model-server") / "log") as address:
        yield address


def test_a_real_model_searches_its_own_gallery(ask, server, exported):
    images = gallery_images()[3:6]
    files = [encoded(images[0]), b"no image", encoded(images[2])]
    found = ask(server, "search", files, [2, 3, 4])
    assert [(one.valid, len(one)) for one in found] == [(True, 2), (False, 0), (True, 4)]
    assert (found[0][0].id, found[0][0].fields["label"]) == ("item/3", "class-1")
    assert found[2][0].id == "item/5"
    assert [hit.id for hit in ask(server, "search_images", images, 2)[1]][:1] == ["item/4"]
    embeddings = exported.model.embed(images)
    assert [one[0].id for one in ask(server, "search_embedding", embeddings, 1, version=1)] == ["item/3", "item/4", "item/5"]
    with pytest.raises(NotFound):
        ask(server, "search", files, version=7)


def test_a_real_model_embeds(ask, server, exported):
    images = gallery_images()[:3]
    expected = exported.model.embed(images)
    for made in (ask(server, "embed", [encoded(image) for image in images]), ask(server, "embed_images", images)):
        assert all(one.valid for one in made)
        np.testing.assert_allclose([one.embedding for one in made], expected, atol=1e-5)
    assert [one.valid for one in ask(server, "embed", [b"no image", encoded(images[0])])] == [False, True]
    assert ask(server, "status") == [ModelVersion(1, "AVAILABLE")]
    assert {"search", "serving_default"} <= set(ask(server, "metadata")["signature_def"]["signature_def"])
