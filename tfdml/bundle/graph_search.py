"""The nearest items of a gallery, found inside the graph: what the search signatures compute.

The rows of the gallery are variables (as constants they would load ten times slower, and above 2 GB not at all) and all
operations are TensorFlow's own. A float32 matrix product finds the candidates and float64 differences put them in order, as in
`tfdml.index`: the product alone loses near-duplicates, of which product photographs are full. Whatever the product cannot tell
from the k-th best stays a candidate, and equal distances are ordered by item number, so the answers are those of the index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdml.bundle.graph_tables import Slices, Table, apart, ranges, variable
from tfdml.bundle.search_plan import SearchPlan

IDS = "ids"
DISTANCES = "distances"
COUNT = "count"
VALID = "valid"

NO_DISTANCE = float(np.finfo(np.float32).max)
"""Where a row has fewer hits than it is wide: a number that JSON can hold, and beyond every threshold."""

# More candidates than neighbours, so that a few near-duplicates do not need the slow way.
_MORE = 16
_SCORES_IN_FLIGHT = 8 << 20
_VALUES_IN_FLIGHT = 1 << 20
# So many lists are read as slices, each by an operation of its own; beyond that the graph would grow out of hand.
_MOST_SLICES = 64


class GallerySearch(tf.Module):
    """A gallery as variables, and the graph that searches it.

    Args:
        plan: the prepared rows, and how they are searched.
        ids: one string for each row.
        fields: columns of one value for each row, returned with the ids.
    """

    def __init__(self, plan: SearchPlan, ids: Sequence[str], fields: Mapping[str, npt.NDArray[Any]]) -> None:
        super().__init__(name="gallery")
        self._metric, self._items, self._max_k = plan.metric, len(plan.rows), plan.max_k
        self._longest = float(np.sqrt(np.einsum("nd,nd->n", plan.rows, plan.rows, dtype=np.float64).max()))
        lists, self._is_cut = plan.lists, plan.lists is not None
        # Always by read_value: once a variable has itself been gathered from, every reading of it copies the whole.
        self._rows = Table(plan.rows if lists is None else plan.rows[lists.order], "rows")
        # One value more, for the places that hold no hit.
        self._ids = tf.Variable(tf.constant([*ids, ""], tf.string), trainable=False, name="ids")
        self._fields = {
            name: variable(np.append(column, np.zeros(1, column.dtype) if column.dtype != object else [""]), f"field_{number}")
            for number, (name, column) in enumerate(fields.items())
        }
        self._no_square = 2 * NO_DISTANCE if plan.metric == "cosine" else NO_DISTANCE**2
        self._probes, self._few_up_to = plan.probes or (0, 0), plan.sample.at + 1
        if lists is not None:
            self._negative_numbers = variable(-lists.order.astype(np.int32), "negative_numbers")
            self._lists = Slices(lists)
        # One function, which every signature calls: the graph is traced and written once.
        self._function = tf.function(
            self._search,
            input_signature=[
                tf.TensorSpec([None, plan.rows.shape[1]], tf.float32),
                tf.TensorSpec([None], tf.bool),
                tf.TensorSpec([None], tf.int32),
            ],
            autograph=False,
        ).get_concrete_function()

    def search(self, embeddings: tf.Tensor, valid: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """The outputs of a search signature.

        Args:
            embeddings: float32 `[N, D]`.
            valid: bool `[N]`; other rows get no hits.
            k: int32 `[N]`.

        Returns:
            `ids`, `distances` and every field `[N, K]`, `count` and `valid` `[N]`. K is the largest k of all rows, from 1 to
            the maximum: what a server puts beside a row changes its padding, and nothing else.
        """
        return self._function(embeddings, valid, k)

    def _search(self, embeddings: tf.Tensor, valid: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        queries, usable = self._queries(embeddings)
        # The operation itself: tf.debugging puts a branch around it.
        same = tf.raw_ops.Assert(
            condition=tf.equal(tf.size(k), tf.size(usable)),
            data=["k: expected as many numbers as there are queries, one for each of them.", tf.size(k), tf.size(usable)],
        )
        with tf.control_dependencies([same]):
            k = tf.clip_by_value(k, 0, self._max_k)
        width = tf.maximum(tf.reduce_max(k), 1)
        valid = tf.logical_and(valid, usable)
        count = tf.minimum(k, self._items) * tf.cast(valid, tf.int32)
        find = self._look_into_lists if self._is_cut else self._look_everywhere
        numbers, squares = find(queries, count, width)
        numbers, squares = tf.ensure_shape(numbers, [None, None]), tf.ensure_shape(squares, [None, None])
        distances = squares / 2 if self._metric == "cosine" else tf.sqrt(squares)
        return {
            IDS: tf.gather(self._ids, numbers),
            DISTANCES: tf.cast(distances, tf.float32),
            COUNT: count,
            VALID: valid,
            **{name: tf.gather(column, numbers) for name, column in self._fields.items()},
        }

    def _queries(self, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The queries as the index prepares them, and which of them can be searched for; others become zeros."""
        if self._metric == "euclidean":
            usable = tf.reduce_all(tf.math.is_finite(embeddings), axis=1)
            return tf.where(usable[:, None], embeddings, 0.0), usable
        wide = tf.cast(embeddings, tf.float64)
        # Squares of float32 do not overflow in float64. Of 0, infinity and NaN the quotient is NaN.
        lengths = tf.sqrt(tf.reduce_sum(wide * wide, axis=1, keepdims=True))
        usable = tf.equal(lengths / lengths, 1)
        lengths = tf.math.multiply_no_nan(lengths, tf.cast(usable, tf.float64))
        return tf.cast(tf.math.divide_no_nan(wide, lengths), tf.float32), tf.reshape(usable, [-1])

    def _look_everywhere(self, queries: tf.Tensor, count: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Exact search, in blocks of queries that bound the memory."""
        height = max(1, _SCORES_IN_FLIGHT // self._items)
        blocks = tf.maximum(-(-tf.shape(queries)[0] // height), 1)
        numbers = tf.TensorArray(tf.int32, blocks, infer_shape=False, element_shape=[None, None])
        squares = tf.TensorArray(tf.float64, blocks, infer_shape=False, element_shape=[None, None])

        def block(number: tf.Tensor, numbers: Any, squares: Any) -> tuple[tf.Tensor, Any, Any]:
            found, distances = self._block(queries[number * height : (number + 1) * height], width)
            return number + 1, numbers.write(number, found), squares.write(number, distances)

        _, numbers, squares = tf.while_loop(
            lambda number, *_: number < blocks, block, (0, numbers, squares), parallel_iterations=1
        )
        hits = tf.sequence_mask(count, width)
        return tf.where(hits, numbers.concat(), self._items), tf.where(hits, squares.concat(), self._no_square)

    def _block(self, queries: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        wanted = tf.minimum(width, self._items)
        looked_at = tf.minimum(wanted + _MORE, self._items)
        closeness = self._rows.closeness(tf.matmul(queries, self._rows.values, transpose_b=True))
        values, positions = tf.math.top_k(closeness, looked_at)
        bound = values[:, wanted - 1] - self._uncertainty(queries)
        # In the order of their numbers, because top_k leaves equal distances in the order in which it finds them.
        positions = tf.sort(positions, axis=1)
        differences = (
            tf.cast(tf.gather(self._rows.values.read_value(), positions), tf.float64) - tf.cast(queries, tf.float64)[:, None]
        )
        negative, place = tf.math.top_k(-tf.reduce_sum(differences * differences, axis=-1), wanted)
        numbers, squares = tf.gather(positions, place, batch_dims=1), -negative

        # Queries with more candidates than were looked at. The negation counts NaN, from an overflow, as one.
        more = tf.logical_and(looked_at < self._items, tf.logical_not(values[:, -1] < bound))
        crowded = tf.cast(tf.where(more)[:, 0], tf.int32)

        def all_candidates(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            candidates = tf.cast(tf.where(tf.logical_not(closeness[row] < bound[row]))[:, 0], tf.int32)
            negative, place = tf.math.top_k(-self._squares(candidates, queries[row]), wanted)
            return tf.gather(candidates, place), -negative

        def settle() -> tuple[tf.Tensor, tf.Tensor]:
            kinds = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float64))
            better = tf.map_fn(all_candidates, crowded, fn_output_signature=kinds, parallel_iterations=1)
            return (
                tf.tensor_scatter_nd_update(numbers, crowded[:, None], better[0]),
                tf.tensor_scatter_nd_update(squares, crowded[:, None], better[1]),
            )

        numbers, squares = tf.cond(tf.size(crowded) > 0, settle, lambda: (numbers, squares))
        padding = [[0, 0], [0, width - wanted]]
        return tf.pad(numbers, padding), tf.pad(squares, padding)

    def _look_into_lists(self, queries: tf.Tensor, count: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Search in the lists with the nearest centres; each query by itself, for its lists are its own."""
        few, _ = self._probes
        centres = self._lists.centres
        closeness = centres.closeness(tf.matmul(queries, centres.values, transpose_b=True))
        near = tf.math.top_k(closeness, few).indices
        # An operation that takes a while goes to another thread if there is anything else to do, and to wake one can take as
        # long as the search: so nothing else is to do.
        with tf.control_dependencies([near]):
            queries = tf.identity(queries)
        given = (queries, closeness, near, count)

        def found(given: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
            def none() -> tuple[tf.Tensor, tf.Tensor]:
                return tf.fill([width], self._items), tf.fill([width], tf.constant(self._no_square, tf.float64))

            return tf.cond(given[-1] > 0, lambda: self._look_for_one(width, *given), none)

        def alone() -> tuple[tf.Tensor, tf.Tensor]:
            # Not by tf.reshape: TensorFlow would conclude that there is one query in every call.
            numbers, squares = self._look_for_one(width, *(values[0] for values in given))
            return numbers[None], squares[None]

        def each() -> tuple[tf.Tensor, tf.Tensor]:
            # One row more, with nothing to find: the loop's results have no shape when there are no rows.
            padded = tuple(tf.pad(values, [[0, 1]] + [[0, 0]] * (len(values.shape) - 1)) for values in given)
            kinds = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float64))
            numbers, squares = tf.map_fn(found, padded, fn_output_signature=kinds)
            return numbers[:-1], squares[:-1]

        # Most requests are of one query, for which a loop would take as long as the search.
        return tf.cond(tf.equal(tf.size(count), 1), alone, apart(each))

    def _look_for_one(
        self, width: tf.Tensor, query: tf.Tensor, closeness: tf.Tensor, near: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Few neighbours in the lists that are nearest; what this leaves in doubt is looked for again, thoroughly."""
        few, _ = self._probes
        wanted = tf.maximum(count, 1)
        if few > _MOST_SLICES:
            positions, squares = self._look_thoroughly(query, closeness, wanted)
        else:
            places, scores = self._lists.products(self._rows, near, few, query)
            values, best = tf.math.top_k(scores, tf.minimum(wanted + _MORE, tf.size(scores)))
            # In doubt: more neighbours than these lists are for or hold, or so many equally near ones that more than were
            # looked at may be among the nearest. A comparison with NaN, from an overflow, is false.
            bound = tf.gather(values, tf.minimum(wanted, tf.size(values)) - 1) - self._uncertainty(query)
            settled = tf.logical_and(wanted <= self._few_up_to, values[-1] < bound)

            def those() -> tuple[tf.Tensor, tf.Tensor]:
                found = tf.gather(places, best)
                return found, self._squares_at_once(found, query)

            def thoroughly() -> tuple[tf.Tensor, tf.Tensor]:
                return self._look_thoroughly(query, closeness, wanted)

            positions, squares = tf.cond(settled, those, apart(thoroughly))
        # In the order of their numbers, because top_k leaves equal distances in the order in which it finds them.
        negative_numbers, order = tf.math.top_k(tf.gather(self._negative_numbers, positions), tf.size(positions))
        negative, place = tf.math.top_k(-tf.gather(squares, order), count)
        padding = [[0, width - count]]
        return (
            tf.pad(-tf.gather(negative_numbers, place), padding, constant_values=self._items),
            tf.pad(-negative, padding, constant_values=self._no_square),
        )

    def _look_thoroughly(self, query: tf.Tensor, closeness: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Candidates for any number of neighbours: as many lists as these take, and every row that may be among the nearest."""
        few, many = self._probes
        lists = tf.math.top_k(closeness, tf.where(count > self._few_up_to, many, few)).indices
        starts, ends = self._lists.bounds(lists)
        enough = tf.reduce_sum(ends - starts) >= count
        starts, ends = tf.cond(enough, lambda: (starts, ends), lambda: self._until_enough(closeness, count))
        positions = ranges(starts, ends)
        products = tf.linalg.matvec(tf.gather(self._rows.values.read_value(), positions), query)
        scores = self._rows.closeness(products, positions)
        looked_at = tf.minimum(count + _MORE, tf.size(scores))
        values, places = tf.math.top_k(scores, looked_at)
        bound = values[count - 1] - self._uncertainty(query)
        # More candidates than were looked at. The negation counts NaN, from an overflow, as one.
        crowded = tf.logical_and(looked_at < tf.size(scores), tf.logical_not(values[-1] < bound))

        def all_candidates() -> tuple[tf.Tensor, tf.Tensor]:
            found = tf.gather(positions, tf.where(tf.logical_not(scores < bound))[:, 0])
            return found, self._squares(found, query)

        def those_few() -> tuple[tf.Tensor, tf.Tensor]:
            found = tf.gather(positions, places)
            return found, self._squares_at_once(found, query)

        return tf.cond(crowded, all_candidates, those_few)

    def _until_enough(self, closeness: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """So many of the nearest lists that they hold at least `count` items."""
        starts, ends = self._lists.bounds(tf.argsort(closeness, direction="DESCENDING", stable=True))
        before = tf.cumsum(ends - starts, exclusive=True)
        lists = tf.reduce_sum(tf.cast(before < count, tf.int32))
        return starts[:lists], ends[:lists]

    def _uncertainty(self, queries: tf.Tensor) -> tf.Tensor | float:
        """Twice the rounding error of the product, for one query or each of them; infinite where the product may overflow.

        Higham and Mary 2019: a sum of n rounded products is off by c sqrt(n) u at most but for a chance exp(-c^2 / 2).
        """
        share = 2 * (8 + 6 * np.sqrt(queries.shape[-1] + 1)) * 2.0**-24
        if self._metric == "cosine":
            return float(share * self._longest * (1 + self._longest / 2) + 2 * self._rows.spread)
        lengths = tf.sqrt(tf.reduce_sum(tf.cast(queries, tf.float64) ** 2, axis=-1))
        largest = self._longest * (lengths + self._longest / 2)
        return tf.cast(tf.where(largest < 1e37, share * largest + 2 * self._rows.spread, np.inf), tf.float32)

    def _squares(self, positions: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
        """Squared distances of one query to some rows, from float64 differences; many rows in blocks that bound the memory."""
        step = max(1, _VALUES_IN_FLIGHT // self._rows.values.shape[1])

        def in_blocks() -> tf.Tensor:
            blocks = -(-tf.size(positions) // step)
            parts = tf.TensorArray(tf.float64, blocks, infer_shape=False, element_shape=[None])
            _, parts = tf.while_loop(
                lambda number, _: number < blocks,
                lambda number, parts: (
                    number + 1,
                    parts.write(number, self._squares_at_once(positions[number * step : (number + 1) * step], query)),
                ),
                (0, parts),
                parallel_iterations=1,
            )
            return parts.concat()

        return tf.cond(tf.size(positions) > step, in_blocks, lambda: self._squares_at_once(positions, query))

    def _squares_at_once(self, positions: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
        differences = tf.cast(tf.gather(self._rows.values.read_value(), positions), tf.float64) - tf.cast(query, tf.float64)
        return tf.reduce_sum(differences * differences, axis=1)
