"""Ids in little memory: they are what went in."""

from __future__ import annotations

import numpy as np
import pytest

from tfdml.index import AnnoyIndex
from tfdml.index._ids import _PER_PIECE, PackedIds


@pytest.mark.parametrize("count", [0, 1, _PER_PIECE - 1, _PER_PIECE, _PER_PIECE + 1, 2 * _PER_PIECE + 5])
def test_they_are_what_went_in(count):
    given = [f"{'é🥛' * (number % 3)}{number}" for number in range(count)]
    ids = PackedIds(iter(given))
    assert list(ids) == given
    assert len(ids) == count
    assert ids[-3:] == given[-3:]
    assert ids[::-1] == given[::-1]
    assert [ids[number] for number in range(-count, count)] == given + given
    numbers = np.random.default_rng(0).integers(0, max(count, 1), [3, 5 * (count > 0)])
    assert ids.take(numbers).tolist() == [[given[number] for number in row] for row in numbers.tolist()]
    for outside in (count, -count - 1):
        with pytest.raises(IndexError, match=f"there are {count} ids"):
            ids[outside]


def test_an_empty_text_is_an_id():
    assert list(PackedIds(["", "a"])) == ["", "a"]


@pytest.mark.parametrize("apart", [1, _PER_PIECE + 7])
def test_one_that_comes_twice_is_named(apart):
    given = [f"item-{number}" for number in range(2 * _PER_PIECE)]
    given[5 + apart] = "item-5"
    with pytest.raises(ValueError, match=f"'item-5' is the id of item 5 and of item {5 + apart}"):
        PackedIds(given)


def test_different_ids_with_the_same_hash_are_different(monkeypatch):
    monkeypatch.setattr("tfdml.index._ids.hash", lambda text: len(text), raising=False)
    assert list(PackedIds(["a", "b", "cc", "d"])) == ["a", "b", "cc", "d"]
    with pytest.raises(ValueError, match="'b' is the id of item 1 and of item 3"):
        PackedIds(["a", "b", "cc", "b"])


@pytest.mark.parametrize("wrong", [7, None, b"a"])
def test_what_is_no_string_is_refused(wrong):
    with pytest.raises(ValueError, match="expected strings"):
        PackedIds(["a", wrong])


def test_an_index_takes_them_as_they_are(tmp_path):
    vectors, ids = np.eye(5) + 0.1, [f"item-{number}" for number in range(5)]
    index = AnnoyIndex.build(vectors, ids)
    spec = index.save(tmp_path / "index.ann")
    packed = PackedIds(ids)
    loaded = AnnoyIndex.load(tmp_path / "index.ann", spec, packed)
    assert loaded.ids is packed
    assert loaded.search(vectors[3], k=1).ids.tolist() == [["item-3"]]
    with pytest.raises(ValueError, match="received 4 ids for 5 vectors"):
        AnnoyIndex.load(tmp_path / "index.ann", spec, PackedIds(ids[:4]))
