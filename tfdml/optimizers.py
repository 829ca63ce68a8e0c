"""Optimizers whose step touches the rows that a batch used, and no others: for class weights of very many classes.

A head with `sampled_classes` hands the optimizer a gradient of a few rows, a `tf.IndexedSlices`. What Keras's own do with it:

| | Keras 3 | Keras 2.15 |
|---|---|---|
| `SGD` without momentum | touches these rows | touches all |
| `SGD` with momentum, `Adam` and its kin | make it a matrix of all rows | let the moments of all rows decay |

    model = tfdml.EmbeddingModel(encoder, head=tfdml.layers.ArcFace(1_000_000, sampled_classes=10_000))
    model.compile(tfdml.optimizers.LazyAdam(1e-3))

Clipping and schedules leave other rows alone, too. Keras's weight decay, moving averages of weights, accumulation of gradients,
and loss scale (`mixed_float16`) touch all rows, whatever the gradient is.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._compat import KERAS_3, rows_of
from tfdml.layers._class_sample import first_of_each

__all__ = ["LazyAdam", "LazySGD"]


@keras.saving.register_keras_serializable(package="tfdml")
class LazyAdam(keras.optimizers.Adam):
    """Adam whose moments move only where there is a gradient.

    For the rows that a step used, and for weights with a dense gradient, it is Adam:

    m = beta_1 m + (1 - beta_1) g,   v = beta_2 v + (1 - beta_2) g^2
    w = w - rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon),   t = number of steps, of the optimizer

    Other rows, and their m and v, stay as they are. Adam (Kingma and Ba, ICLR 2015) would let their moments decay and go on
    moving them. The same as TensorFlow Addons' `LazyAdam` and PyTorch's `SparseAdam`. Where each row is used by every step, it
    is Adam altogether. A row that comes up late begins with moments of 0 and, as t is large, no correction for it: its first
    steps are longer than the rate, (1 - beta_1^k) / sqrt(1 - beta_2^k) times at its k-th. That is up to 6.6 times; with
    `beta_2=0.99`, 2.1 times.

    Args:
        learning_rate: a number or a schedule.
        **kwargs: those of `keras.optimizers.Adam`. `amsgrad` is not for sparse gradients.

    Raises:
        ValueError: `amsgrad=True`.

    Example:
        >>> import keras, tfdml
        >>> encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> head = tfdml.layers.NormalizedSoftmax(num_classes=5000, temperature=1.0, sampled_classes=64)
        >>> model = tfdml.EmbeddingModel(encoder, head=head)
        >>> model.compile(LazyAdam(1e-3))
        >>> before = head.kernel.numpy()
        >>> history = model.fit(tf.random.normal([6, 8]), tf.range(6), batch_size=6, verbose=0)
        >>> int((head.kernel.numpy() != before).any(1).sum())
        64
    """

    def __init__(self, learning_rate: Any = 1e-3, **kwargs: Any) -> None:
        if kwargs.get("amsgrad"):
            raise ValueError("amsgrad=True: expected False, as it has no definition for rows that a step does not use.")
        super().__init__(learning_rate, **kwargs)

    def _clip_gradients(self, grads: Any) -> Any:
        return _clipped(self, list(grads))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any = None) -> None:
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, *_given(learning_rate))
            return
        place = _place(self, variable)
        m, v = self._momentums[place], self._velocities[place]
        rows, g = _summed(gradient, variable.dtype)
        rate, t = tf.cast(self.learning_rate, g.dtype), tf.cast(self.iterations + 1, g.dtype)
        # Not a cast of the numbers: that would round them to float32 first.
        beta_1, beta_2 = (tf.convert_to_tensor(beta, g.dtype) for beta in (self.beta_1, self.beta_2))
        rate = rate * tf.sqrt(1.0 - beta_2**t) / (1.0 - beta_1**t)
        first, second = rows_of(m, rows), rows_of(v, rows)
        first += (g - first) * (1.0 - beta_1)
        second += (tf.square(g) - second) * (1.0 - beta_2)
        _set_rows(m, rows, first)
        _set_rows(v, rows, second)
        _set_rows(variable, rows, tf.gather(variable, rows) - rate * first / (tf.sqrt(second) + self.epsilon))


@keras.saving.register_keras_serializable(package="tfdml")
class LazySGD(keras.optimizers.SGD):
    """Stochastic gradient descent whose momentum moves only where there is a gradient.

    For the rows that a step used, and for weights with a dense gradient, it is Keras's SGD:

    m = momentum m - rate g,   w = w + m   (with `nesterov`: w = w + momentum m - rate g)

    Other rows, and their m, stay as they are, as in the authors' code of Partial FC (An et al., ICCV Workshops 2021). Keras's
    would let m decay, and go on moving them by it.

    Args:
        learning_rate: a number or a schedule.
        **kwargs: those of `keras.optimizers.SGD`.

    Example:
        >>> import tfdml
        >>> table, optimizer = tf.Variable(tf.ones([4, 2])), LazySGD(0.25, momentum=0.9)
        >>> with tf.GradientTape() as tape:
        ...     total = tf.reduce_sum(tf.gather(table, [2, 2]))
        >>> _ = optimizer.apply_gradients([(tape.gradient(total, table), table)])
        >>> table.numpy().tolist()
        [[1.0, 1.0], [1.0, 1.0], [0.5, 0.5], [1.0, 1.0]]
    """

    def _clip_gradients(self, grads: Any) -> Any:
        return _clipped(self, list(grads))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any = None) -> None:
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, *_given(learning_rate))
            return
        rows, g = _summed(gradient, variable.dtype)
        change = -tf.cast(self.learning_rate, g.dtype) * g
        if self.momentum:
            m = self.momentums[_place(self, variable)]
            momentum = tf.convert_to_tensor(self.momentum, g.dtype)
            pace = momentum * rows_of(m, rows) + change
            _set_rows(m, rows, pace)
            change = momentum * pace + change if self.nesterov else pace
        _set_rows(variable, rows, tf.gather(variable, rows) + change)


def _given(learning_rate: Any) -> tuple[Any, ...]:
    """Keras 3 hands the rate to each step, Keras 2 does not."""
    return () if learning_rate is None else (learning_rate,)


def _place(optimizer: Any, variable: Any) -> int:
    if hasattr(optimizer, "_get_variable_index"):
        return optimizer._get_variable_index(variable)
    return optimizer._index_dict[optimizer._var_key(variable)]


def _clipped(optimizer: Any, gradients: list[Any]) -> list[Any]:
    """Gradients, clipped as the optimizer was asked to. Keras 3's own clipping makes matrices of sparse ones."""
    if not (optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue):
        return gradients
    gradients = [_added_up(each) if isinstance(each, tf.IndexedSlices) else each for each in gradients]
    if optimizer.global_clipnorm:
        return list(tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)[0])

    def clip(gradient: Any) -> Any:
        if optimizer.clipnorm:
            return tf.clip_by_norm(gradient, optimizer.clipnorm)
        return tf.clip_by_value(gradient, -optimizer.clipvalue, optimizer.clipvalue)

    return [None if each is None else clip(each) for each in gradients]


def _added_up(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same, with all of a row's gradient where the row comes first, and 0 where it comes again."""
    first = first_of_each(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, first, tf.size(first))
    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)


def _summed(gradient: tf.IndexedSlices, dtype: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The rows, and for each its whole gradient. A row that came several times has the same sum each time.

    Replicas hand in theirs one behind the other, and Keras 3 does not add them up. No two writes of a row may then differ.
    """
    rows = gradient.indices
    if not KERAS_3:
        # Keras 2 has added them up.
        return rows, tf.cast(gradient.values, dtype)
    first = first_of_each(rows)
    sums = tf.math.unsorted_segment_sum(tf.cast(gradient.values, dtype), first, tf.size(rows))
    return rows, tf.gather(sums, first)


def _set_rows(variable: Any, rows: tf.Tensor, values: tf.Tensor) -> None:
    if not isinstance(variable, tf.Variable):
        variable = variable.value
    variable.scatter_update(tf.IndexedSlices(values, rows))
