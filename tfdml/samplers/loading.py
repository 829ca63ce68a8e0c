"""From batches of item indices to batches of loaded items: the part of the pipeline that all samplers share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdml.samplers._arguments import check_integer
from tfdml.samplers.permutation import hashed


def load_batches(
    chunks: Any,
    *,
    rows: int,
    load: Callable[[Any], Any],
    augment: Callable[..., Any] | None,
    seed: int,
    start_step: int,
    shard_index: int = 0,
    batched: bool = False,
    parallel_calls: int | None = None,
    prefetch: int | None = None,
) -> Any:
    """Loads what `chunks`, a dataset of (indices, labels) `[S, rows]`, ask for. Arguments as in `PKSampler.dataset`."""
    if not callable(load):
        raise TypeError(f"load={load!r} is a {type(load).__name__}: expected a function from an item index to an image.")
    workers = tf.data.AUTOTUNE if parallel_calls is None else check_integer("parallel_calls", parallel_calls, 1)
    ahead = tf.data.AUTOTUNE if prefetch is None else check_integer("prefetch", prefetch, 0)

    def load_one(index: Any, label: Any) -> tuple[Any, Any]:
        return load(index), label

    if batched:
        batches = chunks.unbatch().map(load_one, num_parallel_calls=workers, deterministic=True)
    else:
        items = chunks.map(lambda indices, labels: (tf.reshape(indices, [-1]), tf.reshape(labels, [-1]))).unbatch()
        items = items.map(load_one, num_parallel_calls=workers, deterministic=True)
        batches = items.batch(rows, drop_remainder=True)
    if augment is not None:
        batches = _augmented(
            batches, augment, hashed(hashed(tf.constant(seed, tf.uint64)), 2, shard_index), start_step, workers
        )
    return batches.prefetch(ahead) if ahead else batches


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
