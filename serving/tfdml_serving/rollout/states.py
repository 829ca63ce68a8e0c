"""What became of the versions, for people to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from tfdml.bundle import Manifest
from tfdml_serving.engine.held import HeldVersion
from tfdml_serving.rollout.folder import Signature
from tfdml_serving.rollout.opened import OpenVersions


@dataclasses.dataclass(frozen=True)
class VersionState:
    """What became of a version.

    Args:
        version: its number.
        state: "current"; "held", open and ready beside it; "available", on the disk; "loading"; or "refused".
        reason: why it is refused, or what its loading waits for.
        items: how many it has; None if that cannot be read.
        created: when it was made.
    """

    version: int
    state: str
    reason: str | None
    items: int | None
    created: str | None


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a version will not do, and what its files were like."""

    reason: str
    signature: Signature


@dataclasses.dataclass
class Waiting:
    """A version that is opened, and waits for its model. The clock runs only while whoever runs the models can be asked."""

    reason: str
    seconds: float = 0.0
    asked: float | None = None


def listed(
    there: Iterable[int],
    open_versions: OpenVersions[HeldVersion],
    refused: Mapping[int, Refusal],
    waiting: Mapping[int, Waiting],
    known: Callable[[int], Manifest | None],
) -> list[VersionState]:
    """The state of every version, in rising order."""
    opened, current = open_versions.all(), open_versions.current
    states = []
    for version in sorted({*there, *opened, *refused}):
        reason = None
        if version == current:
            state = "current"
        elif version in waiting:
            state, reason = "loading", waiting[version].reason
        elif version in opened:
            state = "held"
        elif version in refused:
            state, reason = "refused", refused[version].reason
        else:
            state = "available"
        manifest = opened[version].held.manifest if version in opened else known(version)
        items = opened[version].held.items if version in opened else manifest.items if manifest else None
        states.append(VersionState(version, state, reason, items, manifest.created if manifest else None))
    return states
