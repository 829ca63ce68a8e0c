"""Retrieval figures: how good the nearest neighbours are. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.evaluation._exclusion import Exclusion, exclusion, same_ids
from tfdml.evaluation._full_ranking import full_ranking_figures
from tfdml.evaluation._labels import (
    check_ks,
    check_one_class,
    check_some_answer,
    class_numbers,
    shared_class_numbers,
    with_label,
)
from tfdml.evaluation._relevance import Gains, Relevance, check_ideal
from tfdml.evaluation._ties import TIES, figures_of, groups
from tfdml.evaluation.retrieval_result import PerQuery, RetrievalResult, result_of
from tfdml.index._nearest import BLOCK_BYTES, Block, NearestRows
from tfdml.index.base import METRICS, Floats, Integers, check_ids, check_vectors
from tfdml.index.exact import distances_from_squares

Doubles = npt.NDArray[np.float64]
FURTHER = ("precision", "map", "mrr", "ndcg")


def retrieval(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    ids: Iterable[Any] | None = None,
    gallery: npt.ArrayLike | None = None,
    gallery_labels: npt.ArrayLike | None = None,
    gallery_ids: Iterable[Any] | None = None,
    *,
    metric: str = "cosine",
    ks: int | Sequence[int] | None = None,
    also: Sequence[str] = (),
    ties: str = "number",
    relevance: npt.ArrayLike | Relevance | Sequence[Any] | None = None,
    cameras: npt.ArrayLike | None = None,
    gallery_cameras: npt.ArrayLike | None = None,
    junk: Any = None,
    distractors: Any = None,
    block: int = BLOCK_BYTES,
) -> RetrievalResult:
    r"""Recall@k, R-Precision, MAP@R and more by exact search: does an image find the other images of its class?

    Without a gallery every embedding is a query against all others. It is left out of its own answer *by number*, so exact
    duplicates of it are found like any other item. With a gallery, an item that has the query's id is left out.

    With R the number of right answers in the gallery, rel(i) = 1 if the i-th nearest item is right, and P(i) the share of
    right ones among the nearest i, a query counts

        Recall@k     1 if any of the k nearest is right, else 0
        R-Precision  (rel(1) + ... + rel(R)) / R
        MAP@R        (P(1) rel(1) + ... + P(R) rel(R)) / R

    and, if asked for by `also`,

        precision    Precision@k, P(k)
        map          MAP, the mean of P(i) over the places i of all R right answers in the whole ranking
        mrr          MRR, 1 / the place of the first right answer in the whole ranking
        ndcg         nDCG@k, sum of gain(i) / log2(1 + i) over the k nearest, divided by the same sum of the best k gains;
                     the gain is rel(i), or what `relevance` says

    Queries with R = 0 have no answer: they are counted, reported and left out of the means. Near-duplicates are told apart by
    exact differences; what is *equally* near (copies of one image, collapsed embeddings) is ordered as `ties` says, and the
    result tells how many queries that concerns.

    Memory beside the embeddings and one copy of them: for each core about twice `block` bytes, never queries x gallery. Time:
    that of the matrix product and of ordering R neighbours of each query. MAP and MRR take a float64 product and a sort of
    every row, about ten times that.

    Args:
        embeddings: `[Q, D]`, finite.
        labels: `[Q]`, integers or strings.
        ids: Q different strings; they matter together with `gallery_ids` only.
        gallery: `[G, D]`, the items to search in; None: the embeddings themselves.
        gallery_labels: `[G]`, of the same kind as `labels`.
        gallery_ids: G different strings.
        metric: `"cosine"` or `"euclidean"`.
        ks: the k of Recall@k, Precision@k and nDCG@k; none may exceed the number of items that a query can find. None takes
            those of 1, 5 and 10 that there are items for.
        also: further figures: "precision", "map", "mrr", "ndcg".
        ties: what counts where right and wrong answers are equally near. "number": in the order of their numbers, as an index
            returns them, the same on every machine; "expected": the mean over all orders, so that the order of the rows does
            not matter; "pessimistic": wrong ones first. `per_query.nearest` is always by number.
        relevance: graded relevance for nDCG, as a matrix `[Q, G]` of gains >= 0; as a function of query numbers `[n, 1]` and
            item numbers `[n, m]` or `[1, m]` that returns gains `[n, m]`; or as a list of levels, e.g. `[categories]`: a gain
            of 1 for the class and 1 for each level that agrees. A level is `[N]`, with a gallery a pair of `[Q]` and `[G]`.
            For gains of 2^level - 1 return these.
        cameras: `[Q]`, where each query comes from (camera, sender, session): items of its class from its own camera are left
            out, neither right nor wrong, as in the protocol of Market-1501.
        gallery_cameras: `[G]`, with a gallery.
        junk: a label whose items no query finds (Market-1501: -1).
        distractors: a label whose items are never right, though they are found, and are no queries (Market-1501: 0).
        block: bytes of a block of distances.

    Raises:
        ValueError: for NaN or infinity; for a zero vector under cosine; for labels of another number or kind; if everything
            is of one class, where every answer would be right; if no query has an answer; if a k is too large; for relevance
            that is negative, or 0 everywhere.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import retrieval
        >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.6, 0.5], [-1.0, 0.0]])
        >>> print(retrieval(embeddings, ["cup", "cup", "lamp", "lamp", "shoe"], ks=(1, 3), also=["mrr"]))
        Recall@1      75.00%
        Recall@3     100.00%
        R-Precision   75.00%
        MAP@R         75.00%
        MRR           83.33%
        5 queries, of which 1 have no answer; 5 items; cosine distance

    References:
        Musgrave, Belongie and Lim, A Metric Learning Reality Check, ECCV 2020: R-Precision and MAP@R.
        Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015: cameras, junk and distractors.
        McSherry and Najork, Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores,
        ECIR 2008: ties.
    """
    check_choice("metric", metric, METRICS)
    check_choice("ties", ties, TIES)
    wanted = [also] if isinstance(also, str) else list(also)
    for name in wanted:
        check_choice("also", name, FURTHER)
    if relevance is not None and "ndcg" not in wanted:
        raise ValueError("relevance: graded relevance is for nDCG only. Ask for it: also=['ndcg'].")
    data = _prepared(
        embeddings, labels, ids, gallery, gallery_labels, gallery_ids, metric, cameras, gallery_cameras, junk, distractors
    )
    available = len(data.items) - int(data.excluded.counts().max())
    if ks is None:
        ks = [k for k in (1, 5, 10) if k <= max(available, 1)]
    ks = check_ks(ks, available)
    largest = max(ks)

    count = len(data.queries)
    found = PerQuery(
        nearest=np.empty((count, largest), np.int64),
        distances=np.empty((count, largest), np.float32),
        correct=np.empty((count, largest), bool),
        answers=data.answers,
        r_precision=np.full(count, np.nan),
        map_at_r=np.full(count, np.nan),
        classes=data.classes,
    )
    names = [f"{kind}_at_{k}" for kind in ("recall", "precision") for k in ks]
    values = {name: np.full(count, np.nan) for name in names} | {"r_precision": found.r_precision, "map_at_r": found.map_at_r}
    tied = np.zeros(count, bool)
    dcg = np.empty((count, len(ks)))
    gains = data.gains(relevance) if "ndcg" in wanted else None
    nearest = NearestRows(data.items)
    for group in _groups_of_similar_depth(np.maximum(data.answers, largest)):
        depth = min(int(max(largest, data.answers[group].max())), len(data.items))
        exclude = data.excluded.among(group)
        for part in nearest.search(data.queries[group], depth, exclude, exact_distances=False, block_bytes=block):
            rows = group[part.start : part.start + len(part.numbers)]
            relevant = data.gallery_classes[part.numbers] == data.classes[rows, None]
            relevant &= np.isfinite(part.squared_distances)
            found.nearest[rows] = data.numbers[part.numbers[:, :largest]]
            found.correct[rows] = relevant[:, :largest]
            squared = nearest.squared_distances(data.queries[rows], part.numbers[:, :largest])
            found.distances[rows] = distances_from_squares(squared, metric)
            tied[rows] = _figures(values, rows, relevant, part, data, ks, ties)
            if gains is not None:
                dcg[rows] = gains.dcg(rows, *_top(part, largest), ks, ties)

    counted = np.flatnonzero(data.answers > 0)
    if gains is not None:
        ideal = gains.ideal(counted, ks, len(data.items), data.excluded, block)
        check_ideal(ideal, counted)
        for column, k in enumerate(ks):
            values[f"ndcg_at_{k}"] = np.full(count, np.nan)
            values[f"ndcg_at_{k}"][counted] = dcg[counted, column] / ideal[:, column]
    if {"map", "mrr"} & set(wanted):
        full = full_ranking_figures(
            data.queries, data.items, data.classes, data.gallery_classes, data.answers, data.excluded, ties, block
        )
        values |= {name: each for name, each in full.items() if name in wanted}
    if "precision" not in wanted:
        values = {name: each for name, each in values.items() if not name.startswith("precision_at")}
    return result_of(found, ks, len(data.items), metric, values, tied, ties)


@dataclass(frozen=True)
class _Prepared:
    """Checked input: classes as numbers, junk taken out of the items, and which pairs do not count."""

    queries: Floats
    items: Floats
    classes: Integers
    gallery_classes: Integers
    answers: Integers
    excluded: Exclusion
    numbers: Integers
    total: int
    leave_one_out: bool

    def gains(self, relevance: Any) -> Gains:
        return Gains(relevance, self.classes, self.gallery_classes, self.answers, self.numbers, self.total, self.leave_one_out)


def _prepared(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    ids: Iterable[Any] | None,
    gallery: npt.ArrayLike | None,
    gallery_labels: npt.ArrayLike | None,
    gallery_ids: Iterable[Any] | None,
    metric: str,
    cameras: npt.ArrayLike | None,
    gallery_cameras: npt.ArrayLike | None,
    junk: Any,
    distractors: Any,
) -> _Prepared:
    items = queries = check_vectors(embeddings, metric, "embeddings")
    names = None if ids is None else check_ids(ids, len(queries))
    if gallery is None:
        if gallery_labels is not None or gallery_ids is not None or gallery_cameras is not None:
            raise ValueError("gallery_labels, gallery_ids and gallery_cameras belong to a gallery, and gallery=None.")
        classes = gallery_classes = class_numbers(labels, len(queries), "labels")
        own = np.arange(len(queries))
        gallery_labels, gallery_cameras = labels, cameras
    else:
        if gallery_labels is None:
            raise ValueError("gallery_labels=None: expected one label for each item of the gallery.")
        items = check_vectors(gallery, metric, "gallery")
        if items.shape[1] != queries.shape[1]:
            raise ValueError(
                f"gallery: dimension {items.shape[1]}, but embeddings have {queries.shape[1]}. Both must come from one model."
            )
        classes, gallery_classes = shared_class_numbers(labels, len(queries), gallery_labels, len(items))
        own = same_ids(names, len(queries), gallery_ids, len(items))
    check_one_class(classes, gallery_classes)
    excluded = exclusion(classes, gallery_classes, own, cameras, gallery_cameras)
    kept = np.ones(len(items), bool)
    if distractors is not None:
        # Numbers that no class has, one for the items and another for queries, so that none of them is ever right.
        nobody = 1 + max(classes.max(), gallery_classes.max())
        gallery_classes = np.where(with_label(gallery_labels, distractors, "distractors"), nobody, gallery_classes)
        classes = np.where(with_label(labels, distractors, "distractors"), nobody + 1, classes)
    if junk is not None:
        kept = ~with_label(gallery_labels, junk, "junk")
        classes = np.where(with_label(labels, junk, "junk"), 2 + max(classes.max(), gallery_classes.max()), classes)
        if not kept.any():
            raise ValueError(f"junk={junk!r}: all {len(items)} items have this label, and none is left to find.")
        items, gallery_classes = np.ascontiguousarray(items[kept]), gallery_classes[kept]
        excluded = excluded.with_items(kept)
    sizes = np.bincount(gallery_classes, minlength=int(classes.max()) + 1)
    answers = sizes[classes] - excluded.same_class(classes, gallery_classes)
    check_some_answer(answers)
    return _Prepared(
        queries, items, classes, gallery_classes, answers, excluded, np.flatnonzero(kept), len(kept), gallery is None
    )


def _figures(
    values: dict[str, Doubles],
    rows: Integers,
    relevant: npt.NDArray[np.bool_],
    part: Block,
    data: _Prepared,
    ks: Sequence[int],
    ties: str,
) -> npt.NDArray[np.bool_]:
    """Fills in the figures of some queries; returns which of them depend on the order of equal distances."""
    answers, squares = data.answers[rows], part.squared_distances
    largest = max(ks)
    right = np.cumsum(relevant[:, :largest], axis=1, dtype=np.int32)
    counted = answers > 0
    for k in ks:
        values[f"recall_at_{k}"][rows] = np.where(counted, right[:, k - 1] > 0, np.nan)
        values[f"precision_at_{k}"][rows] = np.where(counted, right[:, k - 1] / k, np.nan)
    values["r_precision"][rows], values["map_at_r"][rows] = precisions(relevant, answers)

    # Two neighbours in the list, one right and one wrong, equally near, of which at least the first counts.
    counts_first = np.arange(relevant.shape[1] - 1) < np.maximum(answers, largest)[:, None]
    mixed = (squares[:, 1:] == squares[:, :-1]) & (relevant[:, 1:] != relevant[:, :-1]) & counts_first
    tied = mixed.any(axis=1) & counted
    more = data.gallery_classes[part.tied[1]] == data.classes[rows[part.tied[0]]]
    at_end = (more != relevant[part.tied[0], -1]) & (np.maximum(answers, largest) >= relevant.shape[1])[part.tied[0]]
    tied[part.tied[0][at_end]] = True
    tied &= counted
    if ties != "number":
        for place in np.flatnonzero(tied):
            own = slice(*np.searchsorted(part.tied[0], [place, place + 1]))
            list_relevant = np.concatenate([relevant[place], more[own]])
            list_values = np.append(squares[place], np.full(len(more[own]), squares[place, -1]))
            finite = np.isfinite(list_values)
            for name, value in figures_of(
                groups(list_values[finite], list_relevant[finite]), int(answers[place]), ks, ties
            ).items():
                values[name][rows[place]] = value
    return tied


def _top(part: Block, largest: int) -> tuple[Integers, Doubles, tuple[Integers, Integers]]:
    """The first places of a block, and what is tied with the last of them."""
    squares, numbers = part.squared_distances, part.numbers
    if numbers.shape[1] == largest:
        return numbers, squares, part.tied
    last = squares[:, largest - 1 : largest]
    query, place = np.nonzero((squares[:, largest:] == last) & np.isfinite(last))
    further = squares[part.tied[0], -1] == last[part.tied[0], 0]
    places = np.concatenate([query, part.tied[0][further]])
    others = np.concatenate([numbers[query, largest + place], part.tied[1][further]])
    order = np.argsort(places, kind="stable")
    return numbers[:, :largest], squares[:, :largest], (places[order], others[order])


def precisions(relevant: npt.NDArray[np.bool_], answers: Integers) -> tuple[Doubles, Doubles]:
    """R-Precision and AP@R of each query; NaN where R = 0."""
    ranks = np.arange(1, relevant.shape[1] + 1)
    within = relevant & (ranks <= answers[:, None])
    right = np.cumsum(within, axis=1, dtype=np.int32)
    counts = np.where(answers > 0, answers, np.nan)
    at_ranks = np.divide(right, ranks, where=within, out=np.zeros(right.shape))
    return right[:, -1] / counts, at_ranks.sum(axis=1) / counts


def _groups_of_similar_depth(depth: Integers) -> Iterator[Integers]:
    """Queries whose depths differ by less than a factor of two: one large class must not deepen the search of all others."""
    octave = np.frexp(depth)[1]
    for value in np.unique(octave):
        yield np.flatnonzero(octave == value)
