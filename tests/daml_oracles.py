"""Plain definitions of DAML: float64 NumPy and loops, straight from the paper. They share no code with the library."""

from __future__ import annotations

import math

import numpy as np


def squared(u, v):
    return float(np.sum((np.asarray(u, np.float64) - np.asarray(v, np.float64)) ** 2))


def distance(u, v, metric):
    if metric == "cosine":
        return 1.0 - float(u @ v) / math.sqrt(float(u @ u) * float(v @ v))
    return squared(u, v) if metric == "squared_euclidean" else math.sqrt(squared(u, v))


def unit(v):
    return v / math.sqrt(float(v @ v))


def generate(anchor, positive, negative, weights, residual):
    """One synthetic negative. `weights`: kernel and bias of each layer, one after the other."""
    unit = math.sqrt(squared(negative, anchor) / len(anchor))
    if residual:
        size = math.sqrt(float(np.mean(anchor**2)))
        x = np.concatenate([(negative - anchor) / unit, (positive - anchor) / unit, anchor / size])
    else:
        x = np.concatenate([negative, anchor, positive])
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    for number, (kernel, bias) in enumerate(layers):
        x = x @ kernel + bias
        if number < len(layers) - 1:
            x = np.maximum(x, 0.0)
    return negative + unit * x if residual else x


def j_gen(triplets, features, embed, generator, alpha, regular, adversarial, metric="squared_euclidean", relative=False):
    """(J_hard, J_reg, J_adv, J_gen), means over (anchor, positive, negative) numbers.

    `embed`: a feature vector to its embedding. `generator`: (anchor, positive, negative) features to a synthetic negative.
    """
    hard = reg = adv = unit_of_length = 0.0
    for a, p, n in triplets:
        made = generator(features[a], features[p], features[n])
        hard += squared(made, features[a])
        reg += squared(made, features[n])
        to_made = distance(embed(made), embed(features[a]), metric)
        adv += max(0.0, to_made - distance(embed(features[p]), embed(features[a]), metric) - alpha)
        unit_of_length += squared(features[a], features[n])
    count = len(triplets)
    hard, reg, adv, unit_of_length = hard / count, reg / count, adv / count, unit_of_length / count
    if relative:
        hard, reg = hard / unit_of_length, reg / unit_of_length
    return hard, reg, adv, hard + regular * reg + adversarial * adv


def j_contrastive(groups, margin, metric, form="squared", average="pairs"):
    """`groups`: (anchor, positive, [synthetic negatives]) embeddings, one for each anchor; here and below."""

    def push(d):
        gap = max(0.0, margin - (d * d if form == "legacy" else d))
        return {"squared": 0.5 * gap**2, "legacy": 0.5 * gap, "hinge": gap}[form]

    to_positive = [distance(a, p, metric) for a, p, _ in groups]
    pushes = [push(distance(a, n, metric)) for a, _, negatives in groups for n in negatives]
    counted = sum(v > 0 for v in pushes) if average == "balanced" else len(pushes)
    return np.mean([d if form == "hinge" else 0.5 * d**2 for d in to_positive]) + sum(pushes) / max(counted, 1)


def j_triplet(groups, margin, metric, average="valid"):
    values = []
    for a, p, negatives in groups:
        for n in negatives:
            x = distance(a, p, metric) - distance(a, n, metric)
            values.append(math.log1p(math.exp(x)) if margin == "soft" else max(0.0, x + margin))
    count = len(values) if average == "valid" else sum(v > 0 for v in values)
    return sum(values) / max(count, 1)


def j_lifted(groups, partners, margin, metric, variant="original"):
    """`partners`: which of the groups has the positive as its anchor."""
    total = 0.0
    for (a, p, negatives), partner in zip(groups, partners, strict=True):
        near = sum(math.exp(margin - distance(a, n, metric)) for n in negatives)
        if variant == "original":
            other = groups[partner]
            near += sum(math.exp(margin - distance(other[0], n, metric)) for n in other[2])
            total += 0.5 * max(0.0, math.log(near) + distance(a, p, metric)) ** 2
        else:
            total += max(0.0, math.log(near) + distance(a, p, metric))
    return total / len(groups)


def j_n_pair(groups, l2, variant="mc"):
    total = 0.0
    for a, p, negatives in groups:
        terms = [math.exp(float(a @ n) - float(a @ p)) for n in negatives]
        total += math.log1p(sum(terms)) if variant == "mc" else sum(math.log1p(t) for t in terms)
        total += l2 * 0.5 * (float(a @ a) + float(p @ p))
    return total / len(groups)


def slopes(f, x, step=1e-6):
    """The gradient of a number by an array, by central differences."""
    x = np.array(x, np.float64)
    found = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        one, other = x.copy(), x.copy()
        one[i] += step
        other[i] -= step
        found[i] = (f(one) - f(other)) / (2 * step)
    return found
