"""Runs one task after the other: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tfdml._ray import connected

_AHEAD = 2
"""Tasks that wait for each worker, so that none is idle and few are in memory."""


def run(work: Callable[[Any], int], tasks: Iterator[Any], workers: int, address: str | None) -> Iterator[int]:
    """What `work` returns for every task, in the order in which they are finished.

    Args:
        work: a function of a module, as it is sent to other processes.
        tasks: taken as they are needed.
        workers: processes; with 1, this one does it.
        address: of a Ray cluster, which does it instead; `"local"` for one on this machine.

    Raises:
        RuntimeError: a worker process was killed.
        ImportError: Ray is asked for and not installed.
        ConnectionError: no cluster answers at the address.
    """
    if address is not None:
        yield from _on_ray(work, tasks, address)
    elif workers > 1:
        yield from _in_processes(work, tasks, workers)
    else:
        yield from map(work, tasks)


def _in_processes(work: Callable[[Any], int], tasks: Iterator[Any], workers: int) -> Iterator[int]:
    # Not forked: TensorFlow's threads would not live in a fork.
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    waiting: set[concurrent.futures.Future[int]] = set()
    try:
        for task in tasks:
            waiting.add(pool.submit(work, task))
            if len(waiting) >= _AHEAD * workers:
                done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in concurrent.futures.as_completed(waiting))
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process was killed, perhaps for want of memory. Run the same command again: finished shards are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _on_ray(work: Callable[[Any], int], tasks: Iterator[Any], address: str) -> Iterator[int]:
    with connected(address) as ray:
        # A task whose worker dies is run again by Ray; it writes the same shard.
        remote = ray.remote(num_cpus=1, max_retries=3)(work)
        ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: list[Any] = []
        for task in tasks:
            waiting.append(remote.remote(task))
            if len(waiting) >= ahead:
                done, waiting = ray.wait(waiting)
                yield from ray.get(done)
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
