"""Labels -> (offsets, item ids): against a dictionary, on every kind of label, and on bad ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdml.samplers import ClassGroups, grouping

pytestmark = pytest.mark.one_stack

INT64 = st.integers(-(2**63), 2**63 - 1)
LABELS = st.one_of(
    st.lists(st.integers(-3, 6), min_size=1, max_size=60),
    st.lists(INT64, min_size=1, max_size=30),
    st.lists(st.sampled_from([-(2**63), 2**63 - 1, 0, 2**24, 2**24 + 1]), min_size=1, max_size=30),
)


def by_dictionary(labels: list) -> dict:
    expected: dict = {}
    for item, label in enumerate(labels):
        expected.setdefault(label, []).append(item)
    return expected


def as_dictionary(groups: ClassGroups) -> dict:
    names = groups.class_names
    keys = [names[label] for label in groups.labels] if names else groups.labels.tolist()
    return {key: groups.items_of(number).tolist() for number, key in enumerate(keys)}


@settings(deadline=None, max_examples=150)
@given(labels=LABELS, chunk=st.sampled_from([1, 2, 3, 7, 1 << 18]))
def test_agrees_with_a_dictionary(labels, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "_CHUNK", chunk)
        groups = ClassGroups.from_labels(np.asarray(labels, np.int64))
    assert as_dictionary(groups) == by_dictionary(labels)
    assert groups.labels.tolist() == sorted(set(labels))
    assert groups.num_items == len(labels)
    assert groups.items.dtype == np.int32


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_every_integer_type(dtype):
    info = np.iinfo(dtype)
    labels = np.array([info.min, 100, min(info.max, 2**63 - 1), 100, info.min], dtype)
    assert as_dictionary(ClassGroups.from_labels(labels)) == by_dictionary(labels.tolist())


def test_leaves_the_callers_labels_alone():
    labels = np.array([3, 1, 3, 2])
    labels.setflags(write=False)
    groups = ClassGroups.from_labels(labels[::-1])
    assert as_dictionary(groups) == {1: [2], 2: [0], 3: [1, 3]}
    assert labels.tolist() == [3, 1, 3, 2]


KINDS = [list, tuple, np.array, lambda x: np.array(x, object), lambda x: np.array(x).astype("S")]
if hasattr(np.dtypes, "StringDType"):  # of NumPy 2
    KINDS.append(lambda x: np.array(x, np.dtypes.StringDType()))


@pytest.mark.parametrize("kind", KINDS)
def test_strings_are_numbered_in_sorted_order(kind):
    groups = ClassGroups.from_labels(kind(["pear", "apple", "pear", "fig"]))
    assert groups.class_names == ("apple", "fig", "pear")
    assert groups.labels.tolist() == [0, 1, 2]
    assert as_dictionary(groups) == {"apple": [1], "fig": [3], "pear": [0, 2]}


def test_utf8_bytes():
    assert ClassGroups.from_labels(["päron".encode(), "äpple".encode()]).class_names == ("päron", "äpple")


def test_at_least_shares_the_items():
    groups = ClassGroups.from_labels([5, 6, 5, 7, 7, 7])
    kept = groups.at_least(2)
    assert as_dictionary(kept) == {5: [0, 2], 7: [3, 4, 5]}
    assert kept.items is groups.items
    assert (kept.num_classes, kept.num_items) == (2, 5)
    assert groups.at_least(1) is groups
    assert groups.at_least(4).num_classes == 0


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([], ValueError, "empty"),
        (np.zeros((0,), np.int64), ValueError, "empty"),
        (np.zeros((3, 1), np.int64), ValueError, r"shape \(3, 1\).*reshape"),
        (np.eye(3, dtype=np.int64), ValueError, r"shape \(3, 3\).*argmax"),
        (7, ValueError, r"shape \(\)"),
        ([[1, 2], [3]], ValueError, "ragged|shape"),
        (np.array([1.0, np.nan]), TypeError, "float64.*astype"),
        ([1, 2.5], TypeError, "float64"),
        (np.array([True, False]), TypeError, "bool"),
        ([1, None], TypeError, r"labels\[0\]=1 is a int|labels\[1\]=None"),
        (["a", None], TypeError, r"labels\[1\]=None is a NoneType"),
        (["a", 1], TypeError, r"labels\[1\]=1 is a int"),
        (np.array([2**63], np.uint64), ValueError, "9223372036854775808.*int64"),
        ([2**70], TypeError, r"labels\[0\]=1180591620717411303424"),
    ],
)
def test_bad_labels(labels, error, message):
    with pytest.raises(error, match=message):
        ClassGroups.from_labels(labels)
