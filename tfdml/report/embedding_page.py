"""The report of an embedding."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdml._checks import check_choice
from tfdml.evaluation.embedding_map import METHODS
from tfdml.evaluation.plots import class_sizes_figure, cmc_figure, distances_figure, history_figure, roc_figure
from tfdml.index.base import Integers
from tfdml.report import embedding_parts as parts
from tfdml.report.charts import PAGE_STYLE, Chart, ChartMaker
from tfdml.report.findings import Findings, find
from tfdml.report.images import Pictures
from tfdml.report.page import Cell, Column, Section, count, render, share
from tfdml.report.subject import Subject

_ANSWERS = 8
_MEANINGS = {
    "recall_at_1": ("Recall@1", "the nearest image is of the right class"),
    "r_precision": ("R-Precision", "right ones among the R nearest, R being how many there are"),
    "map_at_r": ("MAP@R", "the same, and right ones first"),
}


def write(
    subject: Subject,
    out: str | os.PathLike[str],
    *,
    map_method: str = "auto",
    map_items: int = 1500,
    duplicates: bool = True,
    seed: int = 0,
) -> Path:
    """Writes the report of an embedding as one HTML file that loads nothing from anywhere.

    It shows the figures with what they are to be compared with, the best, worst and random answers, the distances of positive
    and negative pairs with the threshold, ROC and CMC curves, a map with the images, the classes that are confused most, labels
    that are likely wrong, near-duplicates, a table of all classes, and the training's curves if they are known.

    Args:
        subject: a `Subject`: `Subject.of_bundle(path)`, `Subject.of_model(model, dataset)`, or your own embeddings.
        out: the file.
        map_method: of `tfdml.evaluation.embedding_map`, or `"none"`.
        map_items: how many items the map shows at most; of more, some are drawn.
        duplicates: whether to look for near-duplicates, which takes longest.
        seed: of what is drawn: the random answers, the map, the sample of pairs.

    Raises:
        ImportError: without jinja2, scikit-learn or imagehash: `pip install 'tfdml[report]'`.
        ValueError: if the figures cannot mean anything, see `tfdml.evaluation.retrieval`.
    """
    check_choice("map_method", map_method, ("none", *METHODS))
    findings = find(subject, seed)
    pictures, draw = Pictures(subject.image_bytes), ChartMaker()
    content: dict[str, Any] = {
        "kind": "Embedding report",
        "title": subject.title,
        "subtitle": subject.subtitle,
        "summary": _summary(subject, findings),
        "figures": _figures(subject, findings),
        "remarks": [*subject.remarks, *_remarks(findings)],
        "grids": _grids(subject, findings, pictures, seed),
        "charts": _charts(subject, findings, draw),
        "map": None if map_method == "none" or len(subject) < 8 else parts.map(subject, pictures, map_method, map_items, seed),
        "confusions": parts.confusions(subject, findings, pictures),
        "doubts": parts.doubts(subject, findings, pictures),
        "classes": _classes(subject, findings),
        "training": _training(subject, draw),
        "facts": [*_facts(subject, findings), *subject.facts],
    }
    content["duplicates"], content["duplicates_summary"] = parts.duplicates(subject, pictures) if duplicates else (None, "")
    sections = [
        ("figures", "Figures"),
        ("answers", "Answers"),
        ("curves", "Distances"),
        ("map", "Map"),
        ("confusions", "Confusions"),
        ("labels", "Labels"),
        ("duplicates", "Duplicates"),
        ("classes", "Classes"),
        ("training", "Training"),
        ("about", "How measured"),
    ]
    absent = {name for name in ("map", "training") if not content[name]}
    return render("embedding.html", out, {**content, "sections": [Section(*s) for s in sections if s[0] not in absent]})


def _summary(subject: Subject, findings: Findings) -> str:
    result = findings.retrieval
    hits = result.recall_at[1]
    asked = result.queries - result.queries_without_answer
    return (
        f"For {hits:.0%} of {asked:,} images the nearest of all other images is of the same class, "
        f"out of {len(findings.classes):,} classes."
    )


def _figures(subject: Subject, findings: Findings) -> list[dict[str, Any]]:
    own = findings.retrieval.figures()
    figures = []
    for key, (name, meaning) in _MEANINGS.items():
        rows = [(floor, values[key]) for floor, values in subject.floors.items() if key in values]
        floors = [{"name": floor, "value": value, "text": f"{value:.1%}", "own": False} for floor, value in rows]
        if floors:
            floors.append({"name": "this model", "value": own[key], "text": f"{own[key]:.1%}", "own": True})
        interval = findings.intervals.get(key)
        sure = f"{interval.low:.1%} to {interval.high:.1%}" if interval else ""
        figures.append({"name": name, "text": f"{own[key]:.1%}", "interval": sure, "meaning": meaning, "floors": floors})
    figures.append(
        {
            "name": "Equal error rate",
            "text": f"{findings.verification.eer:.1%}",
            "interval": "",
            "meaning": "of pairs are judged wrong, at the threshold where both kinds of mistake are equally frequent",
            "floors": [],
        }
    )
    return figures


def _remarks(findings: Findings) -> list[str]:
    result = findings.retrieval
    if not result.queries_without_answer:
        return []
    return [f"{result.queries_without_answer:,} images are the only one of their class and count in no figure."]


def _grids(subject: Subject, findings: Findings, pictures: Pictures, seed: int) -> list[dict[str, Any]]:
    found = findings.retrieval.per_query
    answerable = np.flatnonzero(found.answers > 0)
    drawn = np.random.default_rng(seed).permutation(answerable)[:5].tolist()
    worst = _one_of_a_class(subject, found.worst(len(subject)), 5)
    best = _one_of_a_class(subject, found.best(len(subject)), 3)
    choices: list[tuple[str, str, Sequence[int]]] = [
        ("Drawn at random", "What to expect.", drawn),
        ("The worst", "The queries with the lowest average precision, one of a class.", worst),
        ("The best", "The queries with the highest, one of a class.", best),
    ]
    return [
        {"name": name, "meaning": meaning, "rows": [_row(subject, findings, pictures, int(q)) for q in queries]}
        for name, meaning, queries in choices
    ]


def _one_of_a_class(subject: Subject, queries: Integers, wanted: int) -> list[int]:
    """Five rows of one product would show little."""
    chosen: dict[int, int] = {}
    for query in queries.tolist():
        chosen.setdefault(int(subject.labels[query]), query)
        if len(chosen) == wanted:
            break
    return list(chosen.values())


def _row(subject: Subject, findings: Findings, pictures: Pictures, query: int) -> dict[str, Any]:
    found = findings.retrieval.per_query
    answers = [
        {
            "image": pictures(int(number)),
            "title": parts.name_of(subject, int(number)),
            "distance": f"{found.distances[query, place]:.3f}",
            "correct": bool(found.correct[query, place]),
        }
        for place, number in enumerate(found.nearest[query, :_ANSWERS])
    ]
    return {"image": pictures(query), "title": parts.name_of(subject, query), "answers": answers}


def _charts(subject: Subject, findings: Findings, draw: ChartMaker) -> list[Chart]:
    result = findings.verification
    threshold = result.eer_threshold if subject.threshold is None else subject.threshold
    pairs = f"{result.positive_pairs:,} pairs of one class and {result.negative_pairs:,} of two"
    return [
        draw(
            "Distances of pairs",
            distances_figure(findings.positives, findings.negatives, threshold, style=PAGE_STYLE),
            f"The less the two overlap, the better a threshold can tell them apart. The threshold is {subject.threshold_text}.",
        ),
        draw("ROC curve", roc_figure(result, style=PAGE_STYLE), f"Whether two images show one class, over {pairs}."),
        draw(
            "Cumulative matches",
            cmc_figure({"this model": findings.cmc, "random order": findings.cmc_by_chance}, style=PAGE_STYLE),
            "How far down the list of answers one has to look for a right one.",
        ),
        draw(
            "Images of each class",
            class_sizes_figure([row.images for row in findings.classes], style=PAGE_STYLE),
            "Classes with few images have few right answers to find.",
        ),
    ]


def _classes(subject: Subject, findings: Findings) -> dict[str, Any]:
    columns = [
        Column("Class", False),
        Column("Images"),
        Column("Recall@1"),
        Column("R-Precision"),
        Column("MAP@R"),
        Column("Found instead", False),
    ]
    rows = [
        [
            Cell(str(subject.class_names[row.label])),
            count(row.images),
            share(row.recall_at_1),
            share(row.r_precision),
            share(row.map_at_r),
            Cell("" if row.found_instead is None else str(subject.class_names[row.found_instead])),
        ]
        for row in sorted(findings.classes, key=lambda row: (row.map_at_r, row.label))
    ]
    return {"columns": columns, "rows": rows}


def _training(subject: Subject, draw: ChartMaker) -> list[Chart]:
    """Losses, shares and distances have axes of their own."""
    kinds: list[tuple[str, str, Callable[[str], bool], bool]] = [
        ("Loss", "", lambda name: name == "loss", False),
        ("Retrieval on the classes kept out", "", lambda name: name.startswith("val_"), True),
        (
            "Triplets that still teach",
            "The share of triplets of a sample that break the margin. At 0 nothing is left to learn.",
            lambda name: name.startswith("active"),
            True,
        ),
        (
            "Spread of the embedding",
            "Percentiles of the distances between images of a sample. If all fall to 0, the embedding has collapsed.",
            lambda name: name.startswith("distance_"),
            False,
        ),
        ("Where the time goes", "", lambda name: name.startswith("seconds"), False),
    ]
    charts = []
    for title, caption, wanted, percent in kinds:
        curves = {_spoken(name): values for name, values in subject.history.items() if wanted(name)}
        if curves:
            charts.append(draw(title, history_figure(curves, percent=percent, style=PAGE_STYLE), caption))
    return charts


def _spoken(name: str) -> str:
    known = {
        "val_r_precision": "R-Precision",
        "val_map_at_r": "MAP@R",
        "active_triplets": "active triplets",
        "active_pairs": "active pairs",
    }
    text = known.get(name, name.replace("val_recall_at_", "Recall@"))
    if text.startswith("distance_p"):
        text = f"{int(text.removeprefix('distance_p'))}% are nearer"
    return text.replace("_", " ")


def _facts(subject: Subject, findings: Findings) -> list[tuple[str, str]]:
    result, pairs = findings.retrieval, findings.verification
    return [
        ("retrieval", f"each of {result.queries:,} images is a query against all others, by exact {result.metric} distance"),
        ("intervals", "95%, by drawing classes with replacement: had other classes been taken, figures might lie so far away"),
        ("pairs", f"{pairs.positive_pairs:,} of one class and {pairs.negative_pairs:,} of two"),
        ("embedding", f"{subject.embeddings.shape[1]} dimensions"),
        ("doubtful labels", "by the classes of the 10 nearest images, weighted by distance"),
    ]
