"""`tfdml compact`: the next version holds what the living catalogue held, and is a bundle like any other."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import ITEMS, encoded, gallery_dataset, gallery_images, tiny_model
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.living import LivingCatalogue
from tfdml_serving.living.compaction import compact
from tfdml_serving.living.folding import forget_folded
from typer.testing import CliRunner

from tfdml.bundle import Bundle, BundleError, Embedder, MatchProbability, Searcher, Threshold, export, verify
from tfdml.bundle.layout import versions
from tfdml.cli import app

NEW = 7 * gallery_images(ITEMS + 6)[ITEMS:] // 8


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def first(model, tmp_path_factory) -> Path:
    """A published first version."""
    to = tmp_path_factory.mktemp("compact") / "products"
    threshold = {"far": Threshold(0.4, 0.3, 0.5, 0.95, "made up")}
    probability = MatchProbability("isotonic", (0.1, 0.25), (0.9, 0.2), 0.0, 0.0, 500)
    options = {"evaluation": {"recall_at_1": 0.5}, "thresholds": threshold, "search_fields": ["label", "price"], "max_k": 20}
    export(model, gallery_dataset(), to, match_probability=probability, **options).close()
    return to


@pytest.fixture
def home(first, tmp_path) -> Path:
    return shutil.copytree(first, tmp_path / "products")


@pytest.fixture
def living(tmp_path):
    with LivingCatalogue.open(tmp_path / "living.sqlite") as opened:
        yield opened


def put(living, name, picture, space, model, **fields):
    file = encoded(picture)
    values = {"label": "class-new", "title": name, "price": 3.5, **fields}
    living.put(
        name, values, space=space, embedding=model.embed(picture[None])[0], image=file, thumbnail=b"small " + name.encode()
    )


def gallery_of(path, living=None):
    """What a version holds: every item with its vector."""
    with HeldVersion.open(path, living) as held:
        items = held.list_items(None, 1000, None)[0]
        return {
            item["id"]: (item["fields"], np.round(held.vector(item["id"]), 5).tolist(), held.thumbnail(item["id"]))
            for item in items
        }


def size_of_model(path):
    return sum(file.stat().st_size for file in (path / "variables").iterdir())


def test_the_next_version_holds_it_all(home, living, model):
    with Bundle.open(home) as source:
        space, old = source.manifest.space, source.manifest
    for number in range(4):
        put(living, f"new-{number}", NEW[number], space, model)
    put(living, "item/3", NEW[4], space, model, price=99)
    living.put("by-vector", {"label": "x", "title": "", "price": 1}, space=space, embedding=np.arange(1, 7))
    living.remove("item/5")
    living.remove("new-3")
    living.change("item/7", {"price": 77, "title": "Changed"})
    living.change("new-1", {"price": 11})
    before = gallery_of(home / "1", living)
    with LivingCatalogue.open(living.path, writable=False) as reader, compact(home, reader) as made:
        manifest = made.manifest
    assert (made.path, manifest.items) == (home / "2", ITEMS + 4 - 1)
    assert gallery_of(home / "2") == gallery_of(home / "2", living) == before
    verify(home / "2", deep=True)

    assert (manifest.space, manifest.folded.catalogue, manifest.folded.sequence) == (space, living.name, living.sequence)
    assert manifest.model.fingerprint != old.model.fingerprint
    assert (manifest.thresholds, manifest.evaluation, manifest.metric) == (old.thresholds, old.evaluation, old.metric)
    assert manifest.match_probability == old.match_probability is not None
    assert (manifest.search.method, manifest.search.max_k, manifest.search.fields) == ("exact", 20, ("label", "price"))
    assert size_of_model(home / "2") < 1.2 * size_of_model(home / "1")

    files = [encoded(NEW[0]), encoded(NEW[4]), encoded(gallery_images()[7]), encoded(gallery_images()[5])]
    np.testing.assert_allclose(Embedder(home / "2").embed(files), Embedder(home / "1").embed(files), atol=1e-6)
    found = Searcher(home / "2").search(files, k=1)
    assert found.ids[:3, 0].tolist() == ["new-0", "item/3", "item/7"]
    assert found.fields["price"][:3, 0].tolist() == [3.5, 99.0, 77.0]
    assert found.ids[3, 0] != "item/5"

    # Changes that come later are applied beside either version, and folded into the one after.
    living.remove("new-0")
    put(living, "item/5", NEW[5], space, model)
    assert gallery_of(home / "1", living) == gallery_of(home / "2", living) != gallery_of(home / "2")
    expected = gallery_of(home / "2", living)
    compact(home, living).close()
    assert gallery_of(home / "3") == expected
    assert size_of_model(home / "3") < 1.2 * size_of_model(home / "1")
    assert compact(home, living) is None
    assert versions(home) == [1, 2, 3]

    # Only what every version has in it may be forgotten.
    assert forget_folded(living, home) == 0
    shutil.rmtree(home / "1")
    assert forget_folded(living, home) > 0
    assert gallery_of(home / "2", living) == gallery_of(home / "3", living) == gallery_of(home / "3")
    shutil.rmtree(home / "2")
    forget_folded(living, home)
    assert living.entries(space=space) == []
    assert gallery_of(home / "3", living) == expected
    living.check()


def test_new_items_are_the_probes_and_items_of_another_space_are_embedded_anew_or_left_out(home, living, model):
    with Bundle.open(home) as source:
        space, ids = source.manifest.space, source.catalogue.ids()
    for name in ids[:-1]:
        living.remove(name)
    put(living, "a", NEW[0], space, model)
    living.put("b", {"label": "b", "price": 0.5}, space=space, embedding=model.embed(NEW[2:3])[0], image=encoded(NEW[3]))
    put(living, "seen", NEW[1], "another", model)
    for name in ("unseen", ids[-1]):
        living.put(name, {"label": name, "price": 1.5}, space="another", embedding=np.ones(3))
    with compact(home, living) as made:
        assert made.manifest.folded.left_out == ("unseen", ids[-1])
        assert made.catalogue.ids() == ["a", "b", "seen"]
        assert made.manifest.probes == (0, 2)  # the picture of b is not what its embedding was made of
        np.testing.assert_allclose(made.index.vectors([2])[0], model.embed(NEW[1:2])[0], atol=1e-5)
    shutil.rmtree(home / "1")
    assert forget_folded(living, home) > 0
    with HeldVersion.open(home, living) as held:
        assert held.items == 5
        assert held.item("unseen")["fields"]["price"] == 1.5
        assert held.item(ids[-1])["fields"]["label"] == ids[-1]


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_nothing_is_published_when_it_cannot_be(home, living, model, monkeypatch):
    with Bundle.open(home) as source:
        space, ids = source.manifest.space, source.catalogue.ids()
    with pytest.raises(BundleError, match=r"there is nothing here"):
        compact(home / "9", living)
    assert compact(home, living) is None
    living.put("new", {"label": "x"}, space=space, embedding=np.ones(6))
    with pytest.raises(BundleError, match="item 'new' has no value, and a signature cannot answer a missing number"):
        compact(home, living)
    living.change("new", {"price": "free"})
    with pytest.raises(BundleError, match=r"mixes text \(item 'new'\) and numbers"):
        compact(home, living)
    living.change("new", {"price": 0})
    monkeypatch.setattr(
        "tfdml.bundle.publish.flush", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(BundleError, match="the disk is full"):
        compact(home, living)
    monkeypatch.undo()
    for name in [*ids, "new"]:
        living.remove(name)
    with pytest.raises(BundleError, match="no item would be left"):
        compact(home, living)
    assert os.listdir(home) == ["1"]


def golden(name: str, to: Path) -> Path:
    """A copy of a bundle that an older version wrote."""
    shutil.copytree(Path(__file__).resolve().parents[1] / "bundle" / name / "1", to / "1")
    return to


def test_lists_are_made_anew(living, tmp_path):
    home = golden("golden_2", tmp_path / "old")
    space = verify(home).manifest.space
    living.put("new", {"label": "x", "price": 1.5}, space=space, embedding=np.ones(6), thumbnail=b"small")
    with compact(home, living) as made:
        assert (made.manifest.items, made.manifest.space, made.manifest.search.method) == (ITEMS + 1, space, "ivf")
        assert (made.catalogue.thumbnail(ITEMS), made.catalogue.thumbnail(0)) == (b"small", None)


def test_the_command_and_a_model_that_only_embeds(living, tmp_path):
    home = golden("golden", tmp_path / "old")
    space = verify(home).manifest.space
    living.put("new", {"price": 1.5, "colour": "red"}, space=space, embedding=np.ones(6))
    living.put("other", {}, space="another", embedding=np.ones(6))

    def run(*arguments):
        return CliRunner().invoke(app, ["compact", str(home), "--living", str(living.path), *arguments])

    assert "another process writes" in str(run("--forget").exception)
    done = run()
    assert done.exit_code == 0, done.exception
    assert "items       25" in done.stdout
    assert "1 items stay in the living catalogue only" in done.stdout
    living.close()
    shutil.rmtree(home / "1")
    done = run("--forget")
    assert "Nothing to fold in" in done.stdout
    assert "Forgotten: 1 items" in done.stdout
    with LivingCatalogue.open(living.path) as left:
        assert [entry.id for entry in left.entries(space=space)] == ["other"]
    with Bundle.open(home) as made:
        assert (made.manifest.model.fingerprint, made.manifest.search) == (space, None)
        assert made.catalogue.fields["colour"] == "text"
        assert not made.catalogue.has_thumbnails


def test_the_next_version_has_an_index_of_the_same_kind(model, living, tmp_path):
    pytest.importorskip("faiss")
    index = {"backend": "faiss", "kind": "hnsw", "links": 4}
    with export(model, gallery_dataset(), tmp_path / "products", index=index, search=None) as published:
        put(living, "new", NEW[0], published.manifest.space, model)
    with compact(tmp_path / "products", living) as folded:
        assert (folded.index.kind, folded.manifest.index["links"], len(folded)) == ("hnsw", 4, ITEMS + 1)
        assert folded.search(model.embed(NEW[:1])[0], k=1)[0][0].id == "new"
