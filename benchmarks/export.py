"""Exported signatures beside the Keras model itself: images a second, decoding counted apart.

    python benchmarks/export.py [--json FILE] [--rounds 30]

The peer is the Keras model in a `tf.function` on the same decoded batch. `serving_default` also decodes: the time of the very
same decoding is added to its peer's, and stands beside that of a plain `tf.map_fn`, which fails the batch when one file is bad.
Every round times all of them in turn; ratios are medians over rounds, so what else the machine does cancels out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
import numpy as np
import tensorflow as tf

import tfdml
from tfdml.bundle.decoding import decode_batch
from tfdml.bundle.saved_model import write_saved_model
from tfdml.preprocessing import ImagePreprocessing

ENCODERS: dict[str, tuple[tuple[int, int, int], tuple[int, ...]]] = {
    "28 x 28, 4 blocks of 64": ((28, 28, 1), (64, 64, 64, 64)),
    "64 x 64, blocks of 32 to 128": ((64, 64, 3), (32, 64, 128, 128)),
    "128 x 128, blocks of 32 to 256": ((128, 128, 3), (32, 64, 128, 256)),
}
BATCHES = (1, 8, 64)
SOURCE_SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    rows = [row for name in ENCODERS for row in measure(name, arguments.rounds)]
    figures = {"tensorflow": tf.__version__, "keras": keras.__version__, "rounds": arguments.rounds, "rows": rows}
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    shape, filters = ENCODERS[name]
    keras.utils.set_random_seed(0)
    model = tfdml.EmbeddingModel(tfdml.models.conv_encoder(shape, filters, dimension=64))
    preprocessing = ImagePreprocessing(size=shape[:2], channels=shape[2])
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        write_saved_model(model, directory, preprocessing)
        megabytes = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / 1e6
        signatures = tf.saved_model.load(str(directory)).signatures

        @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.uint8)])
        def keras_model(images: tf.Tensor) -> tf.Tensor:
            return model(images, training=False)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def decode(files: tf.Tensor) -> tf.Tensor:
            return decode_batch(files, preprocessing, max_pixels=50_000_000)[0]

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def plain_decode(files: tf.Tensor) -> tf.Tensor:
            return tf.map_fn(preprocessing, files, fn_output_signature=tf.TensorSpec(shape, tf.uint8))

        peers = {"keras": keras_model, "decode": decode, "plain_decode": plain_decode}
        return [one_size(name, megabytes, batch, rounds, signatures, peers) for batch in BATCHES]


def one_size(name: str, megabytes: float, batch: int, rounds: int, signatures: Any, peers: dict[str, Any]) -> dict[str, Any]:
    files = tf.constant(photographs(batch), tf.string)
    images = peers["decode"](files)
    difference = signatures["serving_default"](image_bytes=files)["embedding"] - peers["keras"](images)
    runs: dict[str, Callable[[], Any]] = {
        "keras": lambda: peers["keras"](images),
        "decode": lambda: peers["decode"](files),
        "plain_decode": lambda: peers["plain_decode"](files),
        "embed_images": lambda: signatures["embed_images"](images=images),
        "serving_default": lambda: signatures["serving_default"](image_bytes=files),
    }
    repeats = max(1, 64 // batch)
    times: dict[str, list[float]] = {key: [] for key in runs}
    for round_number in range(-2, rounds):
        for key, run in runs.items():
            started = time.perf_counter()
            for _ in range(repeats):
                run()
            if round_number >= 0:
                times[key].append((time.perf_counter() - started) / repeats)
    direct = [a / b for a, b in zip(times["keras"], times["embed_images"], strict=True)]
    whole = [(a + d) / b for a, d, b in zip(times["keras"], times["decode"], times["serving_default"], strict=True)]
    return {
        "encoder": name,
        "saved_model_megabytes": round(megabytes, 2),
        "batch": batch,
        "milliseconds": {key: round(1e3 * statistics.median(values), 3) for key, values in times.items()},
        "embed_images_ratio": round(statistics.median(direct), 3),
        "serving_default_ratio": round(statistics.median(whole), 3),
        "largest_difference": float(tf.reduce_max(tf.abs(difference))),
    }


def photographs(count: int) -> list[bytes]:
    """JPEG files of smooth random pictures, about as many bytes as a photograph of that size."""
    rng = np.random.default_rng(0)
    coarse = tf.image.resize(rng.uniform(0, 255, [count, 24, 24, 3]), [SOURCE_SIDE, SOURCE_SIDE], method="bicubic")
    pixels = tf.cast(tf.clip_by_value(coarse + rng.normal(0, 6, coarse.shape), 0, 255), tf.uint8)
    return [tf.io.encode_jpeg(image, quality=90).numpy() for image in pixels]


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"TensorFlow {figures['tensorflow']}, Keras {figures['keras']}, {figures['rounds']} rounds. Milliseconds a batch; in "
        "brackets the throughput against the Keras model on the same decoded batch, decoding counted apart.",
        "",
        "| encoder | SavedModel | batch | Keras | decoding (plain) | `embed_images` | `serving_default` |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in figures["rows"]:
        ms = row["milliseconds"]
        cells = [
            row["encoder"],
            f"{row['saved_model_megabytes']:.2f} MB",
            str(row["batch"]),
            f"{ms['keras']:.2f}",
            f"{ms['decode']:.2f} ({ms['plain_decode']:.2f})",
            f"{ms['embed_images']:.2f} ({row['embed_images_ratio']:.2f})",
            f"{ms['serving_default']:.2f} ({row['serving_default_ratio']:.2f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
