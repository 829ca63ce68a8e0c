"""Makes bundles in child processes, kills each at another moment of its work, and prints what was left.

    python kill_exports.py publishing|exporting BUNDLE TO KILLS

`publishing` packs, verifies and publishes BUNDLE's SavedModel and vectors anew, over and over, without TensorFlow;
`exporting` does a whole export of a small model. A child is killed at some time after it has begun to write: the times of all
children are spread evenly, one at random in each of KILLS parts, over what an undisturbed child needs and a little more.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tfdml.bundle import Bundle, BundleError, Publication, verify
from tfdml.bundle.layout import EXTRA, RETRIEVAL, WARMUP, versions
from tfdml.bundle.packing import Gallery, pack


def publish_again(path: str, to: Path) -> None:
    # Opened in the child: SQLite connections must not cross a fork.
    with Bundle.open(path, verify=False) as source:
        manifest = source.manifest
        gallery = Gallery(source.index.vectors(), source.catalogue.ids(), {}, manifest.metric, manifest.probes)
        with Publication(to) as publication:
            for entry in source.path.iterdir():
                if entry.name != EXTRA:
                    copy = shutil.copytree if entry.is_dir() else shutil.copy
                    copy(entry, publication.directory / entry.name)
            (publication.directory / RETRIEVAL).mkdir(parents=True)
            shutil.copy(source.path / WARMUP, publication.directory / WARMUP)
            pack(publication.directory, gallery, dataclasses.replace(manifest.model, fingerprint=""))
            verify(publication.directory)
            publication.publish()


def export_anew(path: str, to: Path) -> None:
    from bundle_helpers import gallery_dataset, tiny_model

    from tfdml import bundle

    bundle.export(tiny_model(), gallery_dataset(), to).close()


def main(what: str, path: str, to: Path, kills: int) -> None:
    if what == "exporting":
        # Once for all children. Only what uses TensorFlow starts its threads, and so nobody uses it before the fork.
        importlib.import_module("tfdml.models")
        importlib.import_module("tfdml.bundle.exporting")
    work = {"publishing": publish_again, "exporting": export_anew}[what]
    rng = random.Random(0)
    once = in_a_child(work, path, to)
    moments = [(part + rng.random()) / kills * 1.05 * once for part in range(kills)]
    rng.shuffle(moments)
    refused: list[str] = []
    verified: set[int] = set()
    killed_in_the_middle = 0
    for moment in moments:
        in_a_child(work, path, to, kill_after=moment)
        killed_in_the_middle += any(name.startswith(".") for name in os.listdir(to))
        for version in set(versions(to)) - verified:
            try:
                verify(to / str(version))
                verified.add(version)
            except BundleError as error:
                refused.append(str(error))
    in_a_child(work, path, to)
    report = {
        "kills": kills,
        "versions": len(verified),
        "refused": refused,
        "killed_in_the_middle": killed_in_the_middle,
        "left_behind_at_the_end": [name for name in os.listdir(to) if name.startswith(".")],
    }
    print(json.dumps(report))


def in_a_child(work: Callable[[str, Path], None], path: str, to: Path, kill_after: float = 600) -> float:
    """Does the work in a forked child, which is killed `kill_after` seconds after its first trace in `to`.

    Returns the seconds from this trace to the child's end.
    """
    before = set(os.listdir(to)) if to.exists() else set()
    child = os.fork()
    if child == 0:
        try:
            work(path, to)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    began = None
    while began is None or time.monotonic() < began + kill_after:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status or began is None:
                raise RuntimeError("a child failed by itself")
            return time.monotonic() - began
        if began is None and to.exists() and set(os.listdir(to)) - before:
            began = time.monotonic()
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return kill_after


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
