"""What verification finds. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml.index.base import Floats

Doubles = npt.NDArray[np.float64]


class OverFolds(NamedTuple):
    """A figure that was measured on each fold with a threshold from the others.

    Attributes:
        mean: over the folds.
        standard_error: of that mean: the standard deviation of the folds' values (n - 1) / sqrt(number of folds).
        values: float64 `[F]`, of each fold.
    """

    mean: float
    standard_error: float
    values: Doubles

    def __str__(self) -> str:
        return f"{self.mean:.2%} ± {self.standard_error:.2%}"


class RocCurve(NamedTuple):
    """The vertices of the ROC curve, straight between them: shares of accepted negative (`far`) and positive (`tar`) pairs."""

    far: Doubles
    tar: Doubles


@dataclass(frozen=True)
class VerificationResult:
    """What `verification` found. A pair is accepted, taken for one of one class, if its distance is at most a threshold.

    Attributes:
        auc: area under the ROC curve: how often a positive pair is nearer than a negative one, ties counting one half.
        eer: equal error rate: the share of rejected positive pairs where it is the share of accepted negative pairs.
        tar_at_far: for each FAR, the largest share of accepted positive pairs (TAR) that a threshold can have which accepts no
            more than this share of negative pairs.
        thresholds: for each FAR such a threshold, in units of the metric: half-way from the last positive pair that is accepted
            to the negative pair that follows. Infinitely strict where nothing can be accepted.
        eer_threshold: the threshold of the equal error rate.
        accuracy: over folds, as on LFW: the mean of the shares of accepted positive and of rejected negative pairs, at the
            threshold that is best for the other folds; None without folds.
        accuracy_thresholds: that of each fold.
        val_at_far: FaceNet's VAL for each FAR, over folds: the TAR of a fold at the threshold which keeps the FAR on the other
            folds. Empty without folds.
        far_measured: the FAR that came out on the folds at those thresholds, for each FAR asked for.
        positive_pairs: how many positive pairs were compared.
        negative_pairs: how many negative pairs.
        metric: the metric's name, or the scorer's.
        curve: the ROC curve of all folds together.
    """

    auc: float
    eer: float
    tar_at_far: dict[float, float]
    thresholds: dict[float, float]
    eer_threshold: float
    accuracy: OverFolds | None = field(compare=False)
    accuracy_thresholds: Floats | None = field(repr=False, compare=False)
    val_at_far: dict[float, OverFolds] = field(compare=False)
    far_measured: dict[float, OverFolds] = field(compare=False)
    positive_pairs: int
    negative_pairs: int
    metric: str
    curve: RocCurve = field(repr=False, compare=False)

    def figures(self, prefix: str = "") -> dict[str, float]:
        """`auc`, `eer`, `tar_at_far_1e-3` for each FAR; with folds also `accuracy`, `val_at_far_1e-3`; each with the prefix."""
        values = {"auc": self.auc, "eer": self.eer}
        values |= {f"tar_at_far_{short_rate(far)}": value for far, value in self.tar_at_far.items()}
        if self.accuracy is not None:
            values["accuracy"] = self.accuracy.mean
        values |= {f"val_at_far_{short_rate(far)}": value.mean for far, value in self.val_at_far.items()}
        return {prefix + name: value for name, value in values.items()}

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """The figures, the standard errors, and the numbers of pairs: plain numbers, ready for JSON."""
        more: dict[str, float] = {}
        if self.accuracy is not None:
            more["accuracy_standard_error"] = self.accuracy.standard_error
        more |= {f"val_at_far_{short_rate(far)}_standard_error": value.standard_error for far, value in self.val_at_far.items()}
        more |= {"positive_pairs": self.positive_pairs, "negative_pairs": self.negative_pairs}
        return self.figures(prefix) | {prefix + name: value for name, value in more.items()}

    def __str__(self) -> str:
        rows = [("AUC", f"{self.auc:.2%}"), ("EER", f"{self.eer:.2%}")]
        rows += [(f"TAR@FAR={short_rate(far)}", f"{value:.2%}") for far, value in self.tar_at_far.items()]
        if self.accuracy is not None:
            rows.append(("accuracy", str(self.accuracy)))
        rows += [(f"VAL@FAR={short_rate(far)}", str(value)) for far, value in self.val_at_far.items()]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value:>7}" for name, value in rows]
        folds = "" if self.accuracy is None else f" in {len(self.accuracy.values)} folds"
        lines.append(f"{self.positive_pairs:,} positive and {self.negative_pairs:,} negative pairs{folds}; {self.metric}")
        return "\n".join(lines)


def short_rate(far: float) -> str:
    """1e-3, not 0.001: a dot in a name is in the way of format strings such as those of ModelCheckpoint."""
    digits, exponent = f"{far:.6e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
