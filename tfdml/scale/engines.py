"""Who does the parts: this process, or Ray's workers on this machine or on a cluster."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from tfdml._checks import check_positive
from tfdml._ray import connected, has_ray, import_ray

if TYPE_CHECKING:
    from tfdml.scale.embedding_worker import EmbeddingWorker

Receipts = Generator[dict[str, Any], None, None]
Engine = Callable[[Mapping[str, Any], list[int]], Receipts]
_MOST_BLOCKS = 4096


def engine(address: str | None, workers: int | None, gpus: float) -> Engine:
    """What runs `EmbeddingWorker`s over numbers of parts, and yields their receipts in the order in which they are done.

    Raises:
        ValueError: for arguments that do not go together.
        ImportError: if Ray is asked for and not installed.
    """
    check_positive("gpus", gpus, allow_zero=True)
    if workers is not None:
        check_positive("workers", workers, allow_zero=True)
    if workers == 0 or (workers is None and address is None and not gpus and not has_ray()):
        if address is not None or gpus:
            raise ValueError(f"workers=0: embeds in this process, so address={address!r} and gpus={gpus} have no meaning.")
        return _in_process
    import_ray(data=True)
    return lambda work, parts: _over_ray(work, parts, address, workers, gpus)


def _in_process(work: Mapping[str, Any], parts: list[int]) -> Receipts:
    from tfdml.scale.embedding_worker import EmbeddingWorker

    if parts:
        worker = EmbeddingWorker(work)
        for part in parts:
            yield worker(part)


class _RayWorker:
    """An `EmbeddingWorker` as Ray Data calls it, with a batch that is one part's number.

    Errors travel as words, since a user is to read them and Ray would wrap them in its own.
    """

    def __init__(self, work: Mapping[str, Any]) -> None:
        self._work = work
        self._worker: EmbeddingWorker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from tfdml.scale.embedding_worker import EmbeddingWorker

        try:
            if self._worker is None:
                self._worker = EmbeddingWorker(self._work, threads=1)
            receipts = [self._worker(int(part)) for part in batch["part"]]
        except (ValueError, OSError, RuntimeError) as error:
            receipts = [{"error": f"{type(error).__name__}: {error}", "kind": type(error).__name__}]
        return {"receipt": [json.dumps(receipt) for receipt in receipts]}


def _over_ray(work: Mapping[str, Any], parts: list[int], address: str | None, workers: int | None, gpus: float) -> Receipts:
    """Ray Data carries the numbers of parts to actors, and their receipts back; vectors go to the disk at once.

    Its actors are started anew when they die, and their calls made again as often as it takes, which `WorkFolder.commit` makes
    harmless; `EmbeddingWorker` refuses a part that was begun too often.
    """
    if not parts:
        return
    with connected(address) as ray:
        cores = int(ray.cluster_resources().get("CPU", 1))
        size = min(workers or max(1, cores), len(parts))
        if gpus and ray.cluster_resources().get("GPU", 0) < size * gpus:
            there = ray.cluster_resources().get("GPU", 0)
            if workers or there < gpus:
                raise ValueError(f"gpus={gpus}: {size} workers want {size * gpus:g}, and the cluster has {there:g}.")
            size = max(1, math.floor(there / gpus))
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing ray.data has set it to all and sundry
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        rows = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=min(len(parts), _MOST_BLOCKS))
        receipts = rows.map_batches(
            _RayWorker,
            batch_size=1,
            fn_constructor_args=[dict(work)],
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
            num_cpus=min(1.0, cores / size),
            num_gpus=gpus,
        )
        try:
            for batch in receipts.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
                for receipt in map(json.loads, batch["receipt"]):
                    if "error" in receipt:
                        raise RuntimeError(f"a worker gave up: {receipt['error']}")
                    yield receipt
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"workers on Ray failed: {_said(error)}") from error


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
