"""The public data sets as they are on disk; needs TFDML_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfdml.datasets import grocery_store, mnist, omniglot

DATA = Path(os.environ.get("TFDML_DATA") or "/nonexistent")


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"no {name}/ in TFDML_DATA")


@needs("grocery_store")
def test_grocery_store() -> None:
    data = grocery_store()
    assert (len(data), data.num_classes, len(set(data.fields["category"]))) == (5421, 81, 43)
    assert [data.fields["split"].count(split) for split in ("train", "val", "test")] == [2640, 296, 2485]
    assert data.class_names[0] == "Golden-Delicious"
    assert data.class_names[80] == "Zucchini"
    assert data.class_counts.min() >= 35
    assert data.load(0).shape == (64, 64, 3)
    np.testing.assert_array_equal(data.preprocessing(tf.constant(data.image_bytes(9))), data.load(9))
    train, test = data.split_by_class(test=0.5, seed=0)
    assert (train.num_classes, test.num_classes) == (40, 41)
    assert len(grocery_store(iconic=True).where(split="iconic")) == 81


@needs("omniglot")
def test_omniglot() -> None:
    data = omniglot()
    assert (len(data), data.num_classes) == (32460, 1623)
    assert set(data.class_counts) == {20}
    train, test = data.where(split="background"), data.where(split="evaluation")
    assert (len(train), train.num_classes, len(test), test.num_classes) == (19280, 964, 13180, 659)
    assert not set(train.class_names) & set(test.class_names)
    image = data.load(0).numpy()
    assert image.shape == (28, 28, 1)
    assert image[0, 0, 0] == 0
    assert 5 < image.mean() < 60  # thin white strokes on black


@needs("mnist")
def test_mnist() -> None:
    data = mnist()
    assert data.class_names == tuple("0123456789")
    assert data.load(0).shape == (28, 28, 1)
    assert set(data.fields["split"]) == {"train", "test"}
