"""The dependencies of the retrieval service, as they are installed: what constraints/serving.txt has to pin."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
NOT_FOR_SERVING = {"tensorflow", "matplotlib"}
"""Of what the wheel asks for, this the service does without: it embeds elsewhere, and draws no pictures."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def roots() -> list[Requirement]:
    """What the service asks for by itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *extras["serving"], *extras["grpc"]]
    return [one for one in map(Requirement, named) if canonical(one.name) not in NOT_FOR_SERVING]


def tree() -> dict[str, set[str]]:
    """Every package that the service needs here, and who asks for it."""
    found: dict[str, set[str]] = {}
    waiting = [(requirement, "tfdml") for requirement in roots()]
    while waiting:
        requirement, asks = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonical(requirement.name)
        known = name in found
        found.setdefault(name, set()).add(asks)
        if known and not requirement.extras:
            continue
        for line in importlib.metadata.requires(name) or []:
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
                inner.marker = None
                if not (known and canonical(inner.name) in found):
                    waiting.append((inner, name))
    return found


def pins(path: Path) -> dict[str, str]:
    """The lines of a constraints file that hold for this Python: name to version."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                [specifier] = requirement.specifier
                assert specifier.operator == "=="
                assert canonical(requirement.name) not in found, line
                found[canonical(requirement.name)] = specifier.version
    return found


def licence(name: str) -> str:
    """What a package's own metadata says, in the shortest form that it gives."""
    metadata = importlib.metadata.metadata(name)
    if metadata.get("License-Expression"):
        return str(metadata["License-Expression"])
    text = (metadata.get("License") or "").strip()
    if text and "\n" not in text and len(text) < 60:
        return text
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    return ", ".join(line.rpartition(" :: ")[2] for line in classifiers) or "none given"
