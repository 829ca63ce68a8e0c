"""Evaluation figures by plain loops in float64: the definitions, written so that they can be read."""

from __future__ import annotations

import itertools
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


def all_pairs(labels):
    """(left, right, same) of every pair."""
    return [(i, j, labels[i] == labels[j]) for j in range(len(labels)) for i in range(j)]


def shares(distances, same, threshold):
    """TAR and FAR: the shares of positive and of negative pairs with d <= threshold."""
    positives = [d for d, s in zip(distances, same, strict=True) if s]
    negatives = [d for d, s in zip(distances, same, strict=True) if not s]
    return sum(d <= threshold for d in positives) / len(positives), sum(d <= threshold for d in negatives) / len(negatives)


def auc(distances, same):
    """How often a positive pair is nearer than a negative one."""
    positives = [d for d, s in zip(distances, same, strict=True) if s]
    negatives = [d for d, s in zip(distances, same, strict=True) if not s]
    wins = sum((p < n) + 0.5 * (p == n) for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


def half_way(distances, same, start):
    """Half-way from `start` to the nearest negative pair that is farther."""
    farther = [d for d, s in zip(distances, same, strict=True) if not s and d > start]
    return (start + min(farther)) / 2 if farther else start


def threshold_at_far(distances, same, far):
    """Half-way after the farthest positive pair that accepts no more than a share `far` of the negative pairs, or -inf."""
    allowed = [d for d, s in zip(distances, same, strict=True) if s and shares(distances, same, d)[1] <= far + 1e-12]
    return half_way(distances, same, max(allowed)) if allowed else -math.inf


def over_folds(distances, same, folds, far):
    """Per fold: VAL at the FAR of the other folds, that FAR measured, and balanced accuracy at the others' best threshold."""
    vals, fars, accuracies = [], [], []
    for fold in sorted(set(folds)):
        inside = [k for k in range(len(folds)) if folds[k] == fold]
        outside = [k for k in range(len(folds)) if folds[k] != fold]
        tested = [distances[k] for k in inside], [same[k] for k in inside]
        others = [distances[k] for k in outside], [same[k] for k in outside]
        val, measured = shares(*tested, threshold_at_far(*others, far))
        vals.append(val)
        fars.append(measured)
        best, threshold = -math.inf, None
        for candidate in sorted({d for d, s in zip(*others, strict=True) if s}):
            tar, false = shares(*others, candidate)
            if tar - false > best + 1e-12:
                best, threshold = tar - false, candidate
        tar, false = shares(*tested, half_way(*others, threshold))
        accuracies.append((tar + 1 - false) / 2)
    return vals, fars, accuracies


def k_reciprocal(x, k1, k2, weight, metric="euclidean"):
    """Re-ranked distances among all rows of x, set by set as Zhong et al. describe them."""
    count = len(x)
    d = np.array([[distance(x[i], x[j], metric) for j in range(count)] for i in range(count)])
    d = d**2 if metric == "euclidean" else d
    d = d / np.where(d.max(1) > 0, d.max(1), 1)[:, None]
    # An item comes first in its own neighbourhood, even where others are as near.
    order = [sorted(range(count), key=lambda j: (j != i, d[i][j], j)) for i in range(count)]

    def mutual(i, k):
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    v = np.zeros((count, count))
    for i in range(count):
        own = mutual(i, k1)
        extended = set(own)
        for j in own:
            theirs = mutual(j, int(np.around(k1 / 2)))
            if len(own & theirs) > 2 / 3 * len(theirs):
                extended |= theirs
        for j in extended:
            v[i, j] = math.exp(-d[i, j])
        v[i] /= v[i].sum()
    if k2 > 1:
        v = np.array([np.mean([v[j] for j in order[i][:k2]], axis=0) for i in range(count)])
    jaccard = [[1 - sum(map(min, v[i], v[j])) / sum(map(max, v[i], v[j])) for j in range(count)] for i in range(count)]
    return (1 - weight) * np.array(jaccard) + weight * d


def log_gaussian(x, covariance):
    x, covariance = np.asarray(x, np.float64), np.asarray(covariance, np.float64)
    return -0.5 * (x @ np.linalg.solve(covariance, x) + np.linalg.slogdet(covariance)[1] + len(x) * math.log(2 * math.pi))


def joint_bayesian_score(x1, x2, between, within):
    """The log-likelihood ratio of two vectors, from the joint Gaussians of both hypotheses."""
    total, nothing = between + within, np.zeros_like(between)
    both = np.concatenate([x1, x2])
    one = log_gaussian(both, np.block([[total, between], [between, total]]))
    two = log_gaussian(both, np.block([[total, nothing], [nothing, total]]))
    return one - two


def joint_bayesian_log_likelihood(x, labels, between, within):
    """Of all vectors: those of one class are one long Gaussian vector."""
    total = 0.0
    for label in sorted(set(labels)):
        members = np.array([row for row, its in zip(x, labels, strict=True) if its == label])
        count = len(members)
        covariance = np.kron(np.ones((count, count)), between) + np.kron(np.eye(count), within)
        total += log_gaussian(members.ravel(), covariance)
    return total


def ranking(queries, gallery=None, left_out=None, *, metric="cosine"):
    """For each query the groups of equal distance, nearest first, as lists of item numbers; `left_out` are sets of numbers."""
    if gallery is None:
        gallery = queries
        left_out = left_out or [set() for _ in queries]
        left_out = [{number} | out for number, out in enumerate(left_out)]
    result = []
    for number, query in enumerate(queries):
        found = [item for item in range(len(gallery)) if not left_out or item not in left_out[number]]
        by_distance = {}
        for item in found:
            by_distance.setdefault(distance(query, gallery[item], metric), []).append(item)
        result.append([by_distance[value] for value in sorted(by_distance)])
    return result


def arrangements(groups, gain_of, ties):
    """Every list of gains that an order of equal distances can give; or the one that `ties` names."""
    if ties == "number":
        return [[gain_of(item) for group in groups for item in group]]
    if ties == "pessimistic":
        return [[gain for group in groups for gain in sorted(gain_of(item) for item in group)]]
    each = [list(itertools.permutations([gain_of(item) for item in group])) for group in groups]
    return [[gain for group in chosen for gain in group] for chosen in itertools.product(*each)]


def ranked_figures(gains, class_gain, ks):
    """All figures of one list of gains; an item is right if its gain is at least `class_gain`."""
    relevant = [gain >= class_gain for gain in gains]
    r = sum(relevant)
    precision = [sum(relevant[:i]) / i for i in range(1, len(relevant) + 1)]
    figures = {f"recall_at_{k}": float(any(relevant[:k])) for k in ks}
    figures |= {f"precision_at_{k}": precision[k - 1] for k in ks}
    figures["r_precision"] = precision[r - 1]
    figures["map_at_r"] = sum(precision[i] for i in range(r) if relevant[i]) / r
    figures["map"] = sum(precision[i] for i in range(len(relevant)) if relevant[i]) / r
    figures["mrr"] = 1 / (relevant.index(True) + 1)
    for k in ks:
        dcg = sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k]))
        best = sum(gain / math.log2(place + 2) for place, gain in enumerate(sorted(gains, reverse=True)[:k]))
        figures[f"ndcg_at_{k}"] = dcg / best
    return figures


def retrieval_figures(queries, labels, gallery=None, gallery_labels=None, left_out=None, *, metric, ks, ties, gain=None):
    """Means over the queries with an answer; with `ties="expected"` over every order of what is equally near."""
    items = labels if gallery is None else gallery_labels
    rankings = ranking(queries, gallery, left_out, metric=metric)
    per_query = []
    for number, groups in enumerate(rankings):
        if not any(items[item] == labels[number] for group in groups for item in group):
            continue
        gain_of = (lambda item, q=number: float(items[item] == labels[q])) if gain is None else (lambda i, q=number: gain(q, i))
        class_gain = 1 if gain is None else min(gain_of(i) for group in groups for i in group if items[i] == labels[number])
        lists = [ranked_figures(one, class_gain, ks) for one in arrangements(groups, gain_of, ties)]
        per_query.append({name: sum(one[name] for one in lists) / len(lists) for name in lists[0]})
    return {name: sum(one[name] for one in per_query) / len(per_query) for name in per_query[0]}


def identification(queries, labels, gallery, gallery_labels, fir, rank, metric="cosine"):
    """Rank-r rate, DIR at the FIR, and how often a known query is nearer than an unknown one, query by query."""
    known, unknown = [], []
    for query, label in zip(queries, labels, strict=True):
        by_class = {}
        for item, item_label in zip(gallery, gallery_labels, strict=True):
            d = distance(query, item, metric)
            by_class[item_label] = min(d, by_class.get(item_label, math.inf))
        nearest = min(by_class.values())
        if label in by_class:
            others = sum(d <= by_class[label] for name, d in by_class.items() if name != label)
            known.append((nearest, by_class[label], 1 + others))
        else:
            unknown.append(nearest)
    allowed = [
        t for t in [*unknown, *(n for n, _, _ in known), *(o for _, o, _ in known)] if mean(u <= t for u in unknown) <= fir
    ]
    threshold = max(allowed, default=-math.inf)
    auc = mean((n < u) + 0.5 * (n == u) for n, _, _ in known for u in unknown)
    return (
        mean(r <= rank for _, _, r in known),
        mean(own <= threshold and r <= rank for _, own, r in known),
        auc,
    )


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def pairwise_f1(classes, clusters):
    pairs = list(itertools.combinations(range(len(classes)), 2))
    one_class = {pair for pair in pairs if classes[pair[0]] == classes[pair[1]]}
    one_cluster = {pair for pair in pairs if clusters[pair[0]] == clusters[pair[1]]}
    both = len(one_class & one_cluster)
    precision, recall = both / len(one_cluster), both / len(one_class)
    return 2 * precision * recall / (precision + recall)


def calibrated(embeddings, labels, kind, asked, metric):
    """The largest distance that keeps the rate, half-way to the next event; and the rate there."""
    count = len(labels)
    d = [[distance(embeddings[i], embeddings[j], metric) for j in range(count)] for i in range(count)]
    if kind == "far":
        events = [(d[i][j], True) for j in range(count) for i in range(j) if labels[i] != labels[j]]
    elif kind == "fir":
        events = [(min(d[i][j] for j in range(count) if labels[i] != labels[j]), True) for i in range(count)]
    else:
        events = []
        for i in range(count):
            if sum(label == labels[i] for label in labels) > 1:
                nearest = min((j for j in range(count) if j != i), key=lambda j, i=i: (d[i][j], j))
                events.append((d[i][nearest], labels[nearest] == labels[i]))

    def rate(t):
        accepted = [right for value, right in events if value <= t]
        return len(accepted) / len(events) if kind != "precision" else sum(accepted) / len(accepted)

    kept = [value for value, _ in events if (rate(value) <= asked if kind != "precision" else rate(value) >= asked)]
    last = max(kept)
    following = [value for value, _ in events if value > last]
    return (last + min(following)) / 2 if following else last, rate(last)
