"""Embedding the images of a source with a bundle's model, part by part, in this process or over Ray Data."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfdml._checks import check_positive
from tfdml.bundle.layout import resolve
from tfdml.bundle.verification import check_files, read_manifest, refusing
from tfdml.scale import engines
from tfdml.scale.embedded import FORMAT, EmbeddedFolder, read_plan
from tfdml.scale.items import ITEMS, OFFSETS, list_items, write_items
from tfdml.scale.sources import Source, open_source
from tfdml.scale.work_folder import PLAN, WorkFolder, WorkFolderError, fingerprint, write_json

PART_SIZE = 2000
Progress = Callable[["EmbedProgress"], None]


@dataclasses.dataclass(frozen=True)
class EmbedProgress:
    """Where an embedding stands.

    Attributes:
        done: items in finished parts, those of earlier runs too.
        items: items in all.
        part: the part that was just finished; None for what was there at the start.
        worker: process and machine that finished it.
    """

    done: int
    items: int
    part: int | None = None
    worker: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class EmbedSummary:
    """What `embed` did.

    Attributes:
        folder: the finished folder.
        items: items in all; each has exactly one row.
        failed: how many of them are no image that the model could embed.
        parts: parts in all.
        parts_kept: parts that were finished before, and only checked.
        parts_repaired: parts that were found damaged, and done again.
        parts_abandoned: begun by an earlier run that was killed, or by a worker that was, and begun anew.
        seconds: of this run.
    """

    folder: Path
    items: int
    failed: int
    parts: int
    parts_kept: int
    parts_repaired: int
    parts_abandoned: int
    seconds: float


def embed(
    bundle: str | os.PathLike[str],
    source: str | os.PathLike[str] | Source,
    out: str | os.PathLike[str],
    *,
    part_size: int | None = None,
    image_root: str | os.PathLike[str] | None = None,
    address: str | None = None,
    workers: int | None = None,
    gpus: float = 0.0,
    progress: Progress | None = None,
) -> EmbedSummary:
    """Embeds every image of a source with a bundle's model, into a folder of parts that an `EmbeddedFolder` reads.

    First a plan is written: which items there are, in which parts, for which model. Then every part is embedded and appears in
    one step, with checksums. A worker that is killed is replaced and its part begun anew; if all of it is killed, the same
    call goes on: it checks the parts that are there and does the others. An image that cannot be decoded is a row with a
    reason and no embedding. At the end the rows are counted and every id is compared with the plan.

    Args:
        bundle: a version directory, or a model directory, whose latest version is taken.
        source: a folder of images, a .csv file, or a `Source`.
        out: the folder to write to.
        part_size: items in a part, which is what can be lost at once; 2000, or what the plan says.
        image_root: the folder that the paths of a .csv file are relative to.
        address: a Ray cluster's, such as "ray-head:6379" or "auto"; None uses the cores of this machine. On a cluster bundle,
            source and out lie on storage that all machines see under the same path.
        workers: processes that embed, each with one core; None for one on each core. 0 embeds in this process, without Ray,
            and so does None where Ray is not installed.
        gpus: GPUs of each worker.
        progress: called at the start and after each part.

    Raises:
        BundleError: if the bundle is damaged.
        SourceError: if the source cannot be listed, or changes meanwhile.
        WorkFolderError: if `out` is in use, or was begun with another source, bundle or part size.
        ImportError: if Ray is asked for and not installed.
        RuntimeError: if workers fail again and again.

    Example:
        summary = tfdml.scale.embed("exports/products", "photos/", "embedded/")
        folder = tfdml.scale.EmbeddedFolder.open("embedded/")
    """
    start = time.monotonic()
    if part_size is not None:
        check_positive("part_size", part_size)
    root, listing = resolve(bundle), open_source(source, image_root)
    run = engines.engine(address, workers, gpus)
    folder = WorkFolder(out, "part")
    with folder.locked():
        plan = _plan(folder, root, listing, part_size)
        name, count = fingerprint(plan), int(plan["parts"])
        abandoned = folder.remove_temporary()
        kept, repaired = _check_finished(folder, name, count)
        done = _items_in(plan, kept)
        tell = progress or (lambda _: None)
        tell(EmbedProgress(done, plan["items"]))
        work: dict[str, Any] = {"bundle": str(root.absolute()), "out": str(folder.path.absolute()), "plan": name}
        work |= {"kind": listing.kind, "settings": dict(listing.settings)}
        todo = sorted(set(range(count)) - set(kept))
        # Closed before the lock is given back, whatever happens: no worker may outlive it.
        with contextlib.closing(run(work, todo)) as receipts:
            for receipt in receipts:
                done += _items_in(plan, [receipt["part"]])
                tell(EmbedProgress(done, plan["items"], receipt["part"], receipt["worker"]))
        abandoned += folder.remove_temporary()
        finished = EmbeddedFolder.open(folder.path, checksum=False)
        finished.check_ids()
    seconds = time.monotonic() - start
    return EmbedSummary(
        folder.path, len(finished), len(finished.failed), count, len(kept), repaired, abandoned, round(seconds, 3)
    )


def _plan(folder: WorkFolder, bundle: Path, source: Source, part_size: int | None) -> dict[str, Any]:
    """The folder's plan, if it is for this source, bundle and part size; else a new one, if there is none."""
    with refusing(bundle):
        manifest = read_manifest(bundle)
    model: dict[str, Any] = {
        "bundle": manifest.model.fingerprint,
        "dimension": manifest.model.dimension,
        "metric": manifest.metric,
        "max_pixels": manifest.model.max_pixels,
    }
    old = folder.plan()
    if old is not None:
        plan = read_plan(folder)
        size = part_size or plan["part_size"]
        listed = list_items(source, plan["part_size"], folder.path)
        compared: list[tuple[str, Any, Any]] = [
            ("bundle", plan["bundle"][:12], model["bundle"][:12]),
            ("part size", plan["part_size"], size),
            ("number of items", plan["items"], listed.total),
            ("list of items (ids, sizes, times of change)", plan["source"][:12], listed.fingerprint[:12]),
        ]
        for what, was, now in compared:
            if was != now:
                raise WorkFolderError(
                    f"out={str(folder.path)!r}: was begun with another {what}: {was}, and now it is {now}. Go on with what it "
                    "was begun with, or take another folder; delete this one if it is no longer wanted."
                )
        return plan
    folder.refuse_strangers((ITEMS, OFFSETS))
    with refusing(bundle):
        check_files(bundle, manifest)
    size = part_size or PART_SIZE
    listed = write_items(source, size, folder.path)
    if not listed.total:
        raise ValueError(f"source: holds no item. {folder.path} was not begun.")
    plan = {"format": FORMAT, "source": listed.fingerprint, "kind": source.kind, "items": listed.total}
    plan |= {"part_size": size, "parts": len(listed.offsets) - 1, **model}
    write_json(folder.path / PLAN, plan)
    return plan


def _check_finished(folder: WorkFolder, plan: str, count: int) -> tuple[list[int], int]:
    """The parts that are there and whole, and how many were not and are removed."""
    kept, repaired = [], 0
    for number in folder.finished():
        try:
            if number >= count:
                raise WorkFolderError(f"part {number}: there are only {count}.")
            folder.read(number, plan)
        except (WorkFolderError, FileNotFoundError):
            folder.remove(number)
            repaired += 1
        else:
            kept.append(number)
    return kept, repaired


def _items_in(plan: dict[str, Any], parts: list[int]) -> int:
    size, items = plan["part_size"], plan["items"]
    return sum(min(size, items - part * size) for part in parts)
