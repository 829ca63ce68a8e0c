"""Damaged bundles are refused, each with a message and never in another way."""

from __future__ import annotations

import collections
import shutil

import numpy as np
import pytest
from bundle_corruption import KINDS, corrupt
from bundle_helpers import gallery_dataset, linked_copy, tiny_model

from tfdml import bundle
from tfdml.bundle import Bundle, BundleError

pytestmark = pytest.mark.one_stack


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A bundle with the same files as `exported`, and other content."""
    to = tmp_path_factory.mktemp("other")
    with bundle.export(tiny_model(seed=4), gallery_dataset(22), to) as published:
        return published.path


def refusal(read, path) -> str | None:
    """The message with which `path` is refused; any other exception fails the test."""
    try:
        read(path)
    except BundleError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("seed", "copies"), [(0, 150), pytest.param(1, 1000, marks=pytest.mark.slow)])
def test_random_damage_is_refused(exported, other, tmp_path, seed, copies):
    rng = np.random.default_rng(seed)
    kinds: collections.Counter[str] = collections.Counter()
    before = bundle.verify(exported.path)
    for number in range(copies):
        copy = linked_copy(exported.path, tmp_path / "copy" / str(number))
        what = corrupt(copy, other, rng)
        for read in (bundle.verify, Bundle.open):
            message = refusal(read, copy)
            assert message is not None, f"copy {number} was accepted by {read.__qualname__} with {what}"
            assert "is refused: " in message or "neither a bundle" in message, what
        kinds[what.split(":")[0]] += 1
        shutil.rmtree(copy)
    assert kinds.keys() == {kind.__name__ for kind in KINDS}
    assert bundle.verify(exported.path) == before, "the damage must not reach the original through the links"
