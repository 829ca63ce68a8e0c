"""Retrieval figures by plain loops in float64: the definitions, written so that they can be read."""

from __future__ import annotations

import math

import numpy as np


def distance(u, v, metric) -> float:
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    if metric == "cosine":
        u, v = u / math.sqrt(float(u @ u)), v / math.sqrt(float(v @ v))
        return 0.5 * float((u - v) @ (u - v))
    return math.sqrt(float((u - v) @ (u - v)))


def retrieval(queries, labels, gallery=None, gallery_labels=None, exclude=None, *, metric="cosine", ks=(1, 5, 10)):
    """A dict of figures, and per query the order of the items; `exclude` as a number for each query, or -1."""
    if gallery is None:
        gallery, gallery_labels, exclude = queries, labels, range(len(queries))
    hits = {k: [] for k in ks}
    r_precisions, average_precisions, orders, without = [], [], [], 0
    for number, (query, label) in enumerate(zip(queries, labels, strict=True)):
        left_out = -1 if exclude is None else exclude[number]
        others = [item for item in range(len(gallery)) if item != left_out]
        order = sorted(others, key=lambda item: (distance(query, gallery[item], metric), item))
        orders.append(order)
        relevant = [gallery_labels[item] == label for item in order]
        r = sum(relevant)
        if r == 0:
            without += 1
            continue
        for k in ks:
            hits[k].append(any(relevant[:k]))
        r_precisions.append(sum(relevant[:r]) / r)
        average_precisions.append(sum(sum(relevant[:i]) / i for i in range(1, r + 1) if relevant[i - 1]) / r)
    figures = {f"recall_at_{k}": sum(hits[k]) / len(hits[k]) for k in ks}
    figures |= {
        "r_precision": sum(r_precisions) / len(r_precisions),
        "map_at_r": sum(average_precisions) / len(average_precisions),
        "queries": len(queries),
        "queries_without_answer": without,
    }
    return figures, orders
