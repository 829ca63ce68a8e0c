"""Training on several worker processes, on either Keras, that goes on after a crash as if there had been none."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdml._checks import check_count
from tfdml._compat import KERAS_3, build_for
from tfdml.replicas import distribute, gather


def fit_distributed(
    model: keras.Model,
    batches: Callable[..., Any],
    steps_per_epoch: int,
    epochs: int = 1,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> keras.callbacks.History:
    """`fit` for models made under any `tf.distribute` strategy whose replicas run in step, `MultiWorkerMirroredStrategy` too.

    Keras 3's own `fit` does not support several workers (keras issue 20585); this takes the model's own training steps under
    its strategy, and works on Keras 2 alike. Losses and heads of `tfdml` see the batch of all replicas, so the weights are
    those of one process with the same batches.

    With `checkpoint`, weights, optimizer state and the number of the step are written every `save_every` steps, whole or not at
    all. The same call after a crash of any process goes on from there: start all workers again. No batch is seen twice or left
    out, since a sampler's batches are a function of seed and step.

    Args:
        model: compiled, made under `strategy.scope()`.
        batches: as in `tfdml.replicas.distribute`: for a sampler, `functools.partial(sampler.dataset, load)`.
        steps_per_epoch: steps between two reports. Those of an epoch that has begun are counted from where it goes on.
        epochs: all of them, those before a crash included.
        checkpoint: a file that all workers can read, on a file system that they share, which the first of them writes. None:
            nothing is kept.
        save_every: steps; None: `steps_per_epoch`.
        callbacks: Keras callbacks, called in every worker.
        verbose: as in Keras's `fit`; only the first worker reports.

    Returns:
        The history of the epochs that this call has trained. Values are means over replicas.

    Raises:
        ValueError: numbers that are not positive, a checkpoint of another model, or workers that do not read the same one.

    Example:
        >>> import functools, numpy as np, tfdml
        >>> strategy = tf.distribute.get_strategy()  # or tf.distribute.MultiWorkerMirroredStrategy()
        >>> with strategy.scope():
        ...     model = tfdml.EmbeddingModel(tfdml.models.conv_encoder((16, 16, 3), filters=(8, 8), dimension=4))
        ...     model.compile("adam", loss=tfdml.losses.TripletLoss(margin=0.2))
        >>> images, labels = tf.zeros([8, 16, 16, 3], tf.uint8), np.arange(8) // 2
        >>> sampler = tfdml.samplers.PKSampler(labels, classes=4, examples=2)
        >>> batches = functools.partial(sampler.dataset, lambda index: images[index])
        >>> history = fit_distributed(model, batches, steps_per_epoch=2, epochs=3, verbose=0)
        >>> len(history.history["loss"])
        3
    """
    steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch, 1)
    epochs = check_count("epochs", epochs, 1)
    save_every = steps_per_epoch if save_every is None else check_count("save_every", save_every, 1)
    strategy = model.distribute_strategy
    first = _is_first_worker(strategy)
    state = _State(model, None if checkpoint is None else Path(checkpoint), first)
    step = _agreed(strategy, state.restore())
    with strategy.scope():
        build_for(model, batches(start_step=step, shard_index=0, num_shards=1).element_spec)
    iterator = iter(distribute(strategy, batches, start_step=step))
    train = _train_function(model, strategy)
    reports = keras.callbacks.CallbackList(
        list(callbacks),
        add_history=True,
        add_progbar=bool(verbose) and first,
        model=model,
        verbose=verbose if first else 0,
        epochs=epochs,
        steps=steps_per_epoch,
    )
    model.stop_training = False
    reports.on_train_begin()
    for epoch in range(step // steps_per_epoch, epochs):
        model.reset_metrics()
        reports.on_epoch_begin(epoch)
        logs: dict[str, Any] = {}
        while step < (epoch + 1) * steps_per_epoch:
            place = step % steps_per_epoch
            reports.on_train_batch_begin(place)
            logs = train(iterator)
            step += 1
            reports.on_train_batch_end(place, logs)
            if step % save_every == 0:
                state.save(step)
        reports.on_epoch_end(epoch, {name: float(value) for name, value in logs.items()})
        if model.stop_training:
            break
    reports.on_train_end()
    return model.history


class _State:
    """The variables of a model and its optimizers, in one file."""

    def __init__(self, model: Any, path: Path | None, writes: bool) -> None:
        self.path, self.writes = path, writes
        optimizers = [model.optimizer]
        with model.distribute_strategy.scope():
            if hasattr(model, "generator_optimizer"):
                model._build_optimizers()
                optimizers.append(model.generator_optimizer)
            else:
                model.optimizer.build(model.trainable_variables)
        passing = {id(variable) for metric in model.metrics for variable in metric.variables}
        kept = model.variables if KERAS_3 else model.weights
        variables = [variable for variable in kept if id(variable) not in passing]
        for optimizer in optimizers:
            # Keras 3 counts an optimizer's variables among none of the model's; Keras 2 has a list that can be called.
            variables += [variable for variable in optimizer.variables if all(variable is not other for other in variables)]
        self.variables = variables

    def save(self, step: int) -> None:
        if self.path is None:
            return
        # Every worker reads: of what replicas hold unlike values of, such as moving averages, Keras 2 takes the mean over all.
        values = [_as_array(variable) for variable in self.variables]
        if not self.writes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        with unfinished.open("wb") as file:
            arrays: dict[str, Any] = {f"variable_{number}": value for number, value in enumerate(values)}
            np.savez(file, step=step, **arrays)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path)

    def restore(self) -> int:
        """The number of steps taken so far, 0 without a file."""
        if self.path is None or not self.path.exists():
            return 0
        try:
            with np.load(self.path, allow_pickle=False) as saved:
                values = [saved[f"variable_{number}"] for number in range(len(saved.files) - 1)]
                step = int(saved["step"])
        except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"checkpoint={str(self.path)!r} cannot be read ({error}): expected one that fit_distributed has written. "
                "Give another file, or delete this one to begin anew."
            ) from error
        shapes = [value.shape for value in values]
        expected = [tuple(variable.shape) for variable in self.variables]
        if shapes != expected:
            raise ValueError(
                f"checkpoint={str(self.path)!r} holds {len(shapes)} variables of other shapes than the {len(expected)} of this "
                "model and its optimizer: expected the checkpoint of the same model. Give another file, or delete this one."
            )
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(tf.cast(value, variable.dtype))
        return step


def _as_array(variable: Any) -> np.ndarray:
    value = tf.convert_to_tensor(variable)
    # A file of NumPy holds no bfloat16; float32 holds all of its numbers.
    return np.array(tf.cast(value, tf.float32) if value.dtype == tf.bfloat16 else value)


def _train_function(model: Any, strategy: Any) -> Callable[[Any], dict[str, Any]]:
    """One training step of all replicas; the logs are means over them."""
    graphs: dict[Any, Any] = {}

    def step(iterator: Any) -> Any:
        logs = strategy.run(model.train_step, args=(next(iterator),))
        return {name: strategy.reduce("mean", value, axis=None) for name, value in logs.items()}

    def train(iterator: Any) -> dict[str, Any]:
        # DAML trains in phases, and each is a graph of its own.
        phase = model.enter_phase() if hasattr(model, "enter_phase") else None
        if phase not in graphs:
            graphs[phase] = tf.function(step)
        logs: dict[str, Any] = graphs[phase](iterator)
        return logs

    return train


def _is_first_worker(strategy: Any) -> bool:
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    chief = resolver.task_type == "chief"
    return chief or (resolver.task_type == "worker" and resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs)


def _agreed(strategy: Any, step: int) -> int:
    """The step, if all workers have the same."""

    def of_replica() -> tf.Tensor:
        return gather(tf.constant([step], tf.int64)).tensors[0]

    steps = tf.function(lambda: strategy.run(of_replica))()
    found = sorted({int(number) for number in np.ravel(strategy.experimental_local_results(steps)[0])})
    if len(found) > 1:
        raise ValueError(
            f"checkpoint: workers have read those of steps {found}: expected one for all. Give a file on a file system that "
            "all of them share, or copy it to each before they start."
        )
    return step
