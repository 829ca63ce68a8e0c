"""From distances to decisions: the threshold beyond which an answer is no match, and how sure it is. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice, check_positive
from tfdml.evaluation._bootstrap import Interval, check_resampling, draws
from tfdml.evaluation._calibration_events import Events, answered_queries, false_answers, negative_pairs
from tfdml.evaluation._labels import class_numbers
from tfdml.index.base import METRICS, check_vectors

if TYPE_CHECKING:
    from tfdml.bundle import Threshold

Doubles = npt.NDArray[np.float64]
TARGETS = {"far": "false accept rate", "fir": "false identification rate", "precision": "precision"}


class Check(NamedTuple):
    """What a threshold came to on other classes, see `Calibration.check`.

    Attributes:
        rate: the rate that was measured, with its interval (drawing classes).
        within: whether it lies where the calibration said that it would.
    """

    rate: Interval
    within: bool


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found: answers up to this distance count as a match.

    Attributes:
        kind: `"far"`, `"fir"` or `"precision"`.
        asked: the rate that was asked for.
        distance: the threshold; at most this far is a match.
        low: lower end of the threshold's interval: where it might lie, had other classes been drawn to calibrate with.
        high: upper end.
        confidence: level of the intervals.
        rate: the rate at the threshold, on the classes it was fitted on.
        rate_low: lower end of where the rate will lie on as many other classes.
        rate_high: upper end.
        metric: `"cosine"` or `"euclidean"`.
        classes: number of classes it was fitted on.
        counted: number of pairs, or of queries, that it was fitted on.
    """

    kind: str
    asked: float
    distance: float
    low: float
    high: float
    confidence: float
    rate: float
    rate_low: float
    rate_high: float
    metric: str
    classes: int
    counted: int
    settings: dict[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @property
    def threshold(self) -> Threshold:
        """As a bundle's manifest keeps it: `tfdml.bundle.export(..., thresholds={"match": calibration.threshold})`."""
        from tfdml.bundle import Threshold

        return Threshold(self.distance, self.low, self.high, self.confidence, f"{TARGETS[self.kind]} {self.asked:g}")

    def check(self, embeddings: npt.ArrayLike, labels: npt.ArrayLike) -> Check:
        """Measures the rate at this threshold on classes that were used for nothing else.

        Args:
            embeddings: `[N, D]`, by the same model.
            labels: `[N]`.
        """
        settings = self.settings
        events = _events(self.kind, embeddings, labels, self.metric, settings["pairs"], settings["seed"], up_to=self.distance)
        check_resampling(self.confidence, settings["resamples"], events.classes)
        rates = np.concatenate(
            [events.rates(weights, np.full(len(weights), self.distance)) for weights in _draws(events, settings)]
        )
        rate = float(events.rates(np.ones((1, events.classes)), np.array([self.distance]))[0])
        tails = (1 - self.confidence) / 2, (1 + self.confidence) / 2
        low, high = np.nanquantile(rates, tails)
        within = self.rate_low <= rate <= self.rate_high
        return Check(Interval(rate, float(low), float(high), self.confidence), within)

    def __str__(self) -> str:
        level = f"{self.confidence:.0%}"
        what = "pairs" if self.kind == "far" else "queries"
        return (
            f"{TARGETS[self.kind]} {self.asked:g}: up to {self.distance:.4f} is a match "
            f"({level} interval {self.low:.4f} to {self.high:.4f}; {self.metric})\n"
            f"measured {self.rate:.3g} on {self.counted:,} {what} of {self.classes:,} classes; "
            f"on as many others it will lie between {self.rate_low:.3g} and {self.rate_high:.3g} ({level})"
        )


def calibrate(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    far: float | None = None,
    fir: float | None = None,
    precision: float | None = None,
    metric: str = "cosine",
    confidence: float = 0.95,
    resamples: int = 1000,
    pairs: int | None = None,
    seed: int = 0,
) -> Calibration:
    r"""The threshold for an asked error rate, fitted on classes that the model was not trained on.

    Training classes lie closer together than those that a model has never seen, so a threshold from them rejects too much.
    Give it held-out classes, and judge the result on yet others (`Calibration.check`). One of three rates is asked for:

        far        false accept rate: the share of the pairs of two classes that are at most t apart. For "are these two
                   the same?"
        fir        false identification rate: the share of the queries whose nearest item *of another class* is at most t
                   away: how often somebody unknown would get an answer. It depends on how many items are searched.
        precision  of the queries whose nearest item is at most t away, the share that it is right for. For "show it, or say
                   that there is no match?", if queries are of the gallery's classes.

    t is the largest threshold that keeps the rate. The items of a class succeed and fail together, so the intervals come from
    drawing classes with replacement, not pairs: `low` and `high` say where the threshold might lie, had other classes been
    drawn; `rate_low` and `rate_high` where the rate will lie on as many classes that are not these (from two independent
    draws: a threshold from one, measured on the other).

    Args:
        embeddings: `[N, D]`, of held-out classes, finite.
        labels: `[N]`, integers or strings.
        far, fir, precision: one of them, a share between 0 and 1.
        metric: `"cosine"` or `"euclidean"`.
        confidence: level of the intervals.
        resamples: how many draws.
        pairs: for `far`: with more pairs than this, so many are drawn. None draws enough for 20,000 mistakes, but at least
            200,000 and at most 4,000,000.
        seed: the same seed gives the same result.

    Raises:
        ValueError: for NaN or infinity; if no threshold keeps the rate; if there are too few pairs or queries to resolve it.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import calibrate
        >>> rng, labels = np.random.default_rng(0), np.arange(400) // 10
        >>> embeddings = rng.normal(size=(40, 8))[labels] + 0.3 * rng.normal(size=(400, 8))
        >>> found = calibrate(embeddings[:200], labels[:200], far=0.01)
        >>> found.low < found.distance < found.high
        True
        >>> found.check(embeddings[200:], labels[200:]).within
        True
    """
    given = {name: value for name, value in (("far", far), ("fir", fir), ("precision", precision)) if value is not None}
    if len(given) != 1:
        raise ValueError(f"far, fir, precision: received {given or 'none of them'}, expected exactly one.")
    [(kind, asked)] = given.items()
    if isinstance(asked, bool) or not isinstance(asked, (int, float, np.number)) or not 0 < asked < 1:
        raise ValueError(f"{kind}={asked!r}: expected a share between 0 and 1, such as 0.01.")
    if pairs is not None:
        check_positive("pairs", pairs)
    most = int(np.clip(20_000 / asked, 200_000, 4_000_000)) if pairs is None else int(pairs)
    settings = {"pairs": most, "seed": seed, "resamples": resamples}
    # Far more than the rate allows, so that no draw of classes needs others.
    events = _events(kind, embeddings, labels, metric, most, seed, share=min(1.0, 6 * float(asked) + 1e-3))
    check_resampling(confidence, resamples, events.classes)
    if kind != "precision" and asked * events.total < 10:
        raise ValueError(
            f"{kind}={asked:g}: {events.total:,} {events.what} make {asked * events.total:.2g} mistakes at that rate, too few "
            f"to place a threshold by. Ask for {10 / events.total:.2g} or more, or give more held-out images."
        )
    whole = np.ones((1, events.classes))
    distance = float(events.thresholds(whole, float(asked))[0])
    if not np.isfinite(distance):
        reached = "" if kind != "precision" else f"; the nearest item is right for {float(events.all_right):.1%} of all queries"
        raise ValueError(f"{kind}={asked:g}: no threshold keeps it on these {events.total:,} {events.what}{reached}.")
    thresholds, rates, previous = [], [], None
    for weights in _draws(events, settings):
        some = events.thresholds(weights, float(asked))
        # Each threshold is tried on the draw before it, which is independent of its own.
        tried = np.concatenate([weights[-1:] if previous is None else previous, weights[:-1]])
        thresholds.append(some)
        rates.append(events.rates(tried, some))
        previous = weights[-1:]
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    low, high = np.quantile(np.concatenate(thresholds), tails, method="nearest")
    rate_low, rate_high = np.nanquantile(np.concatenate(rates), tails)
    return Calibration(
        kind=kind,
        asked=float(asked),
        distance=distance,
        low=float(min(max(low, 0.0), distance)),
        high=float(max(high, distance)),
        confidence=float(confidence),
        rate=float(events.rates(whole, np.array([distance]))[0]),
        rate_low=float(rate_low),
        rate_high=float(rate_high),
        metric=metric,
        classes=events.classes,
        counted=events.total,
        settings=settings,
    )


def _events(
    kind: str, embeddings: npt.ArrayLike, labels: npt.ArrayLike, metric: str, pairs: int, seed: int, **listed: float
) -> Events:
    check_choice("metric", metric, METRICS)
    vectors = check_vectors(embeddings, metric, "embeddings")
    classes = class_numbers(labels, len(vectors), "labels")
    if classes.max() < 1:
        raise ValueError(f"labels: all {len(vectors)} items are of one class. Calibration needs several, the more the better.")
    if kind == "far":
        return negative_pairs(vectors, classes, metric, pairs, seed, **listed)
    return false_answers(vectors, classes, metric) if kind == "fir" else answered_queries(vectors, classes, metric)


def _draws(events: Events, settings: dict[str, Any]) -> Any:
    # A few rows at a time: each makes a running sum over all events.
    for weights in draws(events.classes, settings["resamples"], settings["seed"]):
        for start in range(0, len(weights), 16):
            yield weights[start : start + 16]
