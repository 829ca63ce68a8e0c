"""The audit of what the service is made of: everything is pinned, reviewed, and under a licence that was looked at."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
from dependency_tree import NOT_FOR_SERVING, ROOT, canonical, licence, pins, roots, tree

SERVING = ROOT / "constraints" / "serving.txt"
REVIEW = ROOT / "serving" / "deploy" / "dependencies.md"
# MPL-2.0 asks for nothing as long as its files are not changed.
PERMISSIVE = {"MIT", "MIT-CMU", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Apache-2.0", "ISC", "Zlib", "CC0-1.0", "PSF-2.0"}
PERMISSIVE |= {"MPL-2.0"}

# The versions are those of the newest stack; TF 2.15 holds some of them back, and is not what is deployed.
newest = pytest.mark.skipif(importlib.metadata.version("tensorflow").startswith("2.15"), reason="another stack's versions")


def reviewed() -> dict[str, tuple[str, str, str]]:
    """The rows of the list: package to (licence, in its own words, why)."""
    lines = REVIEW.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    found = {name.strip("`"): (spdx, words, why) for name, spdx, words, why in rows}
    assert len(found) == len(rows), "a package is listed twice"
    return found


@newest
def test_the_installed_tree_is_the_pinned_one():
    installed = {name: importlib.metadata.version(name) for name in tree()}
    assert installed == pins(SERVING)


@newest
def test_the_tree_is_the_reviewed_one_and_nothing_has_changed_its_licence():
    pinned = pins(SERVING)
    review = {name: row for name, row in reviewed().items() if name in pinned}  # some are for an older Python only
    assert sorted(tree()) == sorted(review), f"review what joined or left: {sorted(set(tree()) ^ set(review))}"
    for name, (spdx, words, _) in review.items():
        says = licence(name)
        assert says == (words or spdx), f"{name} is under {says!r} now; {REVIEW.name} has {words or spdx!r}"


def test_every_licence_is_permissive_and_every_reason_given():
    for name, (spdx, _, why) in reviewed().items():
        assert set(re.split(r" AND ", spdx)) <= PERMISSIVE, f"{name}: {spdx}"
        assert len(why) > 10, name


def test_the_list_is_in_order_and_has_nothing_that_is_not_pinned():
    lines = SERVING.read_text(encoding="utf-8").splitlines()
    assert list(reviewed()) == sorted({line.partition("==")[0] for line in lines if not line.startswith("#")})


def test_what_is_deployed_is_what_was_tested():
    """The same lines as in the tested stack's file, for every Python."""
    tested = (ROOT / "constraints" / "keras3.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in SERVING.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0])
    names = {line.partition("==")[0] for line in lines}
    assert lines == [line for line in tested if line.partition("==")[0] in names]
    assert not names & {*NOT_FOR_SERVING, "keras"}


def test_what_the_service_asks_for_is_met_by_the_pins():
    pinned = pins(SERVING)
    for requirement in roots():
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(pinned[canonical(requirement.name)]), str(requirement)


def test_the_audit_sees_what_joins(monkeypatch):
    """A package that somebody starts to ask for is in the tree at once."""
    before = set(tree())
    asked = importlib.metadata.requires

    more = {"uvicorn": ["pluggy"]}
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [*(asked(name) or []), *more.get(name, [])])
    assert set(tree()) - before == {"pluggy"}
