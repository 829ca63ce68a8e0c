"""Pairs out of a neighbourhood graph, for siamese networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfdml.samplers._arguments import check_integer, check_share
from tfdml.samplers.base import Sampler, host_tensor
from tfdml.samplers.draws import first_above
from tfdml.samplers.permutation import hashed, permuted_positions


class _Tables(NamedTuple):
    """The graph as eager tensors: edges `i < j`, sorted, and what it takes to number the pairs that are not edges."""

    edges: Any
    """int64 `[E, 2]`."""
    starts: Any
    """int64 `[N]`, where the edges of each item begin."""
    degrees: Any
    """int64 `[N]`, how many edges it has to items of a higher number."""
    skipped: Any
    """int64 `[E]`, how many dissimilar partners of `i` come before its neighbour `j`."""
    dissimilar_ends: Any
    """int64 `[N]`, running sums of the number of dissimilar partners of a higher number."""


class PairSampler(Sampler):
    """Pairs of items for siamese networks: similar ones from a neighbourhood graph, dissimilar ones from everything else.

    The graph may be any: nearest neighbours in pixels, which need no labels, or known symmetries, or both: R. Hadsell,
    S. Chopra, Y. LeCun, Dimensionality Reduction by Learning an Invariant Mapping (DrLIM), CVPR 2006. `nearest_neighbours`,
    `translated_copies` and `pairs_of_copies` make the graphs of that paper. For pairs by class, with all pairs of a batch at
    work, `PKSampler` is the better choice.

    Yields `(first, second)`, two batches of images `[B, ...]`, and the paper's Y, int64 `[B]`: 0 = similar, 1 = dissimilar, as
    `tfdml.losses.ContrastiveLoss(pairs="explicit")` and `tfdml.models.siamese` want them. `indices` yields item indices
    `[B, 2]`.

    Every batch holds `round(similar * batch_size)` similar pairs, evenly spread over its rows. They walk through all edges in
    a random order, and then again in another; the dissimilar pairs walk in the same way through all pairs that are no edges.
    So every pair that there is comes, none a second time before all others have come once; which item of a pair is the first
    one is random. A **round** is as many batches as it takes to show every edge. Memory is O(items + edges), and a
    dissimilar pair is found in O(log edges), with no redraw, however dense the graph.

    Args:
        pairs: `[E, 2]` item indices: the similar pairs. Order and repetition do not matter.
        num_items: N; items are 0 .. N - 1, and those without a similar partner take part in dissimilar pairs. `None`: the
            largest index in `pairs`, plus 1.
        batch_size: B, pairs in a batch.
        similar: the share of similar pairs in a batch, from 0 to 1.
        seed: from 0 to 2^64 - 1.

    Raises:
        TypeError: a wrong type, e.g. float indices.
        ValueError: indices that are not `[E, 2]`, negative or beyond `num_items`; an item paired with itself; a share that
            leaves not a single similar (or dissimilar) pair in a batch, or asks for pairs of which there are none.

    Example:

    >>> sampler = PairSampler([[0, 1], [1, 2], [3, 4]], batch_size=4, seed=1)
    >>> sampler
    PairSampler(items=5, similar_pairs=3, dissimilar_pairs=7, batch_size=4, similar=0.5, seed=1, steps_per_epoch=2)
    >>> indices, dissimilar = sampler.batch_at(0)
    >>> indices.shape, sorted(dissimilar.tolist())
    ((4, 2), [0, 0, 1, 1])

    Label-free, and with a siamese network:

    >>> import tfdml
    >>> images = np.random.default_rng(0).integers(0, 256, [40, 16, 16, 1], dtype=np.uint8)
    >>> graph = tfdml.samplers.nearest_neighbours(images, k=5)
    >>> batches = PairSampler(graph, len(images), batch_size=32).dataset(lambda index: tf.gather(images, index))
    >>> encoder = tfdml.models.conv_encoder((16, 16, 1), filters=(8, 8), dimension=2)
    >>> model = tfdml.models.siamese(encoder)
    >>> model.compile("adam", loss=tfdml.losses.ContrastiveLoss(margin=1.0, pairs="explicit"))
    >>> history = model.fit(batches, steps_per_epoch=2, verbose=0)
    """

    _width = 2

    def __init__(
        self,
        pairs: Any,
        num_items: int | None = None,
        batch_size: int = 64,
        similar: float = 0.5,
        seed: int = 0,
    ) -> None:
        edges = as_edges(pairs)
        self.num_items = int(edges.max(initial=0)) + 1 if num_items is None else check_integer("num_items", num_items, 2)
        if len(edges) and int(edges.max()) >= self.num_items:
            raise ValueError(
                f"pairs reach item {int(edges.max())}, but num_items={self.num_items}: expected indices from 0 to "
                f"{self.num_items - 1}."
            )
        self._batch_size = check_integer("batch_size", batch_size, 1)
        self._similar_rows = rows_of("similar", similar, self._batch_size)
        self.similar = float(similar)
        self.seed = check_integer("seed", seed, 0, 2**64 - 1)
        self.similar_pairs = len(edges)

        starts = np.searchsorted(edges[:, 0], np.arange(self.num_items + 1))
        degrees = np.diff(starts)
        partners = np.arange(self.num_items - 1, -1, -1) - degrees
        ends = np.cumsum(partners)
        self.dissimilar_pairs = int(ends[-1])
        self._check_there_are_pairs()
        skipped = edges[:, 1] - edges[:, 0] - 1 - (np.arange(len(edges)) - starts[edges[:, 0]])
        self._tables = _Tables(*(host_tensor(part.astype(np.int64)) for part in (edges, starts[:-1], degrees, skipped, ends)))

    @property
    def batch_size(self) -> int:
        """B, pairs in a batch."""
        return self._batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a round: as many as show every similar pair (every dissimilar one, if `similar` is 0)."""
        if self._similar_rows:
            return -(-self.similar_pairs // self._similar_rows)
        return -(-self.dissimilar_pairs // self._batch_size)

    def __repr__(self) -> str:
        return (
            f"PairSampler(items={self.num_items}, similar_pairs={self.similar_pairs}, dissimilar_pairs="
            f"{self.dissimilar_pairs}, batch_size={self.batch_size}, similar={self.similar:g}, seed={self.seed}, "
            f"steps_per_epoch={self.steps_per_epoch})"
        )

    def _draw(self, steps: Any, shard_index: int, num_shards: int) -> tuple[Any, Any]:
        width = self._batch_size // num_shards
        rows = tf.range(shard_index * width, (shard_index + 1) * width, dtype=tf.int64)
        is_similar, before = spread(rows, self._similar_rows, self._batch_size)
        similar_number = steps[:, None] * self._similar_rows + before
        dissimilar_number = steps[:, None] * (self._batch_size - self._similar_rows) + rows - before

        seed = hashed(tf.constant(self.seed, tf.uint64))
        low, high = self._dissimilar(self._walk(dissimilar_number, self.dissimilar_pairs, hashed(seed, 0)))
        if self.similar_pairs:
            edges = tf.gather(self._tables.edges, self._walk(similar_number, self.similar_pairs, hashed(seed, 1)))
            low, high = tf.where(is_similar, edges[..., 0], low), tf.where(is_similar, edges[..., 1], high)
        turned = hashed(seed, 2, steps[:, None], rows) % 2 == 1
        pairs = tf.stack([tf.where(turned, high, low), tf.where(turned, low, high)], axis=-1)
        flags = tf.broadcast_to(tf.cast(~is_similar, tf.int64), [tf.size(steps), width])
        return tf.reshape(pairs, [-1, 2 * width]), tf.repeat(flags, 2, axis=1)

    def _row_labels(self, labels: Any) -> Any:
        return labels[::2]

    @staticmethod
    def _walk(numbers: Any, length: int, key: Any) -> Any:
        """Number t of an endless walk through 0 .. length - 1, each round of it in another random order."""
        length = max(length, 1)
        return permuted_positions(numbers % length, length, hashed(key, numbers // length))

    def _dissimilar(self, numbers: Any) -> tuple[Any, Any]:
        """The pairs i < j that are no edges, by number."""
        ends = self._tables.dissimilar_ends
        # With no dissimilar pair at all, what comes out is not used, but must lie within the tables.
        first = tf.searchsorted(ends, tf.reshape(numbers, [-1]), side="right", out_type=tf.int64)
        first = tf.reshape(tf.minimum(first, self.num_items - 1), tf.shape(numbers))
        place = numbers - tf.where(first > 0, tf.gather(ends, tf.maximum(first - 1, 0)), 0)
        if not self.similar_pairs:
            return first, first + 1 + place
        starts, degrees = tf.gather(self._tables.starts, first), tf.gather(self._tables.degrees, first)
        return first, first + 1 + place + first_above(self._tables.skipped, starts, degrees, place)

    def _check_there_are_pairs(self) -> None:
        if self._similar_rows and not self.similar_pairs:
            raise ValueError(f"pairs are empty, but similar={self.similar:g} asks for similar pairs. Pass similar=0.")
        if self._similar_rows < self._batch_size and not self.dissimilar_pairs:
            raise ValueError(
                f"pairs hold every pair of the {self.num_items} items, so there is no dissimilar one, but "
                f"similar={self.similar:g} asks for some. Pass a sparser graph, or similar=1."
            )


def as_edges(pairs: Any) -> NDArray[np.int64]:
    """Checks `pairs`; int64 `[E, 2]` with i < j, sorted, each once."""
    array = np.asarray(pairs)
    if array.size == 0:
        return np.empty((0, 2), np.int64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"pairs have shape {array.shape}: expected two item indices for each pair, [E, 2].")
    if array.dtype.kind not in "iu":
        raise TypeError(f"pairs have dtype {array.dtype}: expected integers, the indices of items.")
    array = array.astype(np.int64)
    if array.min() < 0:
        raise ValueError(f"pairs hold the index {array.min()}: expected indices of at least 0.")
    if (itself := np.flatnonzero(array[:, 0] == array[:, 1])).size:
        raise ValueError(f"pairs[{itself[0]}] pairs item {array[itself[0], 0]} with itself ({itself.size} pairs do so).")
    array.sort(axis=1)
    order = np.lexsort((array[:, 1], array[:, 0]))
    array = array[order]
    new = np.ones(len(array), bool)
    new[1:] = (array[1:] != array[:-1]).any(axis=1)
    return array[new]


def spread(rows: Any, chosen: int, total: int) -> tuple[Any, Any]:
    """Which of `total` rows are chosen, if `chosen` are to be spread evenly, and how many chosen ones come before each."""
    before = rows * chosen // total
    return (rows + 1) * chosen // total > before, before


def rows_of(argument: str, share: float, batch_size: int) -> int:
    """How many rows a share of the batch is; a share that is not 0 (or 1) must not come to none (or all) of them."""
    rows = round(check_share(argument, share) * batch_size)
    if (share > 0 and rows == 0) or (share < 1 and rows == batch_size):
        raise ValueError(
            f"{argument}={share:g}: of batch_size={batch_size} rows that is {'none' if rows == 0 else 'every one'}. "
            "Pass a larger batch_size, or 0 or 1."
        )
    return rows
