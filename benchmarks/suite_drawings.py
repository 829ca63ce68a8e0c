"""Cost against size, drawn from the JSON that the benchmarks of the suite wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

# Of one drawing: its title, the axis of sizes and of costs, and a line of (size, cost) for every name.
Lines = dict[str, list[tuple[float, float]]]
Drawing = tuple[str, str, str, Lines]


def draw(folder: Path) -> dict[str, list[str]]:
    """Draws what the folder's files allow; for each benchmark the names of its pictures."""
    pictures: dict[str, list[str]] = {}
    for name, drawings in _DRAWINGS.items():
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        for number, (title, sizes, costs, lines) in enumerate(drawings(json.loads(path.read_text()))):
            shown = {label: sorted(points) for label, points in lines.items() if len(points) > 1}
            if shown:
                picture = f"{name}_{number}.svg"
                _picture(folder / picture, title, sizes, costs, shown)
                pictures.setdefault(name, []).append(picture)
    return pictures


def _picture(path: Path, title: str, sizes: str, costs: str, lines: Lines) -> None:
    figure, axes = pyplot.subplots(figsize=(6.4, 3.8), layout="constrained")
    for label, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(title=title, xlabel=sizes, ylabel=costs, xscale="log", yscale="log")
    ticks = sorted({size for points in lines.values() for size, _ in points})
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    # No date and no random ids: the same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "tfdml"}):
        figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _steps(kind: str, shown: tuple[str, ...]) -> Callable[[Any], Iterator[Drawing]]:
    """Of `losses.py` and `heads.py`: milliseconds by batch, a drawing for each name, a line for each library."""

    def drawings(record: dict[str, Any]) -> Iterator[Drawing]:
        for name in shown:
            lines: Lines = {}
            for row in record["rows"]:
                if row[kind] == name:
                    lines.setdefault(row["library"], []).append((row["batch"], row["ms"]))
            yield f"{name}: forward and backward", "batch", "milliseconds", lines

    return drawings


def _scale(record: dict[str, Any]) -> Iterator[Drawing]:
    lines: Lines = {}
    for row in record["rows"]:
        if row["kind"] == "classes":
            sample = f"{row['sampled']:,} sampled" if row["sampled"] else "all classes"
            lines.setdefault(f"{row['optimizer']}, {sample}", []).append((row["classes"], row["ms"]))
    yield "A step of a head, B = 128", "classes", "milliseconds", lines


def _evaluation(record: dict[str, Any]) -> Iterator[Drawing]:
    lines: Lines = {}
    for size, found in record.items():
        items, _, classes = size.partition(" x ")
        if classes.endswith("classes of 10"):
            for library, figures in found.items():
                if "cpu_seconds" in figures:
                    lines.setdefault(library, []).append((int(items), figures["cpu_seconds"]))
    yield "Retrieval figures, leave-one-out", "images", "CPU seconds", lines


def _sizes(record: list[dict[str, Any]]) -> Iterator[Drawing]:
    for figure, unit in (("milliseconds_p50", "milliseconds, p50"), ("anonymous_megabytes", "MB of its own")):
        yield f"The service: {unit}", "items", unit, {"service": [(row["items"], row[figure]) for row in record]}


def _vectors(record: dict[str, Any]) -> Iterator[Drawing]:
    rows = record["rows"]
    yield "One query", "vectors", "milliseconds, p50", {"FaissIndex": [(row["count"], row["warm"]["p50_ms"]) for row in rows]}
    yield "Build", "vectors", "processor seconds", {"FaissIndex": [(row["count"], row["build_cpu_s"]) for row in rows]}


_DRAWINGS: dict[str, Callable[[Any], Iterator[Drawing]]] = {
    "losses": _steps("loss", ("semi-hard", "margin, distance-weighted", "multi-similarity")),
    "heads": _steps("head", ("ArcFace", "ASoftmax")),
    "scale": _scale,
    "evaluation": _evaluation,
    "hundred_million": _vectors,
    "serving_sizes": _sizes,
}
