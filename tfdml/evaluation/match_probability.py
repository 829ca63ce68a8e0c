"""How likely an answer is right, from its distance. NumPy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.bundle.match_probability import KINDS, MatchProbability
from tfdml.evaluation.ranking import retrieval

Doubles = npt.NDArray[np.float64]


def fit_match_probability(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    kind: str = "isotonic",
    k: int = 10,
    metric: str = "cosine",
) -> MatchProbability:
    r"""Fits the probability that an answer is of the query's class, as a function of its distance, on held-out classes.

    Every item is a query among all others, and its k nearest are answers, as a search would return them. The probability
    falls with the distance d:

        isotonic  the falling function nearest to what was found, by squares; of any shape, needs some hundred queries
        logistic  1 / (1 + exp(slope d - intercept)); two numbers, for little data (Platt's targets keep it finite)

    It is a probability among answers like those that it was fitted on: with more items of other classes, or with queries of
    unknown classes, answers at the same distance are wrong more often.

    Args:
        embeddings: `[N, D]`, of held-out classes, finite.
        labels: `[N]`, integers or strings.
        kind: `"isotonic"` or `"logistic"`.
        k: answers of each query.
        metric: `"cosine"` or `"euclidean"`.

    Returns:
        A `tfdml.bundle.MatchProbability`: call it with distances. `tfdml.bundle.export(..., match_probability=...)` stores it.

    Raises:
        ValueError: as `retrieval`; if all answers are right, or all wrong.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import fit_match_probability
        >>> rng, labels = np.random.default_rng(0), np.arange(300) // 10
        >>> embeddings = rng.normal(size=(30, 8))[labels] + 0.5 * rng.normal(size=(300, 8))
        >>> probability = fit_match_probability(embeddings, labels)
        >>> near, far = probability([0.01, 1.0])
        >>> bool(near > 0.9), bool(far < 0.1)
        (True, True)

    References:
        Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates, KDD 2002.
        Platt, Probabilistic Outputs for Support Vector Machines, 1999.
    """
    check_choice("kind", kind, KINDS)
    found = retrieval(embeddings, labels, metric=metric, ks=(k,))
    asked = found.per_query.answers > 0
    distances = found.per_query.distances[asked].ravel().astype(np.float64)
    right = found.per_query.correct[asked].ravel()
    if right.all() or not right.any():
        which = "right" if right.any() else "wrong"
        raise ValueError(f"labels: all {len(right)} answers are {which}, so their distance tells nothing. Try a larger k.")
    if kind == "logistic":
        intercept, slope = _logistic(distances, right)
        return MatchProbability("logistic", (), (), intercept, slope, len(right))
    knots, values = _isotonic(distances, right)
    return MatchProbability("isotonic", tuple(knots.tolist()), tuple(values.tolist()), 0.0, 0.0, len(right))


def _isotonic(distances: Doubles, right: npt.NDArray[np.bool_]) -> tuple[Doubles, Doubles]:
    """The ends of the level stretches of the best falling function: pool adjacent violators."""
    at, which = np.unique(distances, return_inverse=True)
    weight = np.bincount(which.reshape(-1)).astype(np.float64)
    total = np.bincount(which.reshape(-1), right)
    blocks: list[list[float]] = []  # sum, weight, first and last place
    for place in range(len(at)):
        blocks.append([total[place], weight[place], place, place])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] <= blocks[-1][0] * blocks[-2][1]:
            sums, weights, _, last = blocks.pop()
            blocks[-1][0] += sums
            blocks[-1][1] += weights
            blocks[-1][3] = last
    knots, values = [], []
    for sums, weights, first, last in blocks:
        ends = [at[int(first)]] if first == last else [at[int(first)], at[int(last)]]
        knots += ends
        values += [sums / weights] * len(ends)
    return np.array(knots), np.array(values)


def _logistic(distances: Doubles, right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Intercept and slope by Newton's method; the targets are Platt's, a little away from 0 and 1."""
    positive, negative = int(right.sum()), int((~right).sum())
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))
    scale = float(distances.std()) or 1.0
    center = float(distances.mean())
    inputs = np.stack([np.ones_like(distances), (distances - center) / scale], axis=1)
    weights = np.array([np.log((positive + 1) / (negative + 1)), 0.0])

    def loss(some: Doubles) -> float:
        logits = inputs @ some
        return float((np.logaddexp(0, logits) - target * logits).sum())

    for _ in range(100):
        chance = 0.5 * (1 + np.tanh(0.5 * inputs @ weights))
        gradient = inputs.T @ (chance - target)
        hessian = inputs.T @ (inputs * (chance * (1 - chance))[:, None]) + 1e-10 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-8 and loss(weights - size * step) > loss(weights):
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    slope = -weights[1] / scale
    if slope < 0:
        raise ValueError("embeddings: farther answers are right more often than nearer ones, which no threshold can mend.")
    return float(weights[0] + slope * center), float(slope)
