"""Every benchmark, in less than an hour: JSON, one Markdown page with the tables, and drawings of cost against size.

    make bench                                                # into build/bench
    python benchmarks/suite.py --out FOLDER --only losses heads
    python benchmarks/suite.py --list

Each benchmark runs as its own page tells, with fewer rounds and sizes; peers run in their own environments, where those are
(`make setup-keras2 setup-peers`). One that fails or takes longer than its limit is named so on the page, and the others go on.
A part that stands in the folder already is kept, so an interrupted suite is taken up where it was; `--again` measures anew.

The page says at which commit it was measured, on which machine, with which versions. Spread stands in the JSON of each
benchmark, and in the tables where it decides anything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import suite_drawings
from _common import ROOT, machine

SHOWN = ("tensorflow", "keras", "numpy", "annoy", "faiss-cpu", "fastapi", "uvicorn")


@dataclass(frozen=True)
class Part:
    """One benchmark of the suite: how it is called, and after how many seconds it is stopped."""

    title: str
    arguments: tuple[str, ...]
    limit: int
    needs_photographs: bool = False


PARTS = {
    "losses": Part("Losses: one step", ("--rounds", "2", "--seconds", "0.25"), 900),
    "heads": Part("Heads: one step", ("--rounds", "2", "--seconds", "0.25", "--batch", "128", "512"), 400),
    "training": Part(
        "Training: whole steps", ("--loss", "triplet_semi_hard", "--rounds", "2", "--seconds", "2"), 600, needs_photographs=True
    ),
    "samplers": Part("Samplers", (), 300),
    "scale": Part("Many classes, large batches and memories", ("--seconds", "2"), 700),
    "input": Part("Input off disk", ("--items", "200000", "--classes", "20000", "--steps", "80"), 300),
    "evaluation": Part("Evaluation", ("--sizes", "20000", "60000", "--limit", "120"), 400),
    "export": Part("Exported signatures", ("--rounds", "10"), 200),
    "index_backends": Part("Indexes", ("--items", "20000"), 300),
    "hundred_million": Part("Many vectors", ("--counts", "300000", "1000000"), 300),
    "search_signature": Part("The search signature", ("--items", "200000", "--methods", "ivf", "--rounds", "10"), 300),
    "serving": Part("The service", ("--rounds", "3", "--parts", "latency", "overload"), 400),
    "serving_sizes": Part("Sizes of the service", ("--items", "10000", "100000", "--searches", "500"), 300),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--again", action="store_true", help="also what the folder holds already")
    parser.add_argument("--list", action="store_true", help="print the commands, and measure nothing")
    args = parser.parse_args()
    if args.list:
        for name in args.only:
            print(" ".join(command(name, args.out)[1:]))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        if args.again or not (args.out / f"{name}.run.json").exists():
            record = run(name, args.out)
            (args.out / f"{name}.run.json").write_text(json.dumps(record, indent=1) + "\n")
    drawings = suite_drawings.draw(args.out)
    page = args.out / "README.md"
    page.write_text(written(args.out, drawings))
    print(page)


def command(name: str, out: Path) -> list[str]:
    return [sys.executable, f"benchmarks/{name}.py", *PARTS[name].arguments, "--json", str(out / f"{name}.json")]


def run(name: str, out: Path) -> dict[str, Any]:
    """Runs one benchmark; what it printed, how long it took, how it ended."""
    part = PARTS[name]
    if part.needs_photographs and "TFDML_DATA" not in os.environ:
        return {"ended": "left out: it needs photographs, in the folder that TFDML_DATA names", "seconds": 0, "printed": ""}
    print(f"{name} ...", end=" ", flush=True, file=sys.stderr)
    (out / f"{name}.json").unlink(missing_ok=True)
    started = time.monotonic()
    with open(out / f"{name}.log", "w") as log:
        # A session of its own, so that its workers can be stopped with it: one that goes on would slow down the next part.
        process = subprocess.Popen(
            command(name, out), cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            printed, _ = process.communicate(timeout=part.limit)
            ended = "" if process.returncode == 0 else f"failed with status {process.returncode}; see {name}.log"
        except subprocess.TimeoutExpired:
            ended, printed = f"stopped after {part.limit} s", ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = round(time.monotonic() - started)
    print(f"{seconds} s {ended}", file=sys.stderr)
    return {"ended": ended, "seconds": seconds, "printed": printed, **circumstances()}


def circumstances() -> dict[str, Any]:
    """When, at which commit, with what."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    versions = {}
    for package in SHOWN:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "commit": commit + (" with changes" if changed else ""),
        "day": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {"python": sys.version.split()[0], **versions},
    }


def written(out: Path, drawings: dict[str, list[str]]) -> str:
    """The page of everything that the folder holds."""
    records = {
        name: json.loads((out / f"{name}.run.json").read_text()) for name in PARTS if (out / f"{name}.run.json").exists()
    }
    minutes = sum(record["seconds"] for record in records.values()) / 60
    lines = ["# Benchmarks", "", f"`make bench`: {len(records)} of {len(PARTS)} benchmarks, {minutes:.0f} minutes.", ""]
    lines += [f"Measured {each}." for each in dict.fromkeys(where(record) for record in records.values() if "commit" in record)]
    lines += ["", "| benchmark | seconds | commit | day |", "|---|---:|---|---|"]
    for name, record in records.items():
        row = [f"[{PARTS[name].title}](#{name})", str(record["seconds"]), record.get("commit", ""), record.get("day", "")]
        lines.append("| " + " | ".join(row) + " |")
    for name, record in records.items():
        lines += ["", f'<a id="{name}"></a>', "", f"## {PARTS[name].title}", ""]
        lines += ["```", f"python benchmarks/{name}.py {' '.join(PARTS[name].arguments)}".rstrip(), "```", ""]
        if record["ended"]:
            lines.append(f"**{record['ended']}.**")
        lines += [f"![{PARTS[name].title}: cost against size]({picture})\n" for picture in drawings.get(name, [])]
        if printed := record["printed"].strip():
            lines.append(shown(printed))
    return "\n".join(lines) + "\n"


def where(record: dict[str, Any]) -> str:
    found = record["machine"]
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    return f"on {found['cpus']} cores of {found['cpu']}, {found['system']}, with {versions}"


def shown(printed: str) -> str:
    """What a benchmark printed, as Markdown: its own tables, a table of its JSON, or as it stands."""
    if "\n|" in f"\n{printed}":
        return printed
    try:
        found = json.loads(printed)
    except json.JSONDecodeError:
        return f"```\n{printed}\n```"
    rows = [f"| {name} | {value} |" for name, value in leaves(found)]
    return "\n".join(["| | |", "|---|---:|", *rows])


def leaves(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every figure of nested JSON under its path; machine and versions stand at the head of the page."""
    if isinstance(found, dict):
        for name, value in found.items():
            if path or name not in ("machine", "versions", "cpu", "cpus"):
                yield from leaves(value, (*path, name.replace("_", " ")))
    elif isinstance(found, list) and any(isinstance(value, dict | list) for value in found):
        for number, value in enumerate(found, 1):
            yield from leaves(value, (*path, str(number)))
    else:
        values = found if isinstance(found, list) else [found]
        texts = (f"{value:,}" if type(value) in (int, float) else str(value) for value in values)
        yield ", ".join(path), " x ".join(texts)


if __name__ == "__main__":
    main()
