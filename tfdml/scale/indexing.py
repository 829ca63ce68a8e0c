"""Indexes over what `embed` wrote, one a shard, built in this process or by Ray tasks; searched as one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfdml._checks import check_positive
from tfdml._ray import connected, has_ray
from tfdml.index._nearest import NearestRows
from tfdml.index._recall import recall_at
from tfdml.index.sharded import ShardedIndex
from tfdml.index.stored import IndexSettings, build_index, index_settings, load_index
from tfdml.scale.embedded import EmbeddedFolder
from tfdml.scale.work_folder import PLAN, WorkFolder, WorkFolderError, fingerprint, write_json

FORMAT = "tfdml sharded index 1"
INDEX, IDS = "index", "ids.json"
_QUERIES = 256


@dataclasses.dataclass(frozen=True)
class ShardsSummary:
    """What `build_shards` did.

    Attributes:
        folder: where the shards are.
        items: items in all shards together.
        shards: shards in all.
        shards_kept: shards that were there before, and only checked.
        recall: share of the true neighbours that the whole finds, on items as queries; each shard's own recall is measured on
            queries that it has not seen.
        recall_at: at how many neighbours.
        lowest_shard_recall: of the shards' own.
        seconds: of this run.
    """

    folder: Path
    items: int
    shards: int
    shards_kept: int
    recall: float
    recall_at: int
    lowest_shard_recall: float
    seconds: float


def build_shards(
    embedded: str | os.PathLike[str],
    out: str | os.PathLike[str],
    shards: int,
    *,
    index: IndexSettings = "annoy",
    recall: float = 0.95,
    seed: int = 0,
    address: str | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShardsSummary:
    """Builds one index for each of `shards` ranges of the embedded items. What fails to embed is left out.

    It may be killed as `embed` may: shards that are there are checked and kept.

    Args:
        embedded: a finished folder of `embed`.
        out: the folder to write to.
        shards: how many; a shard's vectors must fit into the memory of the worker that builds it, about three times.
        index: as in `tfdml.index.build_index`.
        recall: that each shard must reach.
        seed: of what the backend draws.
        address: a Ray cluster's; None uses this machine.
        workers: shards that are built at the same time; None for one on each core, 0 builds in this process, without Ray.
        progress: called with (shards done, shards) at the start and after each.

    Raises:
        WorkFolderError: if `embedded` is not finished, or `out` is in use or was begun with other arguments.
        ValueError: for bad arguments, and if a shard does not reach the asked recall.
    """
    start = time.monotonic()
    check_positive("shards", shards)
    settings = index_settings(index)
    source = EmbeddedFolder.open(embedded)
    items = sum(source.counts)
    if shards > items:
        raise ValueError(f"shards={shards}: there are only {items} items with an embedding. Ask for at most as many shards.")
    plan = {"format": FORMAT, "embedding": source.fingerprint, "metric": source.metric, "items": items, "shards": shards}
    plan |= {"index": settings, "recall": float(recall), "seed": int(seed)}
    folder, tell = WorkFolder(out, "shard"), progress or (lambda done, total: None)
    with folder.locked():
        old = folder.plan()
        if old is None:
            folder.refuse_strangers()
            write_json(folder.path / PLAN, plan)
        elif old != plan:
            names = sorted(name for name in {*old, *plan} if old.get(name) != plan.get(name))
            raise WorkFolderError(
                f"out={str(folder.path)!r}: was begun with another {', '.join(names)}. "
                "Go on with the same, or take another folder."
            )
        folder.remove_temporary()
        kept = _kept(folder, fingerprint(plan), shards)
        tell(len(kept), shards)
        work = {"embedded": str(source.path.absolute()), "out": str(folder.path.absolute()), "plan": plan}
        todo = sorted(set(range(shards)) - set(kept))
        with contextlib.closing(_run(work, todo, address, workers)) as run:
            for done, _ in enumerate(run, len(kept) + 1):
                tell(done, shards)
        whole = open_shards(folder.path, checksum=False)
        if len(whole) != items:
            raise WorkFolderError(f"{str(folder.path)!r}: {len(whole)} items in the shards, expected {items}.")
        share, at = whole_recall(whole, seed)
    lowest = min(shard.spec.recall for shard in whole.shards)
    seconds = round(time.monotonic() - start, 3)
    return ShardsSummary(folder.path, items, shards, len(kept), share, at, lowest, seconds)


def open_shards(path: str | os.PathLike[str], *, checksum: bool = True) -> ShardedIndex:
    """The index that `build_shards` wrote; its files are mapped.

    Args:
        path: what was `out`.
        checksum: False skips the SHA-256 of the files only.

    Raises:
        WorkFolderError: if the folder is another one, not finished, or damaged.
    """
    folder = WorkFolder(path, "shard")
    plan = folder.plan()
    if plan is None or plan.get("format") != FORMAT:
        raise WorkFolderError(f"{str(folder.path)!r}: holds no plan of a sharded index. Build one: tfdml index build.")
    missing = sorted(set(range(plan["shards"])) - set(folder.finished()))
    if missing:
        raise WorkFolderError(f"{str(folder.path)!r}: {len(missing)} shards are missing. Give `tfdml index build` again.")
    shards = []
    for number in range(plan["shards"]):
        record = folder.read(number, fingerprint(plan), checksum=checksum)
        ids = json.loads((folder.folder(number) / IDS).read_bytes())
        shards.append(load_index(folder.folder(number) / INDEX, record.facts["spec"], ids, checksum=False))
    return ShardedIndex(shards)


def whole_recall(index: ShardedIndex, seed: int = 0) -> tuple[float, int]:
    """Share of the true neighbours of some items that the index finds, and at how many; an item is no answer to itself."""
    at = recall_at(len(index))
    if len(index) == 1:
        return 1.0, at
    items = np.sort(np.random.default_rng(seed).permutation(len(index))[:_QUERIES])
    queries = index.vectors(items)
    squares = []
    for shard in index.shards:
        blocks = NearestRows(np.ascontiguousarray(shard.vectors())).search(queries, min(at + 1, len(shard)))
        squares.append(np.concatenate([block.squared_distances for block in blocks]))
    # The nearest is the item itself, or a copy of it.
    ordered = np.sort(np.concatenate(squares, axis=1), axis=1)[:, : at + 1]
    farthest = np.sqrt(ordered[:, -1]) if index.metric == "euclidean" else ordered[:, -1] / 2
    found = index.search(queries, min(at + 1, len(index)))
    near = (found.distances <= farthest[:, None] * (1 + 1e-6) + 1e-12) & (found.numbers != items[:, None])
    return float(np.minimum(near.sum(axis=1), at).mean()) / at, at


def build_shard(work: Mapping[str, Any], number: int) -> int:
    """Builds a shard, unless it is there; for this process and for Ray's."""
    plan, folder = work["plan"], WorkFolder(work["out"], "shard")
    source = EmbeddedFolder.open(work["embedded"], checksum=False)
    items, shards = plan["items"], plan["shards"]
    first, last = (part * items // shards for part in (number, number + 1))

    def write(target: Path) -> dict[str, Any]:
        ids, vectors = source.valid(first, last)
        with tempfile.TemporaryDirectory(prefix=f".tmp-{number}-", dir=target.parent) as workshop:
            options = {"recall": plan["recall"], "seed": plan["seed"], "folder": workshop}
            spec = build_index(vectors, ids, plan["metric"], plan["index"], **options).save(target / INDEX)
        (target / IDS).write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
        return {"spec": spec.as_dict()}

    folder.commit(number, fingerprint(plan), write)
    return number


def _kept(folder: WorkFolder, plan: str, count: int) -> list[int]:
    """The shards that are there and whole; others are removed."""
    kept = []
    for number in folder.finished():
        try:
            folder.read(number, plan)
        except (WorkFolderError, FileNotFoundError):
            folder.remove(number)
        else:
            kept.append(number)
    return kept


def _run(work: Mapping[str, Any], todo: list[int], address: str | None, workers: int | None) -> Generator[int, None, None]:
    """Builds shards, and yields their numbers as they are done."""
    if workers is not None:
        check_positive("workers", workers, allow_zero=True)
    if not todo:
        return
    if workers == 0 or (workers is None and address is None and not has_ray()):
        if address is not None:
            raise ValueError(f"workers=0: builds in this process, so address={address!r} has no meaning.")
        for number in todo:
            yield build_shard(work, number)
        return
    with connected(address) as ray:
        size = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        task = ray.remote(_ray_shard).options(num_cpus=1, max_retries=3)
        waiting, running = list(reversed(todo)), list[Any]()
        while waiting or running:
            while waiting and len(running) < size:
                running.append(task.remote(dict(work), waiting.pop()))
            done, running = ray.wait(running)
            try:
                number, error = ray.get(done[0])
            except ray.exceptions.RayError as failure:
                raise RuntimeError(f"a worker on Ray failed again and again: {type(failure).__name__}") from failure
            if error:
                raise ValueError(f"shard {number}: {error}")
            yield number


def _ray_shard(work: Mapping[str, Any], number: int) -> tuple[int, str]:
    """Errors travel as words, since Ray would wrap them in its own."""
    try:
        return build_shard(work, number), ""
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        return number, f"{type(error).__name__}: {error}"
