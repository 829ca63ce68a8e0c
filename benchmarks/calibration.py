"""Does a calibrated threshold keep its rate on classes that were used for nothing else? Ten splits of real photographs.

    TFDML_DATA=... python benchmarks/calibration.py [--data omniglot grocery] [--splits 10] [--embeddings FOLDER] [--json F]

The protocol of benchmarks/quality.py with semi-hard triplets trains on half of the classes. The other half is dealt ten times
into classes to calibrate with and classes to check on. Each time `calibrate` says where the rate will lie on as many new
classes, at 95%, and `Calibration.check` measures it there. `within` counts the splits in which it does. The last column does
the same with an interval that takes single pairs or queries for independent, as most reports do.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from tfdml.evaluation import calibrate, fit_match_probability, retrieval

ROOT = Path(__file__).resolve().parent.parent

TARGETS = (("far", 0.01), ("far", 0.001), ("fir", 0.1), ("precision", 0.9))
BINS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", choices=("omniglot", "grocery"), default=["omniglot", "grocery"])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--embeddings", type=Path, help="keep the embeddings in this folder, and take them from there")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "calibration.json")
    arguments = parser.parse_args()
    results = json.loads(arguments.json.read_text()) if arguments.json.is_file() else {}
    for name in arguments.data:
        embeddings, labels = embedded(name, arguments.steps, arguments.embeddings)
        results[name] = measure(embeddings, labels, arguments.splits)
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


def embedded(name: str, steps: int, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the classes that the model was not trained on."""
    kept = None if folder is None else folder / f"{name}.npz"
    if kept is not None and kept.is_file():
        content = np.load(kept)
        return content["embeddings"], content["labels"]
    import keras
    import quality

    keras.utils.set_random_seed(0)
    source = quality.DATA[name]()
    model, batches = quality.build("triplet_semi_hard", source, steps, seed=0)
    model.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=2)
    embeddings = model.predict(source.test.batches(256), verbose=0)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, embeddings=embeddings, labels=source.test.labels)
    return embeddings, np.asarray(source.test.labels)


def measure(embeddings: np.ndarray, labels: np.ndarray, splits: int) -> dict[str, Any]:
    classes = np.unique(labels)
    targets: dict[str, Any] = {}
    for kind, asked in TARGETS:
        rows = []
        for split in range(splits):
            chosen = np.isin(labels, np.random.default_rng(split).permutation(classes)[: len(classes) // 2])
            try:
                found = calibrate(embeddings[chosen], labels[chosen], **{kind: asked}, seed=split)
            except ValueError as error:
                rows.append({"refused": str(error)})
                continue
            check = found.check(embeddings[~chosen], labels[~chosen])
            rows.append(
                {
                    "distance": found.distance,
                    "distance_interval": [found.low, found.high],
                    "told": [found.rate_low, found.rate_high],
                    "rate": check.rate.value,
                    "rate_interval": [check.rate.low, check.rate.high],
                    "within": bool(check.within),
                    "within_if_independent": independent(found, check.rate.value),
                }
            )
        targets[f"{kind} {asked:g}"] = rows
    return {
        "images": len(labels),
        "classes": len(classes),
        "targets": targets,
        "probabilities": probabilities(embeddings, labels, splits),
    }


def independent(found: Any, rate: float) -> bool:
    """Whether the rate lies where two binomial measurements of as many independent pairs or queries would have it."""
    spread = np.sqrt(2 * found.rate * (1 - found.rate) / found.counted)
    return bool(abs(rate - found.rate) <= 1.96 * spread)


def probabilities(embeddings: np.ndarray, labels: np.ndarray, splits: int) -> dict[str, float]:
    """Expected calibration error of the probability of a match, on the other classes: mean over the splits."""
    classes = np.unique(labels)
    errors: dict[str, list[float]] = {"isotonic": [], "logistic": []}
    for split in range(splits):
        chosen = np.isin(labels, np.random.default_rng(split).permutation(classes)[: len(classes) // 2])
        other = retrieval(embeddings[~chosen], labels[~chosen], ks=(10,)).per_query
        for kind, each in errors.items():
            told = fit_match_probability(embeddings[chosen], labels[chosen], kind=kind)(other.distances)
            which = np.minimum((told * BINS).astype(int), BINS - 1).ravel()
            gaps = np.bincount(which, (told - other.correct).ravel(), BINS)
            each.append(float(np.abs(gaps).sum() / told.size))
    return {kind: round(float(np.mean(each)), 4) for kind, each in errors.items()}


def table(results: dict[str, Any]) -> str:
    lines = [
        "| data | asked | told, mean of both ends | rate on other classes, mean and range | within | if independent |",
        "|---|---|---|---|---:|---:|",
    ]
    for name, result in results.items():
        for target, rows in result["targets"].items():
            good = [row for row in rows if "rate" in row]
            if not good:
                lines.append(f"| {name} | {target} | refused | | | |")
                continue
            told = np.mean([row["told"] for row in good], axis=0)
            rates = [row["rate"] for row in good]
            measured = f"{np.mean(rates):.3g} ({min(rates):.3g} to {max(rates):.3g})"
            counts = [f"{sum(row[key] for row in good)} of {len(good)}" for key in ("within", "within_if_independent")]
            lines.append(f"| {name} | {target} | {told[0]:.3g} to {told[1]:.3g} | {measured} | {counts[0]} | {counts[1]} |")
    for name, result in results.items():
        errors = ", ".join(f"{kind} {value:.3f}" for kind, value in result["probabilities"].items())
        lines.append(f"\n{name}: expected calibration error of the probability of a match, on the other classes: {errors}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
