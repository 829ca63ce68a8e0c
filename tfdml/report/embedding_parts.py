"""The parts of an embedding's report that show single images: the map, confusions, doubtful labels, duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfdml.data_care.near_duplicates import grey_square, groups, near_duplicates
from tfdml.evaluation.embedding_map import embedding_map
from tfdml.evaluation.plots import class_color
from tfdml.report.findings import Findings
from tfdml.report.images import Pictures, small_picture
from tfdml.report.subject import Subject

_DOUBTS, _DOUBTFUL = 18, 0.3
_DUPLICATES = 18


def name_of(subject: Subject, number: int) -> str:
    """The class of an item."""
    return str(subject.class_names[subject.labels[number]])


def map(subject: Subject, pictures: Pictures, method: str, items: int, seed: int) -> dict[str, Any]:
    chosen = np.sort(np.random.default_rng(seed).permutation(len(subject))[: max(3, items)])
    places = embedding_map(subject.embeddings[chosen], method, metric=subject.metric, seed=seed)
    sprite = pictures.sprite(chosen.tolist())
    labels = subject.labels[chosen]
    present = np.unique(labels)
    colors = {int(label): class_color(place) for place, label in enumerate(present)}
    points = [
        {
            "x": round(100 * float(x), 1),
            "y": round(-100 * float(y), 1),
            "label": int(label),
            "color": colors[int(label)],
        }
        for (x, y), label in zip(places, labels, strict=True)
    ]
    part = "all" if len(chosen) == len(subject) else f"{len(chosen):,} of {len(subject):,}"
    known = {"auto": "t-SNE", "tsne": "t-SNE", "umap": "UMAP", "pca": "the first two principal components"}
    names = sorted(((str(subject.class_names[label]), int(label)) for label in present), key=lambda item: item[0].lower())
    return {
        "caption": f"{part.capitalize()} images, laid out by {known[method]}; each colour is a class. "
        "Near means alike; how far apart two groups lie means little.",
        "points": points,
        "classes": [{"name": name, "number": number} for name, number in names],
        "data": {
            "sprite": sprite.uri,
            "columns": sprite.columns,
            "side": sprite.side,
            "names": [str(name) for name in subject.class_names],
        },
    }


def confusions(subject: Subject, findings: Findings, pictures: Pictures) -> list[dict[str, Any]]:
    return [
        {
            "first": name_of(subject, pair.first),
            "second": name_of(subject, pair.second),
            "mistakes": f"{pair.mistakes:,}",
            "queries": f"{pair.queries:,}",
            "share": f"{pair.share:.0%}",
            "examples": [
                {
                    "query": pictures(int(query)),
                    "query_title": name_of(subject, int(query)),
                    "found": pictures(int(answer)),
                    "found_title": name_of(subject, int(answer)),
                }
                for query, answer in pair.examples[:4]
            ],
        }
        for pair in findings.confused
    ]


def doubts(subject: Subject, findings: Findings, pictures: Pictures) -> list[dict[str, Any]]:
    doubts = findings.doubts
    return [
        doubt_card(
            subject.ids,
            [name_of(subject, n) for n in (number, int(doubts.suggested[number]))],
            doubts,
            number,
            pictures,
            [name_of(subject, int(near)) for near in doubts.neighbours[number, :5]],
        )
        for number in doubts.worst(_DOUBTS).tolist()
        if doubts.doubt[number] > _DOUBTFUL
    ]


def doubt_card(
    ids: Sequence[str], names: Sequence[str], doubts: Any, number: int, pictures: Pictures, near: Sequence[str]
) -> dict[str, Any]:
    """What the template shows of an image whose label is in doubt; `names`: its label, and what its neighbours suggest."""
    return {
        "id": ids[number],
        "image": pictures(number),
        "label": names[0],
        "suggested": names[1],
        "doubt": float(doubts.doubt[number]),
        "neighbours": [
            {"image": pictures(int(item)), "label": name, "same": name == names[0]}
            for item, name in zip(doubts.neighbours[number], near, strict=False)
        ],
    }


def duplicates(subject: Subject, pictures: Pictures) -> tuple[list[dict[str, Any]], str]:
    greys = np.stack([grey_square(small_picture(subject.image_bytes(number), 128)) for number in range(len(subject))])
    pairs = near_duplicates(greys)
    members = groups([(pair.first, pair.second) for pair in pairs], len(subject))
    nearest = {number: pair.similarity for pair in reversed(pairs) for number in (pair.first, pair.second)}
    names = {number: name_of(subject, number) for group in members for number in group}
    members.sort(key=lambda group: (len({names[number] for number in group}) == 1, -nearest[group[0]]))
    cards = []
    for group in members[:_DUPLICATES]:
        two = len({names[number] for number in group}) > 1
        cards.append(
            {
                "alarms": ["One picture in two classes"] if two else [],
                "items": [{"image": pictures(n), "label": names[n], "side": "", "id": subject.ids[n]} for n in group[:6]],
                "more": max(0, len(group) - 6),
                "kind": f"grey values correlate by {nearest[group[0]]:.3f}",
            }
        )
    copies = sum(len(group) - 1 for group in members)
    more = f" The first {_DUPLICATES} of {len(members)} are shown." if len(members) > _DUPLICATES else ""
    return cards, (
        f"{copies:,} of {len(subject):,} images show a picture that another shows too: the same shot, perhaps cropped, "
        f"compressed again or brighter. They make figures look better than they are.{more}"
    )
