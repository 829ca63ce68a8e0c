"""Plain definitions of distances, mining and losses: float64 NumPy and loops, straight from the papers, slow and obvious.

What the library computes is compared with these. They share no code with it.
"""

from __future__ import annotations

import math

import numpy as np


def distance(u, v, metric="euclidean"):
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    if metric == "cosine":
        norms = np.linalg.norm(u) * np.linalg.norm(v)
        return 1.0 - (float(u @ v) / norms if norms else 0.0)
    squared = float(np.sum((u - v) ** 2))
    return squared if metric == "squared_euclidean" else math.sqrt(squared)


def distances(embeddings, metric="euclidean"):
    return np.array([[distance(u, v, metric) for v in embeddings] for u in embeddings])


def triplets(labels, d, mining, fallback="farthest"):
    """The (anchor, positive, negative) that a mining chooses, as a list."""
    items = range(len(labels))
    chosen = []
    for a in items:
        positives = [p for p in items if p != a and labels[p] == labels[a]]
        negatives = [n for n in items if labels[n] != labels[a]]
        if not positives or not negatives:
            continue
        nearest = min(negatives, key=lambda n: d[a, n])
        farthest = max(negatives, key=lambda n: d[a, n])
        if mining == "hard":
            chosen.append((a, max(positives, key=lambda p: d[a, p]), nearest))
        elif mining == "all":
            chosen += [(a, p, n) for p in positives for n in negatives]
        elif mining == "semi_hard":
            for p in positives:
                farther = [n for n in negatives if d[a, n] > d[a, p]]
                if farther:
                    chosen.append((a, p, min(farther, key=lambda n: d[a, n])))
                elif fallback != "none":
                    chosen.append((a, p, {"farthest": farthest, "hardest": nearest}[fallback]))
    return chosen


def triplet_loss(labels, embeddings, margin=0.2, mining="semi_hard", metric="euclidean", average="valid", fallback="farthest"):
    """One value per anchor, whose mean is the loss."""
    d = distances(embeddings, metric)
    values, count = np.zeros(len(labels)), 0
    for a, p, n in triplets(labels, d, mining, fallback):
        x = d[a, p] - d[a, n]
        value = np.logaddexp(0.0, x) if margin == "soft" else max(0.0, x + margin)
        values[a] += value
        count += 1 if average == "valid" else value > 0
    return values * len(labels) / count if count else values


def contrastive_loss(labels, embeddings, margin=1.0, metric="euclidean", average="balanced"):
    """One value per anchor, whose mean is the loss. Every unordered pair is seen from both of its ends."""
    d = distances(embeddings, metric)
    b = len(labels)
    pull, push, pairs, positives, active = np.zeros(b), np.zeros(b), 0, 0, 0
    for i in range(b):
        for j in range(b):
            if i == j:
                continue
            pairs += 1
            if labels[i] == labels[j]:
                pull[i] += 0.5 * d[i, j] ** 2
                positives += 1
            else:
                push[i] += 0.5 * max(0.0, margin - d[i, j]) ** 2
                active += d[i, j] < margin
    if average == "pairs":
        return (pull + push) * b / max(pairs, 1)
    return pull * b / max(positives, 1) + push * b / max(active, 1)


def contrastive_pairs(similar, pairs, margin=1.0, metric="euclidean", average="pairs"):
    """One value per pair; `pairs` is [B, 2, D]."""
    d = np.array([distance(u, v, metric) for u, v in pairs])
    pull = np.array([0.5 * x**2 if s else 0.0 for x, s in zip(d, similar, strict=True)])
    push = np.array([0.0 if s else 0.5 * max(0.0, margin - x) ** 2 for x, s in zip(d, similar, strict=True)])
    if average == "pairs":
        return pull + push
    return len(d) * (pull / max(sum(similar), 1) + push / max(sum(push > 0), 1))


def numeric_gradient(function, x, step=1e-6):
    """The gradient of a scalar function by central differences."""
    x = np.array(x, np.float64)
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[i] += step
        behind[i] -= step
        gradient[i] = (function(ahead) - function(behind)) / (2 * step)
    return gradient
