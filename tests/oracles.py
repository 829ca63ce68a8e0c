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
    return triplet_terms(d, triplets(labels, d, mining, fallback), margin, average)


def triplet_terms(d, triplets, margin=0.2, average="valid"):
    """One value per anchor, whose mean is the loss, from a list of triplets."""
    values, count = np.zeros(len(d)), 0
    for a, p, n in triplets:
        x = d[a, p] - d[a, n]
        value = np.logaddexp(0.0, x) if margin == "soft" else max(0.0, x + margin)
        values[a] += value
        count += 1 if average == "valid" else value > 0
    return values * len(d) / count if count else values


def contrastive_pull(d, form):
    return d if form == "hinge" else 0.5 * d**2


def contrastive_push(d, margin, form):
    if form == "hinge":
        return max(0.0, margin - d)
    return 0.5 * max(0.0, margin - d**2) if form == "legacy" else 0.5 * max(0.0, margin - d) ** 2


def contrastive_loss(labels, embeddings, margin=1.0, metric="euclidean", average="balanced", form="squared"):
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
                pull[i] += contrastive_pull(d[i, j], form)
                positives += 1
            else:
                value = contrastive_push(d[i, j], margin, form)
                push[i] += value
                active += value > 0
    if average == "pairs":
        return (pull + push) * b / max(pairs, 1)
    return pull * b / max(positives, 1) + push * b / max(active, 1)


def contrastive_pairs(similar, pairs, margin=1.0, metric="euclidean", average="pairs", form="squared"):
    """One value per pair; `pairs` is [B, 2, D]."""
    d = np.array([distance(u, v, metric) for u, v in pairs])
    pull = np.array([contrastive_pull(x, form) if s else 0.0 for x, s in zip(d, similar, strict=True)])
    push = np.array([0.0 if s else contrastive_push(x, margin, form) for x, s in zip(d, similar, strict=True)])
    if average == "pairs":
        return pull + push
    return len(d) * (pull / max(sum(similar), 1) + push / max(sum(push > 0), 1))


def explicit_triplets(triplets, margin=1.0, metric="squared_euclidean", average="valid"):
    """One value per triplet; `triplets` is [B, 3, D]."""
    x = np.array([distance(a, p, metric) - distance(a, n, metric) for a, p, n in triplets])
    values = np.logaddexp(0.0, x) if margin == "soft" else np.maximum(0.0, x + margin)
    return values if average == "valid" else values * len(x) / max((values > 0).sum(), 1)


def n_pair_loss(labels, embeddings, variant="mc", l2=0.0, positives="one"):
    """One value per anchor, whose mean is the loss."""
    x = np.asarray(embeddings, np.float64)
    items = range(len(labels))
    tuplets = []  # (anchor, positive, what plays the negatives)
    if positives == "one":
        pairs, waiting = [], {}
        for i in items:
            if labels[i] in waiting:
                pairs.append((waiting.pop(labels[i]), i))
            else:
                waiting[labels[i]] = i
        for a, p in pairs:
            tuplets.append((a, p, [q for b, q in pairs if labels[b] != labels[a]]))
    else:
        for a in items:
            negatives = [n for n in items if labels[n] != labels[a]]
            tuplets += [(a, p, negatives) for p in items if p != a and labels[p] == labels[a]]
    tuplets = [t for t in tuplets if t[2]]
    values = np.zeros(len(labels))
    for a, p, negatives in tuplets:
        behind = [x[a] @ x[n] - x[a] @ x[p] for n in negatives]
        if variant == "mc":
            values[a] += math.log(1 + sum(math.exp(z) for z in behind))
        else:
            values[a] += sum(math.log(1 + math.exp(z)) for z in behind)
    values *= len(labels) / max(len(tuplets), 1)
    taking_part = [i for a, p, _ in tuplets for i in (a, p)] if positives == "one" else sorted({a for a, _, _ in tuplets})
    for place, i in enumerate(taking_part):
        # A pair's penalty belongs to its anchor.
        owner = taking_part[place // 2 * 2] if positives == "one" else i
        values[owner] += l2 * (x[i] @ x[i]) / len(taking_part) * len(labels)
    return values


def lifted_structure_loss(labels, embeddings, margin=1.0, variant="original", metric="euclidean"):
    """One value per anchor, whose mean is the loss. Both items of an unordered pair own half of it."""
    d = distances(embeddings, metric)
    b = len(labels)
    values, count = np.zeros(b), 0
    for i in range(b):
        positives = [j for j in range(b) if j != i and labels[j] == labels[i]]
        negatives = [k for k in range(b) if labels[k] != labels[i]]
        if variant == "original":
            count += len(positives)
            for j in positives:
                if negatives:
                    total = sum(math.exp(margin - d[i, k]) + math.exp(margin - d[j, k]) for k in negatives)
                    values[i] += max(0.0, math.log(total) + d[i, j]) ** 2 / 2
        elif positives and negatives:
            count += 1
            far = math.log(sum(math.exp(d[i, j]) for j in positives))
            near = math.log(sum(math.exp(margin - d[i, k]) for k in negatives))
            values[i] = max(0.0, far + near)
    return values * b / max(count, 1)


def log_density_of_distance(d, dimension):
    """log q(d) of Wu et al. 2017, up to a constant."""
    return (dimension - 2) * math.log(d) + (dimension - 3) / 2 * math.log(1 - d * d / 4)


def distance_weights(labels, d, dimension, lower=0.5, upper=1.4):
    """How likely each negative is to be drawn by each anchor."""
    b = len(labels)
    chances = np.zeros((b, b))
    for a in range(b):
        logs = {
            n: -log_density_of_distance(max(d[a, n], lower), dimension)
            for n in range(b)
            if labels[n] != labels[a] and d[a, n] < upper
        }
        for n, log in logs.items():
            chances[a, n] = math.exp(log - max(logs.values()))
        if logs:
            chances[a] /= chances[a].sum()
    return chances


def margin_loss(embeddings, positives, negatives, alpha=0.2, beta=1.2, average="active"):
    """One value per anchor, whose mean is the loss, from lists of chosen pairs (anchor, other); pairs may repeat."""
    b = len(embeddings)
    beta = np.broadcast_to(beta, b)
    values, count = np.zeros(b), 0
    for sign, pairs in ((1, positives), (-1, negatives)):
        for a, j in pairs:
            value = max(0.0, alpha + sign * (distance(embeddings[a], embeddings[j]) - beta[a]))
            values[a] += value
            count += 1 if average == "valid" else value > 0
    return values * b / max(count, 1)


def multi_similarity_loss(labels, embeddings, alpha=2.0, beta=50.0, base=0.5, epsilon=0.1):
    """One value per anchor, whose mean is the loss."""
    s = 1 - distances(embeddings, "cosine")
    b = len(labels)
    values = np.zeros(b)
    for a in range(b):
        positives = [s[a, p] for p in range(b) if p != a and labels[p] == labels[a]]
        negatives = [s[a, n] for n in range(b) if labels[n] != labels[a]]
        if epsilon is not None:
            least, most = min(positives, default=math.inf), max(negatives, default=-math.inf)
            positives = [x for x in positives if x < most + epsilon]
            negatives = [x for x in negatives if x > least - epsilon]
        values[a] = math.log(1 + sum(math.exp(-alpha * (x - base)) for x in positives)) / alpha
        values[a] += math.log(1 + sum(math.exp(beta * (x - base)) for x in negatives)) / beta
    return values


def circle_loss(labels, embeddings, margin=0.4, gamma=80.0, weights_of=None):
    """One value per anchor, whose mean is the loss. The weights are those of the embeddings `weights_of`, if given."""
    s = 1 - distances(embeddings, "cosine")
    w = s if weights_of is None else 1 - distances(weights_of, "cosine")
    b = len(labels)
    values, count = np.zeros(b), 0
    for a in range(b):
        positives = [p for p in range(b) if p != a and labels[p] == labels[a]]
        negatives = [n for n in range(b) if labels[n] != labels[a]]
        if positives and negatives:
            count += 1
            far = sum(math.exp(-gamma * max(0.0, 1 + margin - w[a, p]) * (s[a, p] - 1 + margin)) for p in positives)
            near = sum(math.exp(gamma * max(0.0, w[a, n] + margin) * (s[a, n] - margin)) for n in negatives)
            values[a] = math.log(1 + near * far)
    return values * b / max(count, 1)


def nt_xent_loss(labels, embeddings, temperature=0.1):
    """One value per anchor, whose mean is the loss."""
    e = np.exp((1 - distances(embeddings, "cosine")) / temperature)
    b = len(labels)
    values, count = np.zeros(b), 0
    for a in range(b):
        negatives = sum(e[a, n] for n in range(b) if labels[n] != labels[a])
        for p in range(b):
            if p != a and labels[p] == labels[a] and negatives:
                values[a] -= math.log(e[a, p] / (e[a, p] + negatives))
                count += 1
    return values * b / max(count, 1)


def sup_con_loss(labels, embeddings, temperature=0.1):
    """One value per anchor, whose mean is the loss."""
    e = np.exp((1 - distances(embeddings, "cosine")) / temperature)
    b = len(labels)
    values, count = np.zeros(b), 0
    for a in range(b):
        positives = [p for p in range(b) if p != a and labels[p] == labels[a]]
        if positives:
            total = sum(e[a, j] for j in range(b) if j != a)
            values[a] = -sum(math.log(e[a, p] / total) for p in positives) / len(positives)
            count += 1
    return values * b / max(count, 1)


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
