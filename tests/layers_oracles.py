"""Plain definitions of the heads: float64 NumPy and loops, straight from the papers. They share no code with the library.

Losses come as one number, the mean over the batch.
"""

from __future__ import annotations

import math

import numpy as np


def cosine(u, v):
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    return float(u @ v) / (math.sqrt(float(u @ u)) * math.sqrt(float(v @ v)))


def cross_entropy(logits, labels):
    """Mean of -log softmax."""
    return float(
        np.mean([np.log(np.sum(np.exp(row - row.max()))) + row.max() - row[y] for row, y in zip(logits, labels, strict=True)])
    )


def psi(theta, m):
    """(-1)^k cos(m theta) - 2k, k by the interval that theta lies in."""
    for k in range(m):
        if k * math.pi / m <= theta <= (k + 1) * math.pi / m:
            return (-1) ** k * math.cos(m * theta) - 2 * k
    raise AssertionError(theta)


def a_softmax(x, labels, w, m, annealing):
    logits = np.zeros((len(x), len(w)))
    for i in range(len(x)):
        length = math.sqrt(float(x[i] @ x[i]))
        for j in range(len(w)):
            c = cosine(x[i], w[j])
            logits[i, j] = length * c
            if j == labels[i]:
                theta = math.acos(max(-1.0, min(1.0, c)))
                logits[i, j] = length * (annealing * c + psi(theta, m)) / (1 + annealing)
    return cross_entropy(logits, labels)


def cosine_softmax(x, labels, w, scale, own=lambda theta: math.cos(theta), sub_centers=1):
    """`own` maps the angle to the own class to what takes the place of its cosine."""
    classes = len(w) // sub_centers
    logits = np.zeros((len(x), classes))
    for i in range(len(x)):
        for j in range(classes):
            c = max(cosine(x[i], w[j * sub_centers + k]) for k in range(sub_centers))
            logits[i, j] = scale * (own(math.acos(max(-1.0, min(1.0, c)))) if j == labels[i] else c)
    return cross_entropy(logits, labels)


def proxy_anchor(x, labels, proxies, margin, alpha):
    pull, push, present = 0.0, 0.0, set(labels)
    for p, proxy in enumerate(proxies):
        positives = [i for i in range(len(x)) if labels[i] == p]
        negatives = [i for i in range(len(x)) if labels[i] != p]
        if positives:
            pull += math.log(1 + sum(math.exp(-alpha * (cosine(x[i], proxy) - margin)) for i in positives))
        push += math.log(1 + sum(math.exp(alpha * (cosine(x[i], proxy) + margin)) for i in negatives))
    return pull / len(present) + push / len(proxies)


def proxy_nca(x, labels, proxies, temperature, denominator):
    values = []
    for i in range(len(x)):
        weights = []
        for proxy in proxies:
            u, v = x[i] / np.linalg.norm(x[i]), proxy / np.linalg.norm(proxy)
            weights.append(math.exp(-float(np.sum((u - v) ** 2)) / temperature))
        total = sum(v for j, v in enumerate(weights) if denominator == "all" or j != labels[i])
        values.append(-math.log(weights[labels[i]] / total))
    return float(np.mean(values))


def verification(a, b, same, form, margin, slope=1.0, offset=0.0):
    if form == "cosine":
        s = 1 / (1 + math.exp(-(slope * cosine(a, b) + offset)))
        return 0.5 * (float(same) - s) ** 2
    if form == "l1":
        d = float(np.sum(np.abs(a - b)))
        return d if same else max(0.0, margin - d)
    d = float(np.sqrt(np.sum((a - b) ** 2)))
    if same:
        return 0.0 if form == "l2-" else 0.5 * d**2
    return 0.0 if form == "l2+" else 0.5 * max(0.0, margin - d) ** 2


def deepid2(x, labels, kernel, bias, form="l2", weight=0.05, pairs="all", margin=1.0, slope=1.0, offset=0.0):
    """Half of the mean over pairs of Ident(i) + Ident(j) + weight Verif(i, j)."""
    identification = cross_entropy(x @ kernel + bias, labels)

    def of(i, j):
        return verification(x[i], x[j], labels[i] == labels[j], form, margin, slope, offset)

    if pairs == "consecutive":
        terms = [of(i, i + 1) for i in range(0, len(x) - 1, 2)]
        return identification + 0.5 * weight * (sum(terms) / len(terms) if terms else 0.0)
    every = [(i, j) for i in range(len(x)) for j in range(i)]
    total = 0.0
    for kind in (True, False):
        terms = [of(i, j) for i, j in every if (labels[i] == labels[j]) == kind]
        total += 0.5 * (sum(terms) / len(terms) if terms else 0.0)
    return identification + 0.5 * weight * total


def margin_all_pairs(x, labels, betas, alpha, nu):
    """All ordered pairs; `betas` one for each anchor. Over the number of terms above zero."""
    total, active = 0.0, 0
    for a in range(len(x)):
        total += nu * betas[a]
        for j in range(len(x)):
            if a == j:
                continue
            d = float(np.sqrt(np.sum((x[a] - x[j]) ** 2)))
            y = 1 if labels[a] == labels[j] else -1
            term = max(0.0, alpha + y * (d - betas[a]))
            total += term
            active += term > 0
    return total / active if active else 0.0


def verification_error(threshold, distances, same):
    """Share of positive pairs that are too far plus share of negative pairs that are too near."""
    positives = [d for d, s in zip(distances, same, strict=True) if s]
    negatives = [d for d, s in zip(distances, same, strict=True) if not s]
    return sum(d >= threshold for d in positives) / len(positives) + sum(d < threshold for d in negatives) / len(negatives)


def slopes(function, x, step=1e-6):
    """The gradient of a function of one array, by central differences."""
    x = np.array(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            gradient[index] += sign * function(moved) / (2 * step)
    return gradient
