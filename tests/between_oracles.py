"""The losses' definitions between anchors and references, in float64 and loops.

All take `kinds`, [B, M] numbers: 1 for a positive pair, -1 for a negative pair, 0 for what does not count.
"""

from __future__ import annotations

import math

import numpy as np
import oracles


def kinds_of(labels, reference_labels, valid=None, itself=None):
    """Labels are numbers, or sets of numbers: positive pairs share one."""
    kinds = np.zeros((len(labels), len(reference_labels)), int)
    for a, label in enumerate(labels):
        for j, other in enumerate(reference_labels):
            if (valid is None or valid[j]) and (itself is None or itself[a] != j):
                same = bool(label & other) if isinstance(label, set) else label == other
                kinds[a, j] = 1 if same else -1
    return kinds


def distances(x, r, metric="euclidean"):
    return np.array([[oracles.distance(u, v, metric) for v in r] for u in x])


def positives(kinds, a):
    return [j for j in range(kinds.shape[1]) if kinds[a, j] == 1]


def negatives(kinds, a):
    return [j for j in range(kinds.shape[1]) if kinds[a, j] == -1]


def triplets(kinds, d, mining):
    chosen = []
    for a in range(len(kinds)):
        ps, ns = positives(kinds, a), negatives(kinds, a)
        if not ps or not ns:
            continue
        if mining == "hard":
            chosen.append((a, max(ps, key=lambda p: d[a, p]), min(ns, key=lambda n: d[a, n])))
        elif mining == "all":
            chosen += [(a, p, n) for p in ps for n in ns]
        else:
            for p in ps:
                farther = [n for n in ns if d[a, n] > d[a, p]]
                pick = min(farther, key=lambda n: d[a, n]) if farther else max(ns, key=lambda n: d[a, n])
                chosen.append((a, p, pick))
    return chosen


def triplet(kinds, x, r, margin, mining, average):
    d = distances(x, r)
    return oracles.triplet_terms(d, triplets(kinds, d, mining), margin, average)


def contrastive(kinds, x, r, margin, average="pairs", form="squared"):
    d = distances(x, r)
    pull, push = np.zeros_like(d), np.zeros_like(d)
    for a, j in np.ndindex(*d.shape):
        if kinds[a, j] == 1:
            pull[a, j] = oracles.contrastive_pull(d[a, j], form)
        elif kinds[a, j] == -1:
            push[a, j] = oracles.contrastive_push(d[a, j], margin, form)
    if average == "pairs":
        return (pull + push).sum(1) * len(x) / max((kinds != 0).sum(), 1)
    return len(x) * (pull.sum(1) / max((kinds == 1).sum(), 1) + push.sum(1) / max((push > 0).sum(), 1))


def margin_pairs(kinds, x, r, positive_pairs, negative_pairs, alpha, beta, average):
    d = distances(x, r)
    values, count = np.zeros(len(x)), 0
    for sign, pairs in ((1, positive_pairs), (-1, negative_pairs)):
        for a, j in pairs:
            value = max(0.0, alpha + sign * (d[a, j] - beta))
            values[a] += value
            count += 1 if average == "valid" else value > 0
    return values * len(x) / max(count, 1)


def lifted(kinds, x, r, margin, variant):
    d = distances(x, r)
    values, count = np.zeros(len(x)), 0
    for a in range(len(x)):
        ps, ns = positives(kinds, a), negatives(kinds, a)
        if variant == "original":
            count += len(ps)
            for p in ps:
                # The negatives of a reference are the anchors of other labels.
                terms = [math.exp(margin - d[a, n]) for n in ns]
                terms += [math.exp(margin - d[b, p]) for b in range(len(x)) if kinds[b, p] == -1]
                if terms:
                    values[a] += max(0.0, math.log(sum(terms)) + d[a, p]) ** 2 / 2
        elif ps and ns:
            count += 1
            far = math.log(sum(math.exp(d[a, p]) for p in ps))
            values[a] = max(0.0, far + math.log(sum(math.exp(margin - d[a, n]) for n in ns)))
    return values * len(x) / max(count, 1)


def multi_similarity(kinds, x, r, alpha=2.0, beta=50.0, base=0.5, epsilon=0.1):
    s = 1 - distances(x, r, "cosine")
    values = np.zeros(len(x))
    for a in range(len(x)):
        ps, ns = [s[a, p] for p in positives(kinds, a)], [s[a, n] for n in negatives(kinds, a)]
        least, most = min(ps, default=math.inf), max(ns, default=-math.inf)
        values[a] = math.log(1 + sum(math.exp(-alpha * (z - base)) for z in ps if z < most + epsilon)) / alpha
        values[a] += math.log(1 + sum(math.exp(beta * (z - base)) for z in ns if z > least - epsilon)) / beta
    return values


def circle(kinds, x, r, margin, gamma, weights_of):
    s, w = 1 - distances(x, r, "cosine"), 1 - distances(*weights_of, "cosine")
    values, count = np.zeros(len(x)), 0
    for a in range(len(x)):
        ps, ns = positives(kinds, a), negatives(kinds, a)
        if ps and ns:
            count += 1
            far = sum(math.exp(-gamma * max(0.0, 1 + margin - w[a, p]) * (s[a, p] - 1 + margin)) for p in ps)
            near = sum(math.exp(gamma * max(0.0, w[a, n] + margin) * (s[a, n] - margin)) for n in ns)
            values[a] = math.log(1 + near * far)
    return values * len(x) / max(count, 1)


def each_positive(kinds, s, variant="mc"):
    """Sum over positives of log(1 + sum over negatives of e^(s_an - s_ap)), or of the sum of logs; and how many positives."""
    values, count = np.zeros(len(s)), 0
    for a in range(len(s)):
        ns = negatives(kinds, a)
        for p in positives(kinds, a) if ns else []:
            behind = [math.exp(s[a, n] - s[a, p]) for n in ns]
            values[a] += math.log(1 + sum(behind)) if variant == "mc" else sum(math.log(1 + z) for z in behind)
            count += 1
    return values, count


def nt_xent(kinds, x, r, temperature):
    values, count = each_positive(kinds, (1 - distances(x, r, "cosine")) / temperature)
    return values * len(x) / max(count, 1)


def n_pair(kinds, x, r, variant, l2):
    values, count = each_positive(kinds, np.asarray(x) @ np.asarray(r).T, variant)
    part = [a for a in range(len(x)) if positives(kinds, a) and negatives(kinds, a)]
    values = values * len(x) / max(count, 1)
    for a in part:
        values[a] += l2 * float(x[a] @ x[a]) * len(x) / len(part)
    return values


def sup_con(kinds, x, r, temperature):
    e = np.exp((1 - distances(x, r, "cosine")) / temperature)
    values, count = np.zeros(len(x)), 0
    for a in range(len(x)):
        ps = positives(kinds, a)
        if ps:
            total = sum(e[a, j] for j in range(len(r)) if kinds[a, j])
            values[a] = -sum(math.log(e[a, p] / total) for p in ps) / len(ps)
            count += 1
    return values * len(x) / max(count, 1)
