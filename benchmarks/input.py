"""Input off disk at scale: set-up, memory, images a second, how long a training step waits, and what augmentation costs.

    python benchmarks/input.py --folder SHARDS --make        # once: 10,000,000 images of 1,000,000 classes, 17 GB
    python benchmarks/input.py --folder SHARDS --json benchmarks/results/input.json
    python benchmarks/input.py --items 200000 --classes 20000      # makes them, measures, and removes them: minutes

The images are 64 x 64 JPEGs out of a pool of 1,024 renderings, each item with an id of its own; neighbours in the files are of
different classes. "Cold" means that the system was told to forget the files (`posix_fadvise`) before. A step is that of
`fit` for a small convolutional encoder at B = 128, P x K = 32 x 4, semi-hard triplets; it waits while `next` of the batches
has not returned. Processor time counts all threads of the process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import PACKAGES, high_water_mb, machine, version

P, K = 32, 4
POOL, SIZE = 1024, 64
PER_SHARD = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the shards are kept")
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, default=1_000_000)
    parser.add_argument("--make", action="store_true", help="write the shards and stop")
    parser.add_argument("--steps", type=int, default=150, help="of training, with and without input")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            args.folder = Path(folder)
            make(args.folder, args.items, args.classes)
            measure(args)
    elif args.make:
        make(args.folder, args.items, args.classes)
    else:
        measure(args)


def measure(args: argparse.Namespace) -> None:
    found = {"machine": machine(), "batch": [P, K], **loading(args.folder), **training(args.folder, args.steps)}
    found["augmentation_us_an_image"] = augmentation()
    found["versions"] = {name: there for name in PACKAGES if (there := version(name))}
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def make(folder: Path, items: int, classes: int) -> None:
    """The library's own writer of shards and index, fed from a pool of images instead of files."""
    from tfdml.datasets.shards.layout import PARTS, Manifest
    from tfdml.datasets.shards.parts import merge
    from tfdml.datasets.shards.runners import run
    from tfdml.preprocessing import ImagePreprocessing

    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    began = time.time()
    count = -(-items // PER_SHARD)
    tasks = ((folder, number, items, classes) for number in range(count))
    for _ in run(make_shard, tasks, os.cpu_count() or 1, None):
        pass
    written = time.time()
    total, there, files, fields, _ = merge(folder, count)
    Manifest("tfrecord", total, there, "jpeg", ImagePreprocessing(SIZE), tuple(files), tuple(fields), "").write(folder)
    seconds = {"write_seconds": round(written - began, 1), "index_seconds": round(time.time() - written, 1)}
    (folder / "made.json").write_text(json.dumps(seconds))
    print(seconds, file=sys.stderr)


def make_shard(task: tuple[Path, int, int, int]) -> int:
    from tfdml.datasets.shards.parts import Part, part_file
    from tfdml.datasets.shards.records import RecordWriter

    folder, number, items, classes = task
    chosen = range(number * PER_SHARD, min(items, (number + 1) * PER_SHARD))
    if (part := Part.load(part_file(folder, number))) and part.items == len(chosen):
        return len(chosen)
    images = pool()
    writer = RecordWriter(folder / f"images-{number:05d}.tfrecord")
    # A step that shares no factor with the number of classes: neighbours are of different classes.
    rows = [
        writer.add(images[item * 7919 % POOL], f"class-{item * 387_911 % classes:07d}", f"item-{item:08d}", {})
        for item in chosen
    ]
    Part.of(f"images-{number:05d}.tfrecord", writer.finish(), "", rows).save(part_file(folder, number))
    return len(rows)


def pool() -> list[bytes]:
    from PIL import Image

    from tfdml.datasets import rendered_catalogue

    if not _POOL:
        data = rendered_catalogue(classes=POOL // 8, views=8)
        for batch in data.batches(256).as_numpy_iterator():
            for image in batch:
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, "JPEG", quality=85)
                _POOL.append(buffer.getvalue())
    return _POOL


_POOL: list[bytes] = []


def forget(folder: Path) -> None:
    for file in [*folder.glob("*.tfrecord"), *(folder / "index").iterdir()]:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def loading(folder: Path) -> dict[str, Any]:
    import tensorflow as tf

    import tfdml

    tf.matmul(tf.zeros([64, 64]), tf.zeros([64, 64])).numpy()
    forget(folder)
    before, start = high_water_mb(), time.perf_counter()
    data = tfdml.datasets.open_shards(folder)
    opened = time.perf_counter()
    sampler = tfdml.samplers.PKSampler(data.groups, P, K)
    indices = iter(sampler.indices())
    next(indices)
    ready = time.perf_counter()
    rates = {"indices_a_second": rate(indices, 1000, P * K)}
    for name, first in (("cold", 10_000), ("warm", 10_000)):
        batches = iter(sampler.dataset(data.load, start_step=first))
        next(batches)
        rates[f"images_a_second_{name}"] = rate(batches, 150, P * K)
    load: Any = data.load
    cold = iter(sampler.indices(20_000).map(lambda rows, labels: load.read(rows), num_parallel_calls=4))
    rates["reads_a_second_cold"] = rate(cold, 150, P * K)
    warm = iter(sampler.indices(20_000).map(lambda rows, labels: load.read(rows), num_parallel_calls=4))
    processor = time.process_time()
    rates["reads_a_second_warm"] = rate(warm, 150, P * K)
    return {
        "items": len(data),
        "classes": data.num_classes,
        "bytes": sum(size for _, size, _ in data._shards.manifest.files),
        "index_bytes": sum(file.stat().st_size for file in (folder / "index").iterdir()),
        "made": json.loads((folder / "made.json").read_text()),
        "open_seconds_cold": round(opened - start, 3),
        "sampler_ready_seconds_cold": round(ready - opened, 3),
        "memory_mb": round(high_water_mb() - before),
        **rates,
        "read_processor_us_an_image": round((time.process_time() - processor) / (150 * P * K) * 1e6, 1),
    }


def rate(iterator: Any, count: int, each: int) -> int:
    start = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return round(count * each / (time.perf_counter() - start))


def training(folder: Path, steps: int) -> dict[str, Any]:
    import keras

    import tfdml

    keras.utils.set_random_seed(0)
    data = tfdml.datasets.open_shards(folder)
    sampler = tfdml.samplers.PKSampler(data.groups, P, K)
    model = tfdml.EmbeddingModel(tfdml.models.conv_encoder((SIZE, SIZE, 3), dimension=64))
    model.compile("adam", loss=tfdml.losses.TripletLoss(margin=0.2, mining="semi_hard"))
    constant = next(iter(sampler.dataset(data.load)))

    def step(batch: Any) -> None:
        model.train_on_batch(*batch)

    for _ in range(5):
        step(constant)
    rows: dict[str, Any] = {}
    forget(folder)
    for name, first in (("constant batch", None), ("cold", 30_000), ("warm", 30_000), ("constant batch again", None)):
        batches = iter(lambda: constant, None) if first is None else iter(sampler.dataset(data.load, start_step=first))
        for _ in range(5):
            step(next(batches))
        waited, stepped = [], []
        processor = time.process_time()
        for _ in range(steps):
            start = time.perf_counter()
            batch = next(batches)
            there = time.perf_counter()
            step(batch)
            waited.append(there - start)
            stepped.append(time.perf_counter() - there)
        rows[name] = {
            "ms_a_step": round(1e3 * (sum(waited) + sum(stepped)) / steps, 2),
            "waited_share": round(sum(waited) / (sum(waited) + sum(stepped)), 4),
            "ms_waited_99_percent": round(1e3 * sorted(waited)[int(0.99 * steps)], 2),
            "processor_ms_a_step": round(1e3 * (time.process_time() - processor) / steps, 1),
        }
    return {"training": rows}


def augmentation() -> dict[str, float]:
    """Processor time for each image of a batch, 72 x 72 to 64 x 64, all threads together."""
    import tensorflow as tf

    from tfdml.augmentation import RandomCropFlip

    images = tf.cast(tf.random.stateless_uniform([P * K, 72, 72, 3], (0, 0), 0, 256, tf.int32), tf.uint8)
    seed = tf.constant([1, 2])

    def cost(work: Callable[[Any, Any], Any]) -> float:
        graph = tf.function(work)
        for _ in range(20):
            graph(images, seed)
        times = []
        for _ in range(5):
            start = time.process_time()
            for _ in range(40):
                graph(images, seed)
            times.append((time.process_time() - start) / (40 * P * K))
        return round(1e6 * statistics.median(times), 1)

    return {
        "crop": cost(RandomCropFlip(SIZE, SIZE, flip=False)),
        "crop, flip": cost(RandomCropFlip(SIZE, SIZE)),
        "crop, flip, light": cost(RandomCropFlip(SIZE, SIZE, light=0.2)),
        "light alone": cost(RandomCropFlip(72, 72, flip=False, light=0.2)),
    }


if __name__ == "__main__":
    main()
