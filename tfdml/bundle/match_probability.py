"""How likely an answer is right, from its distance: the record in the manifest. NumPy only."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

KINDS = ("isotonic", "logistic")


@dataclasses.dataclass(frozen=True)
class MatchProbability:
    """The probability that an answer at some distance is of the query's class, as `fit_match_probability` found it.

    Args:
        kind: "isotonic": straight between the points of `distances` and `probabilities`, level beyond them; or "logistic":
            1 / (1 + exp(slope d - intercept)).
        distances: of the points, rising; empty if logistic.
        probabilities: at these distances, falling.
        intercept: see `kind`; 0 if isotonic.
        slope: >= 0.
        answers: on how many answers it was fitted.

    Example:
        >>> probability = MatchProbability("isotonic", (0.1, 0.2, 0.5), (0.9, 0.5, 0.0), 0.0, 0.0, 100)
        >>> probability([0.05, 0.15, 0.7]).round(2).tolist()
        [0.9, 0.7, 0.0]
    """

    kind: str
    distances: tuple[float, ...]
    probabilities: tuple[float, ...]
    intercept: float
    slope: float
    answers: int

    def __post_init__(self) -> None:
        points = len(self.distances)
        if self.kind not in KINDS or points != len(self.probabilities) or (points == 0) != (self.kind == "logistic"):
            raise ValueError(
                f"match probability: kind {self.kind!r} with {points} distances and {len(self.probabilities)} probabilities; "
                "expected 'isotonic' with as many of both, or 'logistic' without."
            )
        rising, falling = np.diff(self.distances), np.diff(self.probabilities)
        known = all(0 <= value <= 1 for value in self.probabilities) and self.slope >= 0
        if not known or (points and not ((rising > 0).all() and (falling <= 0).all())):
            raise ValueError("match probability: expected rising distances, and probabilities that fall from 1 to 0.")

    def __call__(self, distances: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The probabilities at some distances, in their shape."""
        given = np.asarray(distances, np.float64)
        if self.kind == "isotonic":
            return np.asarray(np.interp(given, self.distances, self.probabilities))
        return np.asarray(0.5 * (1 - np.tanh(0.5 * (self.slope * given - self.intercept))))
