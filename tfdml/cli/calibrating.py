"""What the commands share about "no match": the options, and a calibration on the classes that were kept out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tfdml.cli.console import heading, say

if TYPE_CHECKING:
    from tfdml.bundle import Bundle, MatchProbability, Threshold
    from tfdml.datasets import Dataset

Far = Annotated[
    float | None,
    typer.Option(help="Calibrate what a match is: the share of pairs of two classes that may pass as one.", show_default=False),
]
Fir = Annotated[
    float | None,
    typer.Option(help="Or: the share of pictures of unknown classes that may get an answer.", show_default=False),
]
Precision = Annotated[
    float | None,
    typer.Option(help="Or: the share of answers that must be right.", show_default=False),
]


def calibrated(
    model: Any, held_out: Dataset | None, far: float | None, fir: float | None, precision: float | None
) -> dict[str, Any]:
    """`thresholds` and `match_probability` as `tfdml.bundle.export` takes them; empty if nothing was asked for."""
    from tfdml.bundle.manifest import MATCH
    from tfdml.evaluation import calibrate, fit_match_probability
    from tfdml.evaluation.of_models import default_metric, embed

    asked = {name: value for name, value in (("far", far), ("fir", fir), ("precision", precision)) if value is not None}
    if not asked:
        return {}
    if held_out is None or not len(held_out):
        raise ValueError(
            f"--{next(iter(asked))}: a match can be calibrated only on classes that the model was not trained on, and none "
            "were kept out. Train with --test above 0, and keep the images of these classes in DATA."
        )
    if len(asked) > 1:
        raise ValueError(f"{', '.join(f'--{name}' for name in asked)}: expected one of them.")
    embeddings, metric = embed(model, held_out), default_metric(model)
    found = calibrate(embeddings, held_out.labels, far=far, fir=fir, precision=precision, metric=metric)
    heading("What counts as a match")
    say(escape(str(found)))
    k = min(10, len(held_out) - 1)
    probability = fit_match_probability(embeddings, held_out.labels, metric=metric, k=k)
    return {"thresholds": {MATCH: found.threshold}, "match_probability": probability}


def as_record(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values for run.json."""
    if not calibration:
        return {}
    thresholds = {name: dataclasses.asdict(one) for name, one in calibration["thresholds"].items()}
    return {"thresholds": thresholds, "match_probability": dataclasses.asdict(calibration["match_probability"])}


def from_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `as_record` wrote."""
    from tfdml.bundle import MatchProbability, Threshold

    if "thresholds" not in record:
        return {}
    thresholds: dict[str, Threshold] = {name: Threshold(**one) for name, one in record["thresholds"].items()}
    fields: dict[str, Any] = dict(record["match_probability"])
    fields |= {name: tuple(fields[name]) for name in ("distances", "probabilities")}
    probability: MatchProbability = MatchProbability(**fields)
    return {"thresholds": thresholds, "match_probability": probability}


def limit(opened: Bundle, within: str) -> tuple[float | None, str]:
    """The distance that `--within` means, or None for no limit, and what it stands for."""
    known = opened.manifest.thresholds
    if within == "auto":
        within = opened.manifest.usual_threshold() or "none"
    if within == "none":
        return None, ""
    if within in known:
        return known[within].distance, known[within].target
    try:
        distance = float(within)
    except ValueError:
        distance = float("nan")
    if not distance >= 0:
        names = ", ".join(["auto", "none", *sorted(known)])
        raise ValueError(f"--within {within}: expected a distance, or one of {names}.")
    return distance, "as asked for"
