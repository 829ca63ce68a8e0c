"""Many rendered images embedded twice by `tfdml embed` over Ray: undisturbed, and with a worker and then the driver killed.

    python benchmarks/embedding_at_scale.py --json benchmarks/results/embedding_at_scale.json

Products of the rendered catalogue are written as JPEG files, a small untrained network is published as a bundle, and two
commands embed the same folder. In the second run one worker gets a SIGKILL at a quarter of the parts and the driver at three
fifths; then the same command is given again. At the end every id must be there exactly once, and all vectors be those of the
undisturbed run, bit by bit.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import ROOT, machine

VIEWS = 100  # of each product
IN_FLIGHT = re.compile(r"\.tmp-\d+-(\d+)-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=32, help="of an image, in pixels")
    parser.add_argument("--part-size", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where images and results lie; kept. A temporary one if left out")
    parser.add_argument("--only-render", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="tfdml-embedding-"))
    try:
        seconds = render_all(folder / "images", args.images // VIEWS, args.side, args.workers)
        if args.only_render:
            return
        record = measured(folder, args) | ({"rendering_seconds": seconds} if seconds else {})
        print(json.dumps(record, indent=1))
        if args.json:
            args.json.write_text(json.dumps(record, indent=1) + "\n")
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


def measured(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    publish(folder / "bundle", args.side)
    command = [sys.executable, "-m", "tfdml.cli", "embed", folder / "bundle", folder / "images", "--part-size", args.part_size]
    command = [str(word) for word in [*command, "--workers", args.workers, "--out"]]
    whole, killed = folder / "whole", folder / "killed"
    for out in (whole, killed):
        shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    subprocess.run([*command, str(whole)], check=True, env=environment())
    undisturbed = time.perf_counter() - start
    parts = -(-args.images // args.part_size)
    first = interrupted([*command, str(killed)], killed / "parts", parts)
    start = time.perf_counter()
    subprocess.run([*command, str(killed)], check=True, env=environment())
    second = time.perf_counter() - start
    return {
        "machine": machine(),
        "images": args.images,
        "image_side": args.side,
        "part_size": args.part_size,
        "parts": parts,
        "workers": args.workers,
        "undisturbed_seconds": round(undisturbed, 1),
        "undisturbed_images_per_second": round(args.images / undisturbed),
        "killed": first | {"seconds_of_the_second_run": round(second, 1)},
        **compared(whole, killed, folder),
    }


def interrupted(command: list[str], parts: Path, count: int) -> dict[str, Any]:
    """Runs the command, kills a worker and later the driver, and says what was in flight when they died."""
    start = time.perf_counter()
    driver = subprocess.Popen(command, env=environment())
    wait_for(parts, count // 4, driver)
    victim = in_flight(parts)[0]
    os.kill(victim, signal.SIGKILL)
    at_first = len(finished(parts))
    wait_for(parts, 3 * count // 5, driver)
    left = [name for name in listed(parts) if f"-{victim}-" in name]
    driver.kill()
    driver.wait()
    seconds = time.perf_counter() - start
    time.sleep(15)  # Ray's workers notice by themselves that their driver is gone; what one finishes meanwhile counts
    return {
        "worker_killed_after_parts": at_first,
        "parts_lost_with_the_worker": len(left),
        "parts_there_before_the_second_run": len(finished(parts)),
        "parts_lost_with_the_driver": len(in_flight(parts)) - len(left),
        "seconds_of_the_first_run": round(seconds, 1),
    }


def compared(whole: Path, killed: Path, folder: Path) -> dict[str, Any]:
    from tfdml.bundle import Embedder
    from tfdml.scale import EmbeddedFolder

    one, other = EmbeddedFolder.open(whole), EmbeddedFolder.open(killed)
    other.check_ids()
    ids = [item for part in other.parts() for item in part.ids]
    files = sorted(str(path.relative_to(folder / "images")) for path in (folder / "images").rglob("*.jpg"))
    same = [
        a.ids == b.ids and a.failed == b.failed and a.vectors.tobytes() == b.vectors.tobytes()
        for a, b in zip(one.parts(), other.parts(), strict=True)
    ]
    part = other.part(len(same) // 2)
    direct = Embedder(folder / "bundle").embed([(folder / "images" / item).read_bytes() for item in part.ids])
    found = {
        "rows": len(ids),
        "different_ids": len(set(ids)),
        "ids_are_the_files": sorted(ids) == files,
        "failed": len(other.failed),
        "parts_equal_bit_by_bit": sum(same),
        "fingerprints_equal": one.fingerprint == other.fingerprint,
        "largest_difference_from_one_call_of_the_embedder": float(np.abs(direct - part.vectors).max()),
    }
    assert found["rows"] == found["different_ids"] == len(files), found
    assert found["ids_are_the_files"], found
    assert all(same), found
    assert found["fingerprints_equal"], found
    return found


def publish(to: Path, side: int) -> None:
    if to.exists():
        return
    import keras

    import tfdml

    keras.utils.set_random_seed(0)
    layers = [keras.Input((side, side, 3)), keras.layers.Rescaling(1 / 255)]
    for width in (16, 32, 64):
        layers += [keras.layers.Conv2D(width, 3, strides=2, padding="same"), keras.layers.ReLU()]
    layers += [keras.layers.Flatten(), keras.layers.Dense(64)]
    gallery = tfdml.datasets.rendered_catalogue(classes=20, views=4, image_size=side)
    tfdml.bundle.export(tfdml.EmbeddingModel(keras.Sequential(layers)), gallery, to).close()


def render_all(folder: Path, classes: int, side: int, workers: int) -> float | None:
    """JPEG files, a folder for each product; None if they are there."""
    if (folder / ".complete").exists():
        return None
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap_unordered(render, [(folder, number, classes, side) for number in range(classes)]):
            pass
    (folder / ".complete").touch()
    return round(time.perf_counter() - start, 1)


def render(task: tuple[Path, int, int, int]) -> None:
    from PIL import Image

    from tfdml.datasets.catalogue.look import draw_looks
    from tfdml.datasets.catalogue.render import render_views

    folder, number, classes, side = task
    product = folder / f"product-{number:04d}"
    product.mkdir(parents=True, exist_ok=True)
    if number not in LOOKS:
        LOOKS.update(enumerate(draw_looks(classes, 0)))
    for view, image in enumerate(render_views(LOOKS[number], (side, side), VIEWS, (0, number))):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        (product / f"{view:03d}.jpg").write_bytes(buffer.getvalue())


LOOKS: dict[int, Any] = {}


def wait_for(parts: Path, count: int, driver: subprocess.Popen[bytes]) -> None:
    while len(finished(parts)) < count or not in_flight(parts):
        if driver.poll() is not None:
            raise RuntimeError(f"the driver ended after {len(finished(parts))} parts, before it was killed")
        time.sleep(0.01)


def finished(parts: Path) -> list[str]:
    return [name for name in listed(parts) if name.startswith("part-")]


def in_flight(parts: Path) -> list[int]:
    """Processes whose part is begun."""
    return [int(match[1]) for name in listed(parts) if (match := IN_FLIGHT.match(name))]


def listed(parts: Path) -> list[str]:
    return sorted(os.listdir(parts)) if parts.exists() else []


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "serving")])
    return os.environ | {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


if __name__ == "__main__":
    main()
