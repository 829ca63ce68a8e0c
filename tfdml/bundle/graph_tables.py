"""What a search inside the graph looks into: vectors as variables, and the lists that they are cut into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdml.index._inverted_lists import InvertedLists


class Table(tf.Module):
    """Vectors, and what the closeness of a query is besides its product with them: half of their squared lengths less.

    Args:
        values: float32 `[N, D]`.
        name: of the variables.
    """

    def __init__(self, values: npt.NDArray[np.float32], name: str) -> None:
        super().__init__()
        self.values = variable(values, name)
        halves = _half_squares(values)
        # Of one length, but for rounding, as under cosine: then the product alone will do.
        least, most = float(halves.min()), float(halves.max())
        level = most - least <= 2.0**-20 * most
        self.spread = most - least if level else 0.0
        self._halves = None if level else variable(halves, f"half_squared_lengths_of_{name}")

    def closeness(self, products: tf.Tensor, positions: tf.Tensor | None = None) -> tf.Tensor:
        """Of products with all vectors, or with those at `positions`; larger is nearer."""
        if self._halves is None:
            return products
        halves = self._halves.read_value()
        return products - (halves if positions is None else tf.gather(halves, positions))


class Slices(tf.Module):
    """Lists of a table's rows, one behind the other, and their centres."""

    def __init__(self, lists: InvertedLists) -> None:
        super().__init__()
        self.centres = Table(lists.centres, "centres")
        self._bounds = variable(np.stack([lists.offsets[:-1], lists.offsets[1:]], axis=1).astype(np.int32), "bounds")

    def bounds(self, lists: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Where each of the lists begins and ends."""
        starts, ends = tf.unstack(tf.gather(self._bounds, lists), axis=1)
        return starts, ends

    def products(self, table: Table, lists: tf.Tensor, count: int, query: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows of `count` lists, and how close they are to the query.

        A list is a slice of the table, which is read where it is; to gather its rows would be to copy them. As few operations
        as can be: calling them takes as long as what they do.
        """
        bounds = tf.gather(self._bounds, lists)
        rows, column = table.values.read_value(), tf.reshape(query, [-1, 1])
        # One start and one end after the other, each a vector, as a slice is given it.
        places = tf.unstack(tf.reshape(bounds, [2 * count, 1]), 2 * count)
        parts = [tf.matmul(tf.strided_slice(rows, *places[i : i + 2], [1]), column) for i in range(0, 2 * count, 2)]
        positions = ranges(*tf.unstack(bounds, axis=1, num=2))
        return positions, table.closeness(tf.reshape(tf.concat(parts, 0), [-1]), positions)


def apart(function: Callable[[], Any]) -> Callable[[], Any]:
    """A branch that is seldom taken, as a function of its own.

    Within the graph each of its operations would be visited, if only to learn that it is not to run, which costs a query up
    to a fifth of its time.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def ranges(starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.RaggedRange(starts=starts, limits=ends, deltas=1).rt_dense_values


def variable(values: npt.NDArray[Any], name: str) -> tf.Variable:
    return tf.Variable(values, trainable=False, name=name)


def _half_squares(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return (np.einsum("nd,nd->n", rows, rows, dtype=np.float64) / 2).astype(np.float32)
