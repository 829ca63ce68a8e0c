"""Running the exported model on image files."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from bundle_helpers import SIDE, encoded, gallery_images, linked_copy, replace

from tfdml.bundle import BundleError, Embedder
from tfdml.bundle.operations import read_saved_model


@pytest.fixture(scope="module")
def embedder(exported):
    return Embedder(exported.path.parent, batch_size=4)


def test_files_and_images_give_the_same(embedder, exported):
    images = gallery_images()[:11]
    expected = exported.model.embed(images)
    np.testing.assert_allclose(embedder.embed([encoded(image) for image in images]), expected, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_images(images), expected, atol=1e-5)


def test_no_images_give_no_rows(embedder):
    assert embedder.embed([]).shape == (0, 6)
    assert embedder.embed_images(np.zeros([0, SIDE, SIDE, 3], np.uint8)).shape == (0, 6)


def test_what_cannot_be_decoded_is_told(embedder):
    good = encoded(gallery_images()[0])
    embeddings, valid = embedder.try_embed([good, b"x", good, good, good, b""])
    assert valid.tolist() == [True, False, True, True, True, False]
    assert not embeddings[~valid].any()
    with pytest.raises(ValueError, match=r"2 of 6 cannot be read as images, at positions 1, 5"):
        embedder.embed([good, b"x", good, good, good, b""])


@pytest.mark.parametrize("files", [b"bytes", "text", [3], ["photo.jpg"]])
def test_other_things_than_bytes_are_refused(embedder, files):
    with pytest.raises(TypeError, match="files"):
        embedder.embed(files)


@pytest.mark.parametrize("images", [np.zeros([1, 5, 5, 3], np.uint8), np.zeros([1, SIDE, SIDE, 3], np.float32)])
def test_other_images_are_refused(embedder, images):
    with pytest.raises(ValueError, match=r"expected uint8 \[N, 12, 12, 3\]"):
        embedder.embed_images(images)


def test_an_operation_of_a_newer_tensorflow_is_refused_with_a_reason(exported, tmp_path):
    copy = linked_copy(exported.path, tmp_path / "1")
    saved_model = read_saved_model(copy)
    saved_model.meta_graphs[0].graph_def.library.function[0].node_def.add(name="new", op="DecodeTelepathy")
    replace(copy / "saved_model.pb", saved_model.SerializeToString())
    with pytest.raises(BundleError, match=f"DecodeTelepathy.*TensorFlow {tf.__version__} does not have.*upgrade"):
        Embedder(copy, verify=False)
    with pytest.raises(BundleError, match=r"saved_model.pb: .*bytes, expected"):
        Embedder(copy)


def test_a_model_that_this_tensorflow_cannot_load_is_refused_with_a_reason(exported, tmp_path):
    copy = linked_copy(exported.path, tmp_path / "1")
    saved_model = read_saved_model(copy)
    saved_model.meta_graphs[0].graph_def.versions.min_consumer = 10**9
    del saved_model.meta_graphs[0].object_graph_def.nodes[3:]
    replace(copy / "saved_model.pb", saved_model.SerializeToString())
    with pytest.raises(BundleError, match=f"cannot be loaded by TensorFlow {tf.__version__}"):
        Embedder(copy, verify=False)


def test_other_signatures_are_refused(exported, tmp_path):
    import dataclasses

    from tfdml.bundle.manifest import Manifest
    from tfdml.bundle.runner import SignatureRunner

    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.f})
    model = Manifest.from_bytes((exported.path / "assets.extra/retrieval/manifest.json").read_bytes()).model
    with pytest.raises(BundleError, match="'serving_default' has other inputs or outputs"):
        SignatureRunner(tmp_path / "m", model)
    with pytest.raises(BundleError, match=r"returns float32 \(None, 6\); the bundle says float32 \[N, 7\]"):
        SignatureRunner(exported.path, dataclasses.replace(model, dimension=7))
