"""From a model and a gallery to a published bundle, and every way in which that is refused."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from bundle_helpers import ITEMS, SIDE, encoded, gallery_dataset, gallery_images, replace, tiny_model

import tfdml
from tfdml import bundle
from tfdml.bundle import Bundle, BundleError, Embedder, Threshold, exporting, packing, verify
from tfdml.bundle.warmup import read_warmup
from tfdml.datasets import Dataset
from tfdml.preprocessing import ImagePreprocessing


@keras.saving.register_keras_serializable(package="tfdml_tests")
class MeanColour(keras.layers.Layer):
    """The quickest embedding there is."""

    def call(self, images):
        import tensorflow as tf

        return tf.reduce_mean(images, axis=(1, 2)) / 255.0

    def compute_output_shape(self, shape):
        return (shape[0], shape[-1])


def quick_model() -> keras.Model:
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), MeanColour()])


def nothing_published(to: Path) -> bool:
    return not to.exists() or not os.listdir(to)


def test_the_bundle_is_complete(exported):
    report = verify(exported.path, deep=True)
    manifest = report.manifest
    assert [check.split(":")[0] for check in report.checks] == ["manifest", "files", "catalogue", "index", "model", "search"]
    assert exported.path.name == "1"
    assert os.listdir(exported.path.parent) == ["1"]
    assert (manifest.items, manifest.metric, manifest.model.dimension) == (ITEMS, "cosine", 6)
    assert manifest.model.normalised
    assert manifest.model.preprocessing == exported.data.preprocessing.get_config()
    assert manifest.evaluation == {"recall_at_1": 0.5}
    assert manifest.index["recall"] >= 0.95
    assert {"python", "numpy", "annoy", "keras"} <= set(manifest.libraries)
    assert len(manifest.probes) == 8
    there = {str(path.relative_to(exported.path)) for path in exported.path.rglob("*") if path.is_file()}
    assert there == {*manifest.files, "assets.extra/retrieval/manifest.json"}
    assert {"saved_model.pb", "assets.extra/tf_serving_warmup_requests"} <= there


def test_every_item_finds_itself_from_its_file(exported):
    files = [exported.data.image_bytes(number) for number in range(ITEMS)]
    with Bundle.open(exported.path) as published:
        embeddings = Embedder(exported.path).embed(files)
        np.testing.assert_allclose(embeddings, exported.model.embed(gallery_images()), atol=1e-5)
        answers = published.search(embeddings, k=3)
        assert [row[0].id for row in answers] == [f"item/{i}" for i in range(ITEMS)]
        assert max(row[0].distance for row in answers) < 1e-6
        assert answers[5][0].fields == {"label": "class-2", "title": "Thing 5", "price": 7.5}


def test_warm_up_covers_every_signature_at_the_sizes_in_use(exported):
    requests = read_warmup(exported.path / "assets.extra" / "tf_serving_warmup_requests")
    sizes = [(signature, len(next(iter(inputs.values())))) for signature, inputs in requests]
    signatures = ["serving_default", "embed_images", "search", "search_images", "search_embedding"]
    assert sizes == [(signature, size) for size in (1, 8) for signature in signatures]
    assert [inputs["k"].tolist() for signature, inputs in requests if signature == "search"] == [[10], [10] * 8]


def test_a_plain_keras_model_and_the_options(tmp_path):
    steps: list[tuple[str, float]] = []
    data = gallery_dataset()
    threshold = Threshold(0.2, 0.1, 0.3, 0.95, "false accept rate 0.01")
    published = bundle.export(
        quick_model(),
        data,
        tmp_path / "deep" / "products",
        version=12,
        recall=1.0,
        fields=["price", "label"],
        thresholds={"far": threshold},
        evaluation=tfdml.evaluation.retrieval(np.eye(4), [0, 0, 1, 1], ks=[1]),
        batch_size=5,
        warmup_batch_sizes=[2, 11],
        progress=lambda step, share: steps.append((step, share)),
    )
    with published:
        assert published.path == tmp_path / "deep" / "products" / "12"
        assert published.manifest.metric == "euclidean"
        assert not published.manifest.model.normalised
        assert published.manifest.thresholds == {"far": threshold}
        assert "map_at_r" in published.manifest.evaluation
        assert published.catalogue.fields == {"price": "real", "label": "text"}
    assert [step for step, share in steps if share in (0.0, 1.0)] == [
        "write the model",
        "embed the gallery",
        "build the search",
        "build the index and the catalogue",
        "verify",
        "publish",
        "publish",
    ]
    assert verify(published.path, deep=True).manifest.probes
    with bundle.export(quick_model(), data, tmp_path / "deep" / "products", metric="cosine", fields={}) as second:
        assert second.path.name == "13"
        assert (second.manifest.metric, second.catalogue.fields) == ("cosine", {})
        assert second.search(Embedder(second.path).embed([data.image_bytes(3)]), k=1)[0][0].number == 3


def test_files_that_need_resizing(tmp_path):
    rng, paths = np.random.default_rng(0), []
    for number in range(10):
        image = np.repeat(np.repeat(rng.integers(0, 256, [4, 5, 3], np.uint8), 9, 0), 9, 1)
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(encoded(image, "JPEG", quality=95))
    data = Dataset.from_files(paths, list(range(10)), preprocessing=ImagePreprocessing(SIDE, fit="pad"))
    with bundle.export(quick_model(), data, tmp_path / "products") as published:
        embeddings = Embedder(published.path).embed([path.read_bytes() for path in paths])
        assert [row[0].id for row in published.search(embeddings, k=1)] == [str(path) for path in paths]


def test_an_existing_version_is_refused_before_any_work(exported):
    with pytest.raises(BundleError, match=r"version=1: .*exists already"):
        bundle.export(None, exported.data, exported.path.parent, version=1, preprocessing=exported.data.preprocessing)
    assert os.listdir(exported.path.parent) == ["1"]


class WithNaN(keras.layers.Layer):
    def call(self, images):
        return images[:, 0, 0, :] / (images[:, 0, 0, :1] - 7.0)

    def compute_output_shape(self, shape):
        return (shape[0], shape[-1])


def with_pixel(value: int) -> Dataset:
    images = gallery_images()
    images[:, 0, 0, :] = 9
    images[3, 0, 0, :] = value
    return Dataset.from_arrays(images, np.arange(ITEMS) // 2, [f"item/{i}" for i in range(ITEMS)])


def test_an_embedding_that_is_not_finite_is_named(tmp_path):
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), WithNaN()])
    with pytest.raises(BundleError, match=r"embeddings of 1 of 24 items are not finite, e\.g\. 'item/3'"):
        bundle.export(model, with_pixel(7), tmp_path / "to", search=None)
    assert nothing_published(tmp_path / "to")


def test_a_zero_embedding_has_no_cosine(tmp_path):
    images = gallery_images()
    images[5] = 0
    data = Dataset.from_arrays(images, np.arange(ITEMS) // 2, [f"item/{i}" for i in range(ITEMS)])
    with pytest.raises(BundleError, match=r"embeddings of 1 of 24 items are zero, e\.g\. 'item/5'.*euclidean"):
        bundle.export(quick_model(), data, tmp_path / "to", metric="cosine", search=None)
    assert nothing_published(tmp_path / "to")


class Gallery:
    """A dataset that breaks its promises."""

    def __init__(self, **changes):
        self._data = gallery_dataset()
        self.__dict__.update(changes)

    def __len__(self):
        return len(self.ids)

    def __getattr__(self, name):
        return getattr(self._data, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["a", "b", "a"] + [str(i) for i in range(ITEMS - 3)]}, "ids: 'a' is the id of items 0 and 2"),
        (
            {"ids": [str(i) for i in range(ITEMS - 1)], "labels": [0] * (ITEMS - 1), "fields": {}},
            "gallery: more than 23 images came out",
        ),
        (
            {"ids": [str(i) for i in range(ITEMS + 1)], "labels": [0] * (ITEMS + 1), "fields": {}},
            "gallery: 24 images came out of .*25 ids",
        ),
        ({"fields": {"title": ["one"]}}, r"fields\['title'\] has 1 values for 24 items"),
        ({"fields": {"id": ["x"] * ITEMS}}, "'id' is reserved"),
        ({"image_bytes": lambda number: b"not an image"}, "cannot decode the image file of item 'item/0'"),
        ({"image_bytes": lambda number: encoded(gallery_images()[0])}, "gallery's pixels were prepared in another way"),
        ({"preprocessing": ImagePreprocessing(7)}, r"takes \(None, 12, 12, 3\), but preprocessing makes .*\(7, 7, 3\)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_gallery_that_does_not_fit_is_refused(tmp_path, changes, message):
    with pytest.raises(BundleError, match=message):
        bundle.export(quick_model(), Gallery(**changes), tmp_path / "to", search=None)
    assert nothing_published(tmp_path / "to")


def test_model_and_gallery_must_be_prepared_alike(tmp_path):
    model = tiny_model()
    model.preprocessing = ImagePreprocessing(SIDE, fit="stretch")
    with pytest.raises(BundleError, match="is not that of the gallery"):
        bundle.export(model, gallery_dataset(), tmp_path / "to")
    with pytest.raises(BundleError, match="is not that of the model"):
        bundle.export(model, gallery_dataset(), tmp_path / "to", preprocessing=ImagePreprocessing(SIDE))
    assert nothing_published(tmp_path / "to")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "dot"}, ValueError, "metric='dot' is not known. Known: 'cosine', 'euclidean'"),
        ({"recall": 0}, ValueError, "recall=0"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"max_pixels": -1}, ValueError, "max_pixels=-1"),
        ({"fields": ["colour"]}, ValueError, "fields='colour' is not known. Known: 'label', 'title', 'price'"),
        ({"version": -3}, BundleError, "version=-3"),
        ({"version": "latest"}, BundleError, "version='latest'"),
        ({"warmup_batch_sizes": [0]}, ValueError, "warmup_batch_sizes=0"),
        ({"warmup_batch_sizes": range(1, 601)}, BundleError, "TF-Serving takes 1000"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        bundle.export(quick_model(), gallery_dataset(), tmp_path / "to", **options)
    assert nothing_published(tmp_path / "to")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": {"price": [float("nan")] * ITEMS}}, r"fields\['price'\]\[0\]='nan'"),
        ({"evaluation": {"auc": None}}, r"evaluation\['auc'\]=None: expected a finite number"),
        ({"evaluation": 0.5}, r"expected a mapping of names to numbers, .* received float"),
        ({"thresholds": {"match": 0.3}}, r"thresholds\['match'\]: expected a Threshold, .* received float"),
        ({"match_probability": 0.5}, r"expected what fit_match_probability\(...\) returns"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_any_work(tmp_path, options, message):
    data = gallery_dataset()
    with pytest.raises(BundleError, match=message):
        bundle.export(None, data, tmp_path / "to", preprocessing=data.preprocessing, **options)


def test_a_recall_that_is_not_reached_publishes_nothing(tmp_path, monkeypatch):
    def build(*args, **kwargs):
        raise ValueError("recall=0.99 was not reached: 0.71 at best. More trees: trees=40.")

    monkeypatch.setattr("tfdml.index.AnnoyIndex.build", build)
    with pytest.raises(BundleError, match=r"index cannot be built: recall=0\.99 was not reached"):
        bundle.export(quick_model(), gallery_dataset(), tmp_path / "to", recall=0.99, search=None)
    assert nothing_published(tmp_path / "to")


def test_damage_before_publication_is_noticed(tmp_path, monkeypatch):
    def pack_and_damage(directory, *args, **kwargs):
        packing.pack(directory, *args, **kwargs)
        data = bytearray((directory / "saved_model.pb").read_bytes())
        data[100] ^= 1
        replace(directory / "saved_model.pb", bytes(data))

    monkeypatch.setattr(exporting, "pack", pack_and_damage)
    with pytest.raises(BundleError, match=r"saved_model.pb: its SHA-256 is not that of the manifest"):
        bundle.export(quick_model(), gallery_dataset(), tmp_path / "to", search=None)
    assert nothing_published(tmp_path / "to")


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("where", "error", "search"),
    [
        ("tensorflow.saved_model.save", RuntimeError(f"variables/x; {os.strerror(errno.ENOSPC)}"), "auto"),
        ("tfdml.bundle.exporting.GallerySearch", FULL, "auto"),
        ("tfdml.bundle.exporting.write_warmup", FULL, None),
        ("tfdml.index.AnnoyIndex.build", FULL, None),
        ("tfdml.index.AnnoyIndex.save", FULL, None),
        ("tfdml.bundle.packing.write_catalogue", sqlite3.OperationalError("database or disk is full"), None),
        ("pathlib.Path.write_bytes", FULL, None),
        ("os.fsync", FULL, None),
        ("os.rename", FULL, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.one_stack
def test_a_full_disk_publishes_nothing(tmp_path, monkeypatch, where, error, search):
    to = tmp_path / "to"
    (to / "1").mkdir(parents=True)

    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(where, full)
    with pytest.raises(BundleError, match=r"the disk is full\. Nothing was published and the old versions are as they were"):
        bundle.export(quick_model(), gallery_dataset(), to, search=search)
    monkeypatch.undo()
    assert os.listdir(to) == ["1"]


def outcome(to: Path) -> str:
    try:
        with bundle.export(quick_model(), gallery_dataset(), to) as published:
            verify(published.path, deep=True)
            return "published"
    except BundleError as error:
        if "the disk is full" in str(error) and nothing_published(to):
            return "full"
        raise


@pytest.mark.slow
@pytest.mark.one_stack
def test_really_full_disks_of_every_size(tmp_path):
    """Disks from a few pages to enough: each export either fails with nothing left, or verifies."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small tmpfs")
    outcomes = []
    for pages in (2, 8, 16, 32, 48, 64, 256):
        disk = tmp_path / str(pages)
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", str(disk)], check=False).returncode:
            pytest.skip("this container cannot mount a tmpfs")
        try:
            outcomes.append(outcome(disk / "products"))
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    assert outcomes[0] == "full"
    assert outcomes[-1] == "published"
    assert outcomes == sorted(outcomes), "more room must not make it worse"


def test_the_deep_check_notices_a_model_that_is_not_the_gallerys(tmp_path, monkeypatch):
    from tfdml.bundle import deep

    monkeypatch.setattr(exporting, "verify", lambda path, deep: None)
    wrong = [encoded(image) for image in gallery_images()[::-1]]
    original = exporting.warmup_requests
    monkeypatch.setattr(exporting, "warmup_requests", lambda files, *rest: original(wrong[:8], *rest))
    with bundle.export(quick_model(), gallery_dataset(), tmp_path) as published:
        verify(published.path)
        with pytest.raises(BundleError, match=r"embeds images of the gallery .* away from their vectors in the index"):
            verify(published.path, deep=True)
    assert deep.TOLERANCE == 1e-3


@pytest.mark.parametrize("index", ["exact", {"backend": "faiss", "kind": "hnsw", "links": 4}])
def test_another_index_than_annoy(tmp_path, index):
    if index != "exact":
        pytest.importorskip("faiss")
    with bundle.export(quick_model(), gallery_dataset(), tmp_path / "to", index=index) as published:
        kind = "exact" if index == "exact" else "hnsw"
        assert (published.index.kind, published.manifest.index.get("links", 4)) == (kind, 4)
        verify(published.path, deep=True)
        assert published.search(published.index.vectors([3])[0], k=1)[0][0].id == "item/3"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"index": "scann"}, "index='scann' is not known"), ({"index": "exact", "trees": 3}, "trees=3: only an index by Annoy")],
)
def test_an_index_that_makes_no_sense(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        bundle.export(quick_model(), gallery_dataset(), tmp_path / "to", **options)
    assert nothing_published(tmp_path / "to")
