"""The service under requests that no sane caller sends, in a process of its own whose memory is watched.

    python benchmarks/serving_fuzz.py [--requests 100000] [--examples 1000] [--seed 0] [--json FILE]

With `--requests 0` or `--examples 0` one of the two is left out, and FILE keeps what it has of it.

`tfdml serve` runs with the SavedModel in its process and a living catalogue that may be written. It gets

- mutated images and JSON, made as tests/serving/fuzz_requests.py says;
- then what schemathesis invents by the service's own OpenAPI document, so many examples for each operation.

Counted as wrong is every status of 500 or more but a 503 that says when to ask again, every answer that is none, and every
answer that is not what the document promises. The process must be the same one at the end, and ready.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from _serving_bundles import ROOT
from _serving_processes import environment, megabytes, service

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tests" / "serving"))

from bundle_helpers import gallery_dataset, tiny_model
from fuzz_requests import fuzz

# What a filter, an image or the length of an embedding has to be, no schema can say: so valid requests may be refused.
NOT_CHECKED = "positive_data_acceptance"
# How a service may refuse. schemathesis alone does not count 431, what a query of more than 32 KB gets, nor 413.
REFUSALS = ("400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "431", "503")
_ALIVE_SECONDS = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--examples", type=int, default=1000, help="of schemathesis, for each operation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="add the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as (url, pid):
        figures: dict[str, Any] = {"seed": arguments.seed, "resident_mb_before": own_megabytes(pid)}
        if arguments.requests:
            figures["mutated"] = asyncio.run(mutated(url, pid, arguments.requests, arguments.seed))
        if arguments.examples:
            figures["by_document"] = asyncio.run(by_document(url, pid, arguments.examples, arguments.seed, Path(name)))
        figures["ready_at_the_end"] = is_ready(url)
        figures["resident_mb_at_the_end"] = own_megabytes(pid)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        arguments.json.write_text(json.dumps({**known, **figures}, indent=2) + "\n")
    wrong = sum(figures.get(part, {}).get("wrong", 0) for part in ("mutated", "by_document"))
    raise SystemExit(1 if wrong or not figures["ready_at_the_end"] else 0)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """A bundle of two dozen items in embedded mode, that may be changed: its URL and process id."""
    from tfdml import bundle

    with bundle.export(tiny_model(), gallery_dataset(), folder / "products", search_fields=["label", "price"]):
        pass
    with service(folder / "products", "--living", str(folder / "living.sqlite"), "--writable") as (url, pid):
        # The first images bring TensorFlow's kernels and threads, which are not the fuzzing's.
        asyncio.run(fuzz(url, 300, seed=1_000_000))
        yield url, pid


async def mutated(url: str, pid: int, requests: int, seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    async with watched(pid) as memory:
        report = await fuzz(url, requests, seed)
    for text in report.wrong[:20]:
        print(text, file=sys.stderr)
    return {
        "requests": report.total,
        "seconds": round(time.perf_counter() - began, 1),
        "statuses": dict(sorted(report.statuses.items())),
        "made": dict(collections.Counter(report.made).most_common()),
        "wrong": len(report.wrong),
        **told(memory, pid),
    }


async def by_document(url: str, pid: int, examples: int, seed: int, folder: Path) -> dict[str, Any]:
    """A run of schemathesis, all phases; what it found wrong goes to standard error."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--exclude-checks", NOT_CHECKED]
    command += ["--continue-on-failure", "--warnings", "off", "--no-shrink", "--no-color"]
    command += ["-n", str(examples), "--seed", str(seed)]
    expected = f"[checks]\nnegative_data_rejection.expected-statuses = {json.dumps(REFUSALS)}\n"
    (folder / "schemathesis.toml").write_text(expected)
    began = time.perf_counter()
    async with watched(pid) as memory:
        pipe = asyncio.subprocess.PIPE
        run = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, cwd=folder, env=environment())
        output = (await run.communicate())[0].decode()
    found = re.search(r"([\d,]+) generated(?:, ([\d,]+) found)?", output)
    if found is None or run.returncode:
        # Its requests may be of kilobytes, in which what is wrong with them drowns.
        print(re.sub(r"(%[0-9A-F]{2}){20,}", "...", output)[-20_000:], file=sys.stderr)
    cases, wrong = (int((count or "0").replace(",", "")) for count in found.groups()) if found else (0, 1)
    return {
        "examples_for_each_operation": examples,
        "requests": cases,
        "seconds": round(time.perf_counter() - began, 1),
        "wrong": max(wrong, run.returncode),
        **told(memory, pid),
    }


@contextlib.asynccontextmanager
async def watched(pid: int) -> AsyncIterator[list[int]]:
    """The memory of a process that no file stands behind, in megabytes, ten times a second."""
    found: list[int] = []

    async def look() -> None:
        while True:
            found.append(own_megabytes(pid))
            await asyncio.sleep(0.1)

    task = asyncio.create_task(look())
    try:
        yield found
    finally:
        task.cancel()


def told(memory: list[int], pid: int) -> dict[str, Any]:
    tenth = max(1, len(memory) // 10)
    return {
        "resident_mb_peak": max(memory),
        "resident_mb_median_of_each_tenth": [
            sorted(memory[start : start + tenth])[len(memory[start : start + tenth]) // 2]
            for start in range(0, 10 * tenth, tenth)
            if memory[start : start + tenth]
        ],
        "resident_mb_after": own_megabytes(pid),
    }


def own_megabytes(pid: int) -> int:
    return megabytes(pid, "RssAnon", "RssShmem")


def is_ready(url: str) -> bool:
    end = time.perf_counter() + _ALIVE_SECONDS
    while time.perf_counter() < end:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/readyz", timeout=10)
            return True
        time.sleep(0.5)
    return False


if __name__ == "__main__":
    main()
