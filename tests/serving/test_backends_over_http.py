"""One gallery by exact search, Annoy, FAISS and Milvus Lite: versions of one service, asked over HTTP and with the page."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from bundle_helpers import SIDE
from conftest import PageService
from engine_helpers import prefer_the_index
from page_browser import search_with, shown_ids, skip_without_browser
from page_bundles import DIMENSION, PixelEmbedder, drawn_products, embed_pixels
from service_runs import serving, wait_until
from tfdml_serving.api.app import create_app
from tfdml_serving.engine import base_search
from tfdml_serving.rollout.versions import Versions
from tfdml_serving.settings import Settings

from tfdml.bundle import Bundle
from tfdml.bundle.manifest import ModelRecord
from tfdml.bundle.packing import Gallery, pack
from tfdml.index import ExactIndex

pytest.importorskip("faiss")
pytest.importorskip("pymilvus")

KINDS = {1: "exact", 2: "annoy", 3: "hnsw", 4: "ivf_sq", 5: "milvus_hnsw"}
COPIES = 12


class OneSpace(PixelEmbedder):
    """All versions have one embedding: only their indexes differ."""

    async def embed(self, files, version):
        return await super().embed(files, 2)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """(model directory, images to search with, vectors, ids): every picture, and vectors near it."""
    files, queries, fields = drawn_products()
    noise = np.random.default_rng(0).normal(scale=0.03, size=(COPIES, len(files), DIMENSION))
    noise[0] = 0
    seen = np.stack([embed_pixels(file, 2) for file in files])
    vectors = (seen + noise).reshape(-1, DIMENSION).astype(np.float32)
    ids = [f"{label}/{number}" for number, label in enumerate(fields["label"] * COPIES)]
    columns = {name: values * COPIES for name, values in fields.items()}
    to = tmp_path_factory.mktemp("backends") / "catalogue"
    for version, kind in KINDS.items():
        directory = to / str(version)
        (directory / "variables").mkdir(parents=True)
        (directory / "saved_model.pb").write_bytes(b"one graph")
        (directory / "variables" / "variables.index").write_bytes(b"index")
        record = ModelRecord("", DIMENSION, True, (SIDE, SIDE, 3), {"size": [SIDE, SIDE]}, 40_000_000, ("serving_default",))
        pack(directory, Gallery(vectors, ids, columns, "cosine", thumbnails=files * COPIES), record, index=kind, recall=0.9)
    return to, queries, vectors, ids


@pytest.fixture(scope="module")
def service(catalogue):
    """All versions held by one service on a real socket, which searches by the index wherever there is one."""
    path, queries, *_ = catalogue
    embedder = OneSpace()
    options = Settings(path, port=0, poll_seconds=0.05, keep_versions=len(KINDS) - 1)
    with pytest.MonkeyPatch.context() as patch:
        prefer_the_index(patch)
        app = create_app(options, Versions(options, embedder), embedder)
        with serving(options, app) as running:
            listed = app.state.service.versions.list
            open_ones = {"current", "held"}
            wait_until(lambda: sum(one.state in open_ones for one in listed()) == len(KINDS), what="opening all versions")
            yield PageService(running.url, queries, [], embedder.seen)


def hits(service, path: str, **body) -> list[dict]:
    answer = httpx.post(f"{service.url}/v1/search/{path}", json=body, timeout=20)
    answer.raise_for_status()
    return answer.json()["hits"]


def test_the_same_neighbours_up_to_each_ones_measured_recall(service, catalogue):
    path, _, vectors, ids = catalogue
    queries = vectors[7::45] + np.random.default_rng(1).normal(scale=0.02, size=vectors[7::45].shape)
    truth = ExactIndex(vectors, ids).search(queries, k=10)
    for version, kind in KINDS.items():
        with Bundle.open(path / str(version), verify=False) as bundle:
            expected = bundle.manifest.index["recall"] - 0.05 if kind != "exact" else 1.0
            assert bundle.index.kind == kind
        found = [hits(service, "embedding", embedding=query.tolist(), k=10, version=version) for query in queries]
        shares = [len({hit["id"] for hit in one} & set(row)) / 10 for one, row in zip(found, truth.ids, strict=True)]
        assert np.mean(shares) >= expected, kind
        for one, row, distances in zip(found, truth.ids, truth.distances, strict=True):
            known = dict(zip(row, distances, strict=True))
            assert [hit["distance"] for hit in one] == sorted(hit["distance"] for hit in one)
            for hit in one:
                assert hit["distance"] == pytest.approx(known.get(hit["id"], hit["distance"]), rel=1e-4, abs=1e-6)
        where = hits(service, "embedding", embedding=queries[0].tolist(), k=10, version=version, filter="category = jar")
        assert len(where) == 10
        assert {hit["fields"]["category"] for hit in where} == {"jar"}


def test_the_index_is_what_was_searched(service, catalogue, monkeypatch):
    """The test before would say nothing of an index that the service passes by."""
    asked = []
    by_index = base_search.BaseSearch._by_index

    def noted(self, *arguments):
        answer = by_index(self, *arguments)
        asked.append((self._index.kind, answer is not None))
        return answer

    monkeypatch.setattr(base_search.BaseSearch, "_by_index", noted)
    for version in KINDS:
        hits(service, "embedding", embedding=catalogue[2][0].tolist(), k=5, version=version)
    assert asked == [(kind, kind != "exact") for kind in KINDS.values()]


def test_the_page_shows_what_each_of_them_finds(service, catalogue, request):
    skip_without_browser()
    from playwright.sync_api import expect

    page = request.getfixturevalue("page")
    file = catalogue[1][3]
    search_with(page, file)
    answers = {}
    for version, kind in KINDS.items():
        page.get_by_label("Version").select_option("" if version == max(KINDS) else str(version))
        page.wait_for_selector(f"main[aria-busy=false] .took:has-text('version {version}')")
        upload = {"content": file, "headers": {"Content-Type": "image/jpeg"}, "timeout": 20}
        told = httpx.post(f"{service.url}/v1/search/image", params={"version": version}, **upload).json()["hits"]
        answers[kind] = shown_ids(page)
        assert answers[kind] == [hit["id"] for hit in told]
    for kind, found in answers.items():
        assert len(set(found) & set(answers["exact"])) >= 9, kind
    page.locator(".card-link").nth(1).click()
    expect(page.locator(".asked-kind")).to_be_visible()
    page.wait_for_selector("main[aria-busy=false] .verdict")
    liked = hits(service, "item", id=answers["milvus_hnsw"][1], k=10)
    assert shown_ids(page) == [hit["id"] for hit in liked]
