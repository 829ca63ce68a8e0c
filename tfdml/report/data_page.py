"""The report of `tfdml data check`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfdml.data_care.data_report import DataReport, DuplicateGroup
from tfdml.evaluation.plots import class_sizes_figure, sizes_figure
from tfdml.report.charts import PAGE_STYLE, ChartMaker
from tfdml.report.embedding_parts import doubt_card
from tfdml.report.images import Pictures
from tfdml.report.page import Cell, Column, Section, count, render

_CARDS, _ITEMS = 60, 6
_DOUBTS = 48


def write_data(report: DataReport, out: str | os.PathLike[str], title: str = "Photographs") -> Path:
    """Writes what `tfdml.data_care.check` found as one HTML file that loads nothing from anywhere.

    Args:
        report: a `DataReport`.
        out: the file.
        title: what the images are called.
    """
    pictures, draw = Pictures(report.image_bytes), ChartMaker()
    others = [group for group in report.duplicates if not group.leaks and not group.across_classes]
    across = [group for group in report.across_classes if not group.leaks]
    content: dict[str, Any] = {
        "kind": "Data check",
        "title": title,
        "subtitle": f"{len(report):,} images of {len(report.class_counts):,} classes",
        "summary": _summary(report),
        "figures": _figures(report),
        "leaks": _duplicates(report, report.leaks, pictures),
        "across": _duplicates(report, across, pictures),
        "duplicates": _duplicates(report, others, pictures),
        "doubts": _doubts(report, pictures),
        "doubted_by": report.doubted_by,
        "files": _files(report),
        "charts": [
            draw(
                "Images of each class",
                class_sizes_figure(list(report.class_counts.values()), style=PAGE_STYLE),
                "The long tail: a class needs two images to be trained on, and some more to be judged.",
            ),
            draw(
                "Sizes of the images",
                sizes_figure(report.widths, report.heights, style=PAGE_STYLE),
                "In pixels; a larger dot stands for more images. On the dotted line images are square.",
            ),
        ],
        "classes": {
            "columns": [Column("Class", False), Column("Images")],
            "rows": [[Cell(name), count(images)] for name, images in report.class_counts.items()],
        },
    }
    sections = [
        ("summary", "Summary", True),
        ("leaks", "Leaks", content["leaks"]),
        ("across", "Two classes", content["across"]),
        ("labels", "Labels", content["doubts"]),
        ("duplicates", "Duplicates", content["duplicates"]),
        ("files", "Files", content["files"]),
        ("classes", "Classes", True),
    ]
    return render("data.html", out, {**content, "sections": [Section(i, name) for i, name, there in sections if there]})


def _summary(report: DataReport) -> str:
    if report.in_order:
        return (
            "Nothing is certainly wrong: every file can be read, and no picture is in two classes or on two sides of a split."
        )
    wrong = [
        (len(report.unreadable), "files cannot be read"),
        (len(report.leaks), "pictures are on both sides of the split"),
        (len(report.across_classes), "pictures are in two classes"),
        (len(report.blank), "images show nothing"),
    ]
    return "To be mended: " + ", ".join(f"{number:,} {what}" for number, what in wrong if number) + "."


def _figures(report: DataReport) -> list[dict[str, Any]]:
    copies = sum(len(group.items) - 1 for group in report.duplicates)
    figures = [
        ("Unreadable", len(report.unreadable), "files that training cannot use", True),
        ("Leaks", len(report.leaks), "pictures on both sides of the split", True),
        ("Two classes", len(report.across_classes), "pictures with two labels", True),
        ("Copies", copies, "images more than there are pictures", False),
        ("Labels in doubt", len(report.doubtful()), "their neighbours are of another class", False),
        ("Rare classes", len(report.rare), f"with fewer than {report.few_images} images", False),
        (
            "Tiny or blank",
            len({*report.tiny, *report.blank}),
            f"a side below {report.tiny_side} pixels, or nothing to see",
            False,
        ),
    ]
    return [
        {"name": name, "text": f"{number:,}", "meaning": meaning, "bad": serious and number > 0}
        for name, number, meaning, serious in figures
        if name != "Leaks" or report.sides
    ]


def _duplicates(report: DataReport, found: Sequence[DuplicateGroup], pictures: Pictures) -> dict[str, Any] | None:
    if not found:
        return None
    cards = []
    for group in found[:_CARDS]:
        alarms = ["On both sides of the split"] * group.leaks + ["One picture in two classes"] * group.across_classes
        items = [
            {
                "image": pictures(n),
                "label": report.labels[n],
                "side": report.sides[n] if report.sides else "",
                "id": report.ids[n],
            }
            for n in _shown(report, group)
        ]
        kind = group.kind if group.similarity == 1 else f"{group.kind}, grey values correlate by {group.similarity:.3f}"
        cards.append({"alarms": alarms, "items": items, "more": len(group.items) - len(items), "kind": kind})
    return {"shown": cards, "more": _more(len(found), _CARDS)}


def _shown(report: DataReport, group: DuplicateGroup) -> list[int]:
    """A few of a group, of every class and side if there is room."""
    kinds: dict[tuple[str, str], int] = {}
    for number in group.items:
        kinds.setdefault((report.labels[number], report.sides[number] if report.sides else ""), number)
    first = list(kinds.values())[:_ITEMS]
    return first + [number for number in group.items if number not in first][: _ITEMS - len(first)]


def _doubts(report: DataReport, pictures: Pictures) -> dict[str, Any] | None:
    numbers, doubts = report.doubtful(), report.doubts
    if doubts is None or not numbers:
        return None
    cards = [
        doubt_card(
            report.ids,
            [report.labels[number], report.labels[doubts.suggested[number]]],
            doubts,
            number,
            pictures,
            [report.labels[near] for near in doubts.neighbours[number, :5]],
        )
        for number in numbers[:_DOUBTS]
    ]
    return {"shown": cards, "more": _more(len(numbers), _DOUBTS)}


def _files(report: DataReport) -> dict[str, Any] | None:
    rows = [[Cell(file), Cell(reason)] for file, reason in report.unreadable]
    rows += [
        [Cell(report.ids[n]), Cell(f"{report.widths[n]} x {report.heights[n]} pixels: a side is below {report.tiny_side}")]
        for n in report.tiny
    ]
    rows += [[Cell(report.ids[n]), Cell("shows one even area")] for n in report.blank]
    return {"columns": [Column("File", False), Column("Reason", False)], "rows": rows} if rows else None


def _more(number: int, shown: int) -> str:
    return f" The first {shown} of {number:,} are shown." if number > shown else ""
