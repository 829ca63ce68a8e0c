"""What an export is given to note in the manifest, checked before the gallery is embedded, which may take hours."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tfdml.bundle.errors import BundleError
from tfdml.bundle.manifest import Threshold
from tfdml.bundle.match_probability import MatchProbability

_NUMBERS = ("distance", "low", "high", "confidence")


def check_figures(evaluation: Any) -> dict[str, float]:
    """The figures by name of a mapping, or of a result such as that of `tfdml.evaluation.retrieval`."""
    given = {} if evaluation is None else evaluation.as_dict() if hasattr(evaluation, "as_dict") else evaluation
    if not isinstance(given, Mapping):
        raise BundleError(
            f"evaluation: expected a mapping of names to numbers, or a result with as_dict(), received {type(given).__name__}."
        )
    return {str(name): _finite(value, f"evaluation[{name!r}]") for name, value in given.items()}


def check_thresholds(thresholds: Mapping[str, Threshold] | None) -> dict[str, Threshold]:
    """The same thresholds, their numbers plain."""
    checked: dict[str, Threshold] = {}
    for name, one in (thresholds or {}).items():
        if not isinstance(one, Threshold):
            raise BundleError(
                f"thresholds[{name!r}]: expected a Threshold, such as calibrate(...).threshold, received {type(one).__name__}."
            )
        numbers: dict[str, Any] = {field: _finite(getattr(one, field), f"thresholds[{name!r}].{field}") for field in _NUMBERS}
        checked[str(name)] = dataclasses.replace(one, **numbers)
    return checked


def check_match_probability(given: MatchProbability | None) -> None:
    """An error for anything but None and what `fit_match_probability` returns."""
    if given is not None and not isinstance(given, MatchProbability):
        raise BundleError(f"match_probability: expected what fit_match_probability(...) returns, received {given!r}.")


def _finite(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BundleError(f"{what}={value!r}: expected a finite number, or none at all.")
    return number
