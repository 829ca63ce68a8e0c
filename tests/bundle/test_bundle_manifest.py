"""The manifest: what it holds comes back, and nothing else is believed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json

import pytest

from tfdml.bundle import BundleError, FoldedRecord, Manifest, MatchProbability, ModelRecord, SearchRecord, Threshold
from tfdml.bundle.layout import FileRecord
from tfdml.bundle.manifest import SCHEMA_VERSION

pytestmark = pytest.mark.one_stack

MANIFEST = Manifest(
    created="2024-05-01T12:00:00Z",
    tfdml_version="0.1.0",
    model=ModelRecord("ab" * 32, 64, True, (28, 28, 1), {"size": [28, 28]}, 1000, ("serving_default", "embed_images")),
    metric="cosine",
    items=10,
    index={"backend": "annoy", "dimension": 64, "recall": 0.97},
    evaluation={"recall_at_1": 0.9},
    thresholds={"far_0.01": Threshold(0.31, 0.29, 0.33, 0.95, "false accept rate 0.01")},
    libraries={"python": "3.11.0"},
    probes=(0, 3),
    files={"saved_model.pb": FileRecord(12, "cd" * 32)},
    search=SearchRecord("ivf", 100, ("title",), 4000, 12, 30, 0.95, 0.96, 10, 0.955, 99, 256, 0),
    space="a space",
    folded=FoldedRecord("6f1e", 17, ("item/3",)),
    match_probability=MatchProbability("isotonic", (0.1, 0.25), (0.9, 0.2), 0.0, 0.0, 500),
)


def signed(content) -> bytes:
    """`content` with a checksum that fits, in canonical form."""
    content = {key: value for key, value in content.items() if key != "checksum"}

    def canonical(value):
        return (json.dumps(value, sort_keys=True, indent=2) + "\n").encode()

    return canonical({**content, "checksum": hashlib.sha256(canonical(content)).hexdigest()})


def content() -> dict:
    return json.loads(MANIFEST.to_bytes())


def test_what_goes_in_comes_out():
    assert Manifest.from_bytes(MANIFEST.to_bytes()) == MANIFEST
    assert signed(content()) == MANIFEST.to_bytes()


def test_every_flipped_bit_is_noticed():
    data = MANIFEST.to_bytes()
    for position in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            with pytest.raises(BundleError):
                Manifest.from_bytes(bytes(broken))


def test_every_truncation_is_noticed():
    data = MANIFEST.to_bytes()
    for length in range(len(data)):
        with pytest.raises(BundleError):
            Manifest.from_bytes(data[:length])


@pytest.mark.parametrize("indent", [None, 4])
def test_another_layout_of_the_same_content_is_refused(indent):
    with pytest.raises(BundleError, match="canonical"):
        Manifest.from_bytes(json.dumps(content(), sort_keys=True, indent=indent).encode() + b"\n")


def test_a_newer_schema_asks_for_an_upgrade():
    with pytest.raises(BundleError, match=r"made by a newer tfdml.*Upgrade"):
        Manifest.from_bytes(signed({**content(), "schema_version": SCHEMA_VERSION + 1}))


def test_a_bundle_without_search():
    without = dataclasses.replace(MANIFEST, search=None)
    assert json.loads(without.to_bytes())["search"] is None
    assert Manifest.from_bytes(without.to_bytes()) == without
    assert without.identity() != MANIFEST.identity()


SINCE_3 = ("space", "folded", "match_probability")


def test_version_1_is_read_and_written_back():
    old = dataclasses.replace(MANIFEST, search=None, space="", folded=None, match_probability=None, schema_version=1)
    data = {key: value for key, value in content().items() if key not in ("search", *SINCE_3)} | {"schema_version": 1}
    assert old.to_bytes() == signed(data)
    assert Manifest.from_bytes(signed(data)) == old
    with pytest.raises(BundleError, match="unknown keys: 'search'"):
        Manifest.from_bytes(signed({**data, "search": None}))
    with pytest.raises(BundleError, match="'search' is missing"):
        Manifest.from_bytes(signed({**data, "schema_version": 2}))


def test_version_3_is_read_and_written_back():
    old = dataclasses.replace(MANIFEST, match_probability=None, schema_version=3)
    data = {key: value for key, value in content().items() if key != "match_probability"} | {"schema_version": 3}
    assert old.to_bytes() == signed(data)
    assert Manifest.from_bytes(signed(data)) == old
    with pytest.raises(BundleError, match="unknown keys: 'match_probability'"):
        Manifest.from_bytes(signed({**data, "match_probability": None}))
    with pytest.raises(BundleError, match="'match_probability' is missing"):
        Manifest.from_bytes(signed({**data, "schema_version": 4}))


def test_version_2_is_read_and_written_back():
    old = dataclasses.replace(MANIFEST, space="", folded=None, match_probability=None, schema_version=2)
    data = {key: value for key, value in content().items() if key not in SINCE_3} | {"schema_version": 2}
    assert old.to_bytes() == signed(data)
    assert Manifest.from_bytes(signed(data)) == old
    with pytest.raises(BundleError, match="unknown keys: 'folded'"):
        Manifest.from_bytes(signed({**data, "folded": None}))
    with pytest.raises(BundleError, match="'space' is missing"):
        Manifest.from_bytes(signed({**data, "schema_version": 3}))


def test_a_bundle_without_probabilities_and_one_whose_probabilities_rise():
    without = dataclasses.replace(MANIFEST, match_probability=None)
    assert Manifest.from_bytes(without.to_bytes()) == without
    record = {**content()["match_probability"], "probabilities": [0.2, 0.9]}
    with pytest.raises(BundleError, match="probabilities that fall"):
        Manifest.from_bytes(signed({**content(), "match_probability": record}))


def test_a_space_is_the_models_own_unless_it_is_named():
    assert dataclasses.replace(MANIFEST, space="").space == MANIFEST.model.fingerprint
    without = dataclasses.replace(MANIFEST, folded=None)
    assert Manifest.from_bytes(without.to_bytes()) == without


@pytest.mark.parametrize(
    "change",
    [{"method": "scann"}, {"lists": 0}, {"probes": 0}, {"max_k": 0}, {"fields": "title"}, {"recall": "high"}],
)
def test_a_search_that_cannot_be_is_named(change):
    (key,) = change
    with pytest.raises(BundleError, match=rf"search\.{key}"):
        Manifest.from_bytes(signed({**content(), "search": {**content()["search"], **change}}))


def keys(value, path=()):
    """Paths of all keys whose absence or type matters."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict) and key not in ("preprocessing", "index"):
            yield from keys(inner, (*path, key))


FREE = {"evaluation", "thresholds", "libraries", "files"}
PATHS = [path for path in keys(content()) if path != ("checksum",)]


@pytest.mark.parametrize("path", [path for path in PATHS if len(path) != 2 or path[0] not in FREE], ids=".".join)
def test_a_missing_key_is_named(path):
    changed = content()
    *parents, last = path
    inner = changed
    for key in parents:
        inner = inner[key]
    del inner[last]
    with pytest.raises(BundleError, match=rf"{last}"):
        Manifest.from_bytes(signed(changed))


WRONG = {
    str: (None, 1, True, ["x"], {"x": "y"}),
    int: (None, "1", 1.5, True, -1, [1]),
    float: (None, "1", True, [1.5]),
    bool: (None, 1, "true"),
    list: (None, "x", 3, {"a": 1}, [None], [1.5]),
    dict: (None, "x", 3, ["x"], True),
}


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_wrong_type_is_named(path):
    *parents, last = path
    for wrong in WRONG[type(functools.reduce(dict.__getitem__, path, content()))]:
        if path in (("search",), ("folded",), ("match_probability",)) and wrong is None:  # a bundle without it
            continue
        changed = content()
        functools.reduce(dict.__getitem__, parents, changed)[last] = wrong
        with pytest.raises(BundleError, match=last):
            Manifest.from_bytes(signed(changed))


@pytest.mark.parametrize("where", ["", "model", "thresholds.far_0.01"])
def test_an_unknown_key_is_named(where):
    changed = content()
    inner = changed
    for key in where.split(".", 1) if where else []:
        inner = inner[key]
    inner["surprise"] = 1
    with pytest.raises(BundleError, match="surprise"):
        Manifest.from_bytes(signed(changed))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": "tfdml.bundle"}',
        b'{"format":"tfdml.bundle","schema_version":NaN}',
    ],
    ids=lambda data: data[:12].decode("ascii", "replace"),
)
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(BundleError, match=r"manifest.json"):
        Manifest.from_bytes(data)


def test_nan_cannot_be_written():
    with pytest.raises(BundleError, match="finite"):
        dataclasses.replace(MANIFEST, evaluation={"recall_at_1": float("nan")}).to_bytes()


def test_identity_covers_all_but_the_files():
    assert dataclasses.replace(MANIFEST, files={}).identity() == MANIFEST.identity()
    for change in (
        {"items": 11},
        {"metric": "euclidean"},
        {"search": None},
        {"thresholds": {}},
        {"created": "2024-05-02T12:00:00Z"},
    ):
        assert dataclasses.replace(MANIFEST, **change).identity() != MANIFEST.identity()
