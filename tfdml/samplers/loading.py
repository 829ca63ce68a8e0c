"""From batches of item indices to batches of loaded items: the part of the pipeline that all samplers share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdml.samplers._arguments import check_integer
from tfdml.samplers.permutation import hashed

_READERS = 4
"""Batches that are read at a time, where reading is a step of its own: disks are quicker when asked for several."""


def load_batches(
    chunks: Any,
    *,
    rows: int,
    width: int,
    row_labels: Callable[[Any], Any],
    load: Callable[[Any], Any],
    augment: Callable[..., Any] | None,
    seed: int,
    start_step: int,
    shard_index: int = 0,
    batched: bool = False,
    parallel_calls: int | None = None,
    prefetch: int | None = None,
    lookahead: int | None = None,
) -> Any:
    """Loads what `chunks`, a dataset of (indices, labels) `[S, rows * width]`, ask for. Arguments as in `Sampler.dataset`.

    With a width above 1, images come as a tuple of that many batches, one for each place in a row, and labels go
    through `row_labels`.
    With a `lookahead`, no batch is drawn that many steps (or more) before it is taken.
    """
    if not callable(load):
        raise TypeError(f"load={load!r} is a {type(load).__name__}: expected a function from an item index to an image.")
    workers = tf.data.AUTOTUNE if parallel_calls is None else check_integer("parallel_calls", parallel_calls, 1)
    ahead = tf.data.AUTOTUNE if prefetch is None else check_integer("prefetch", prefetch, 0)
    batch_workers = workers
    if lookahead is not None:
        readers = _READERS + 1 if in_two_steps(load) else 0
        workers, batch_workers, ahead = _bounded(rows * width, lookahead, batched, parallel_calls, prefetch, readers)

    def load_one(index: Any, label: Any) -> tuple[Any, Any]:
        return load(index), label

    if in_two_steps(load):
        steps: Any = load
        read = chunks.unbatch().map(
            lambda indices, labels: (steps.read(indices), labels), num_parallel_calls=_READERS, deterministic=True
        )
        items = read.unbatch().map(
            lambda data, label: (steps.decode(data), label), num_parallel_calls=workers, deterministic=True
        )
        batches = items.batch(rows * width, drop_remainder=True)
    elif batched:
        batches = chunks.unbatch().map(load_one, num_parallel_calls=workers, deterministic=True)
    else:
        items = chunks.map(lambda *parts: tf.nest.map_structure(_flat, parts)).unbatch()
        items = items.map(load_one, num_parallel_calls=workers, deterministic=True)
        batches = items.batch(rows * width, drop_remainder=True)
    if augment is not None:
        if width > 1 and _asks_for(augment, "labels"):
            raise ValueError(
                f"augment={augment!r} asks for labels, but here they belong to rows of {width} items and not to single images. "
                "Pass a function of images alone."
            )
        batches = _augmented(
            batches, augment, hashed(hashed(tf.constant(seed, tf.uint64)), 2, shard_index), start_step, batch_workers
        )
    if width > 1:
        batches = batches.map(lambda images, labels: (in_columns(images, width), row_labels(labels)))
    return batches.prefetch(ahead) if ahead else batches


def _bounded(
    items: int, lookahead: int, batched: bool, parallel_calls: int | None, prefetch: int | None, readers: int
) -> tuple[int, int, int]:
    """Items and batches in work at a time, and batches ready in advance, so that the pipeline never holds `lookahead`."""
    workers = min(os.cpu_count() or 1, 2 if batched else 2 * items) if parallel_calls is None else parallel_calls
    ahead = 2 if prefetch is None else prefetch
    in_work = workers if batched else -(-workers // items)
    # One more drawn, one being put together, two being augmented, and two for what distribution strategies hold.
    if (held := in_work + ahead + readers + 6) >= lookahead:
        raise ValueError(
            f"parallel_calls={parallel_calls}, prefetch={prefetch}: up to {held} batches would be drawn before they are used, "
            f"but mined classes are up to date only {lookahead} steps ahead. Pass smaller numbers, or None."
        )
    return workers, 2, ahead


def in_two_steps(load: Any) -> bool:
    """Whether `load` reads whole batches (`read`, indices `[B]` to anything `[B, ...]`) and then decodes each item (`decode`).

    For items off disk: to read many at once costs less than to read each, while decoding is best shared out by the item.
    """
    return callable(getattr(load, "read", None)) and callable(getattr(load, "decode", None))


def in_columns(items: Any, width: int) -> tuple[Any, ...]:
    """A tuple of `width` structures: the first items of all rows, the second ones, ..."""
    return tuple(tf.nest.map_structure(lambda part, k=k: part[k::width], items) for k in range(width))


def _flat(part: Any) -> Any:
    """`[S, rows, ...]` to `[S * rows, ...]`."""
    return tf.reshape(part, tf.concat([[-1], tf.shape(part)[2:]], 0))


def _augmented(batches: Any, augment: Callable[..., Any], key: Any, start_step: int, workers: int) -> Any:
    with_labels, with_seed = _asks_for(augment, "labels"), _asks_for(augment, "seed")

    def apply(step: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:
        images, labels = batch
        arguments = (images, labels) if with_labels else (images,)
        keywords = {"seed": tf.bitcast(hashed(key, step), tf.int32)} if with_seed else {}
        result = augment(*arguments, **keywords)
        if not with_labels:
            return result, labels
        if not (isinstance(result, (tuple, list)) and len(result) == 2):
            raise TypeError(f"augment(images, labels) returned {result!r}: expected a pair (images, labels).")
        return result[0], result[1]

    steps = tf.data.Dataset.counter(start_step)
    return tf.data.Dataset.zip((steps, batches)).map(apply, num_parallel_calls=workers, deterministic=True)


def _asks_for(augment: Callable[..., Any], name: str) -> bool:
    if not callable(augment):
        raise TypeError(f"augment={augment!r} is a {type(augment).__name__}: expected a function of a batch of images.")
    try:
        return name in inspect.signature(augment).parameters
    except (TypeError, ValueError):  # a callable without a signature, e.g. one written in C
        return False
