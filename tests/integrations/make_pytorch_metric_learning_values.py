"""Computes what docs/migration.md's rows of pytorch-metric-learning are held to: python make_pytorch_metric_learning_values.py

Run it where pytorch-metric-learning is installed, when its table has changed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FILE = Path(__file__).with_name("pytorch_metric_learning_values.json")


def main() -> None:
    import pytorch_metric_learning
    import torch
    from pytorch_metric_learning import losses, miners

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from migration_page import batch, class_weights, rows

    values = {}
    for row in rows():
        if row.library != "pytorch-metric-learning":
            continue
        y, x = batch(row.batch)
        x, y = torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)
        value = eval(row.theirs, {"losses": losses, "miners": miners, "x": x, "y": y, "torch": torch})
        weights = None
        if callable(value):
            for name in ("W", "proxies"):
                if hasattr(value, name):
                    weights = getattr(value, name)
                    # Theirs are [D, C] but for proxies.
                    numbers = torch.from_numpy(class_weights(weights.shape[0 if name == "proxies" else 1]))
                    weights.data = numbers if name == "proxies" else numbers.T.contiguous()
            value = value(x, y)
        value.backward()
        record = {"value": round(value.item(), 6)}
        if not row.why:
            record["gradient"] = rounded(x.grad)
        if weights is not None:
            slopes = weights.grad if weights.shape[1] == x.shape[1] else weights.grad.T
            record["weights_gradient"] = rounded(slopes)
        values[str(row)] = record
    lines = ",\n".join(f" {json.dumps(row)}: {json.dumps(record)}" for row, record in values.items())
    version = pytorch_metric_learning.__version__
    FILE.write_text(f'{{"pytorch-metric-learning": "{version}",\n{lines}\n}}\n', encoding="utf-8")


def rounded(matrix) -> list:
    return [[round(number, 6) for number in row] for row in matrix.tolist()]


if __name__ == "__main__":
    main()
