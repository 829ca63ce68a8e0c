"""The samplers' laws as plain loops in float64, and the test whether draws follow a law."""

from __future__ import annotations

import math

import numpy as np

UNLIKELY = 1e-6
"""Seeds are fixed, so tests of a law give one answer for ever; a p-value below this is a fault in the sampler."""


def chi_square_p(observed, expected) -> float:
    """The tail of chi-square by the normal approximation of Wilson and Hilferty; cells of no expectation must be empty.

    Cells that expect fewer than five draws are put together.
    """
    observed, expected = np.ravel(np.asarray(observed, float)), np.ravel(np.asarray(expected, float))
    assert observed[expected == 0].sum() == 0, "drawn what has no probability"
    assert abs(observed.sum() - expected.sum()) < 1e-6 * observed.sum()
    rare = (expected > 0) & (expected < 5)
    cells = [(o, e) for o, e in zip(observed[expected >= 5], expected[expected >= 5], strict=True)]
    if expected[rare].sum() >= 5:
        cells.append((observed[rare].sum(), expected[rare].sum()))
    assert len(cells) > 1, "too few draws"
    degrees = len(cells) - 1
    statistic = sum((o - e) ** 2 / e for o, e in cells)
    z = ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    return math.erfc(z / math.sqrt(2)) / 2


def within_category(categories, relevance):
    """r(i, j) where both are of one category and not the same item, else 0."""
    count = len(categories)
    return np.array(
        [[relevance[i][j] if i != j and categories[i] == categories[j] else 0.0 for j in range(count)] for i in range(count)]
    )


def in_class_law(categories, relevance, cap, gap):
    """P(i, p, n): what drawing i, then p and n until the gap holds, tends to, for the queries for which it can hold."""
    r = within_category(categories, relevance)
    count = len(r)
    law = np.zeros((count, count, count))
    for i in range(count):
        for p in range(count):
            for n in range(count):
                if r[i, p] - r[i, n] >= gap:
                    law[i, p, n] = min(cap, r[i, p]) * min(cap, r[i, n])
        if law[i].sum() > 0:
            law[i] *= r[i].sum() / law[i].sum()
    return law / law.sum()


def out_of_class_law(categories, relevance, cap):
    """P(i, p, n) with n evenly from the other categories."""
    r = within_category(categories, relevance)
    count = len(r)
    law = np.zeros((count, count, count))
    for i in range(count):
        weights = [min(cap, value) for value in r[i]]
        others = [n for n in range(count) if categories[n] != categories[i]]
        for p in range(count):
            for n in others:
                if sum(weights) > 0:
                    law[i, p, n] = r[i].sum() * weights[p] / sum(weights) / len(others)
    return law / law.sum()


def hardest_classes(anchors, positives, start, count):
    """Greedily chosen classes, and after each step the set of those that would have done as well."""
    own = [float(a @ p) for a, p in zip(anchors, positives, strict=True)]

    def violation(s, c):
        return max(float(anchors[s] @ positives[c]) - own[s], float(anchors[c] @ positives[s]) - own[c])

    def best(chosen):
        rest = [c for c in range(len(own)) if c not in chosen]
        worst = {c: max(violation(s, c) for s in chosen) for c in rest}
        return {c for c in rest if worst[c] == max(worst.values())}

    chosen, ties = [start], []
    while len(chosen) < count:
        ties.append(best(chosen))
        chosen.append(min(ties[-1]))
    return chosen, ties, best


def reservoir(elements, keys, capacity):
    """Per category the numbers of the elements that stay, one element after the other, the largest key first."""
    buffers: dict[int, list[int]] = {}
    for number, (category, key) in enumerate(zip(elements, keys, strict=True)):
        buffer = buffers.setdefault(category, [])
        if key == -math.inf:
            continue
        if len(buffer) < capacity:
            buffer.append(number)
        else:
            smallest = min(buffer, key=lambda i: keys[i])
            if key > keys[smallest]:
                buffer[buffer.index(smallest)] = number
    return {category: sorted(buffer, key=lambda i: -keys[i]) for category, buffer in buffers.items()}
