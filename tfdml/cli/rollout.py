"""`tfdml versions` and `tfdml rollback`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from tfdml.cli.console import console, plain_table, say

ModelPath = Annotated[
    Path, typer.Argument(metavar="BUNDLES", help="A model directory, which holds the versions.", show_default=False)
]
State = Annotated[
    Path | None, typer.Option(help="The file that keeps which version is pinned, if the service was given another one.")
]

_NUMBERS = ("version", "items", "MB")


def versions(
    path: ModelPath,
    state: State = None,
    verify: Annotated[bool, typer.Option(help="Check every byte of every version.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Lists the versions of a bundle, and which of them services are to serve.

    What a running service made of them is at its /v1/versions.
    """
    pinned = _pin(path, state).read()
    rows = [_described(path, version, pinned, verify) for version in _there(path)]
    if as_json:
        console.print_json(json.dumps({"pinned": pinned, "versions": rows}))
        return
    shown = [{name: _cell(value) for name, value in row.items() if name != "problem"} for row in rows]
    columns = list(shown[0])
    plain_table(f"Versions of {path.name}", columns, [[row[name] for name in columns] for row in shown], right=_NUMBERS)
    for row in rows:
        if row["problem"]:
            say(f"[bold]Version {row['version']}[/bold]: {escape(row['problem'])}")
    if pinned is not None and pinned not in _there(path):
        say(f"Version {pinned} is pinned and not there: services stay with what they have.")


def rollback(
    path: ModelPath,
    version: Annotated[
        int | None, typer.Argument(help="The version to go to; the one before that which is served, if left out.")
    ] = None,
    latest: Annotated[bool, typer.Option("--latest", help="Serve the latest version again, and follow new ones.")] = False,
    state: State = None,
    verify: Annotated[bool, typer.Option(help="Check every byte of the version first.")] = True,
) -> None:
    """Makes every service that follows BUNDLES go to an older version, and stay with it until told otherwise.

    Running services do so within seconds, without failing a request; the decision outlives restarts. Nothing is deleted.

    [bold]Example:[/bold]  tfdml rollback exports/products 3    and later    tfdml rollback exports/products --latest
    """
    from tfdml import bundle

    pin, there = _pin(path, state), _there(path)
    if latest:
        if version is not None:
            raise ValueError(f"version={version} and --latest contradict each other; give one of them.")
        pin.write(None)
        say(f"Services that follow {escape(str(path))} serve the latest version again, now {there[-1]}.")
        return
    served = pin.read()
    served = there[-1] if served is None else served
    older = [number for number in there if number < served]
    if version is None:
        if not older:
            raise ValueError(f"there is no version before {served}; {path} has {_named(there)}.")
        version = older[-1]
    if version not in there:
        raise ValueError(f"version={version}: there is no such version; {path} has {_named(there)}.")
    if verify:
        bundle.verify(path / str(version))
    pin.write(version)
    say(f"Services that follow {escape(str(path))} serve version {version} from now on, whatever is published.")
    say(f"Return to the latest with: tfdml rollback {escape(str(path))} --latest")


def _pin(path: Path, state: Path | None) -> Any:
    from tfdml_serving.rollout.pin import NAME, Pin

    return Pin(state or path / NAME)


def _there(path: Path) -> list[int]:
    from tfdml.bundle.layout import resolve
    from tfdml.bundle.layout import versions as versions_in

    if resolve(path) == path:
        raise ValueError(f"{str(path)!r} is one version. Name the directory above it, which holds the versions.")
    return versions_in(path)


def _described(path: Path, version: int, pinned: int | None, verify: bool) -> dict[str, Any]:
    from tfdml import bundle
    from tfdml.bundle.verification import read_manifest

    root = path / str(version)
    served = version == (pinned if pinned is not None else _there(path)[-1])
    row: dict[str, Any] = {
        "version": version,
        "served": ("pinned" if pinned is not None else "latest") if served else "",
        "created": None,
        "items": None,
        "MB": None,
        "model": None,
        "problem": None,
    }
    try:
        manifest = bundle.verify(root).manifest if verify else read_manifest(root)
    except (bundle.BundleError, OSError) as error:
        row["problem"] = str(error)
    else:
        size = sum(file.bytes for file in manifest.files.values())
        row.update(created=manifest.created, items=manifest.items, MB=round(size / 1e6, 1))
        row["model"] = manifest.model.fingerprint[:12]
    return row


def _cell(value: Any) -> str:
    if isinstance(value, str) and value.endswith("Z"):
        return value.rstrip("Z").replace("T", " ")
    return "" if value is None else f"{value:,}" if isinstance(value, (int, float)) else str(value)


def _named(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
