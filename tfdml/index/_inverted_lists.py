"""A gallery cut into lists by k-means: a search looks only into the lists whose centres are nearest (IVF).

The lists lie one behind the other, so that a list is a slice of the reordered gallery. Everything is squared Euclidean
distance, as in `_nearest`: cosine is the same thing on rows of length 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfdml.index.base import Floats, Integers

_ROUNDS = 8
_TRAINING_ROWS_PER_LIST = 40
_LARGEST_OVER_MEAN = 8
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class InvertedLists:
    """The lists of a gallery of N rows.

    No list is empty, and none is longer than `_LARGEST_OVER_MEAN` times the mean (nor shorter than that for the sake of it):
    copies of one picture by the thousand, which k-means cannot part, are cut in the order of their numbers.

    Attributes:
        centres: float32 `[L, D]`.
        offsets: int64 `[L + 1]`; list l holds the items `order[offsets[l]:offsets[l + 1]]`.
        order: int64 `[N]`, every item number once, rising within a list.
    """

    centres: Floats
    offsets: Integers
    order: Integers

    @classmethod
    def build(cls, rows: Floats, lists: int | None = None, *, left_out: Integers | None = None, seed: int = 0) -> InvertedLists:
        """Trains the centres on a sample of the rows, and puts every row into the list of its nearest centre.

        Args:
            rows: float32 `[N, D]`, finite, N >= 1.
            lists: how many; None takes 4 sqrt(N). Fewer come out where rows coincide, more where lists are cut.
            left_out: numbers of rows that the training must not see (they are in the lists all the same): a row that helped
                to place its centre is too easy a query.
            seed: of the sample and of the first centres.
        """
        wanted = int(np.clip(lists or round(4 * np.sqrt(len(rows))), 1, len(rows)))
        random = np.random.default_rng(seed)
        candidates = np.delete(np.arange(len(rows)), left_out) if left_out is not None else np.arange(len(rows))
        if len(candidates) == 0:
            candidates = np.arange(len(rows))
        sample = np.sort(random.permutation(candidates)[: max(wanted * _TRAINING_ROWS_PER_LIST, 1)])
        centres = _k_means(rows[sample], wanted, random)
        longest = max(_LARGEST_OVER_MEAN, -(-_LARGEST_OVER_MEAN * len(rows) // wanted))
        parts = _cut(rows, centres, longest, random)
        sizes = np.array([len(members) for _, members in parts])
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return cls(np.stack([centre for centre, _ in parts]), offsets, np.concatenate([members for _, members in parts]))

    def __len__(self) -> int:
        return len(self.centres)

    def list_of_items(self) -> Integers:
        """The number of the list that each item is in, int64 `[N]`."""
        result = np.empty(len(self.order), np.int64)
        result[self.order] = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return result

    def ranks(self, queries: Floats) -> Integers:
        """For each query the position of each list in the order in which it is looked into, int64 `[Q, L]`."""
        ranks = np.empty((len(queries), len(self)), np.int64)
        halves = _half_squares(self.centres)
        for start in range(0, len(queries), 64):
            order = np.argsort(halves - queries[start : start + 64] @ self.centres.T, axis=1, kind="stable")
            np.put_along_axis(ranks[start : start + 64], order, np.arange(len(self))[None], axis=1)
        return ranks


def _k_means(rows: Floats, wanted: int, random: np.random.Generator) -> Floats:
    """Lloyd's iterations from distinct rows; a centre that nobody is nearest to moves into the fullest list."""
    distinct = np.unique(rows, axis=0) if len(rows) <= 20_000 else rows
    centres = distinct[random.permutation(len(distinct))[: min(wanted, len(distinct))]].copy()
    for _ in range(_ROUNDS):
        nearest = _assign(rows, centres)
        sizes = np.bincount(nearest, minlength=len(centres))
        order = np.argsort(nearest, kind="stable")
        used = np.flatnonzero(sizes)
        starts = (np.cumsum(sizes) - sizes)[used]
        centres[used] = np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64) / sizes[used, None]
        empty = np.flatnonzero(sizes == 0)
        if empty.size:
            chance = sizes[nearest] / sizes[nearest].sum()
            centres[empty] = rows[random.choice(len(rows), empty.size, p=chance)]
    return centres


def _cut(rows: Floats, centres: Floats, longest: int, random: np.random.Generator) -> list[tuple[Floats, Integers]]:
    """Centres with their members, in which no list is empty or longer than `longest`."""
    parts: list[tuple[Floats, Integers]] = []
    pending = [_members(rows, centres, np.arange(len(rows)))]
    while pending:
        for centre, members in pending.pop():
            if len(members) <= longest:
                parts.append((centre, members))
                continue
            finer = _k_means(rows[members], -(-2 * len(members) // longest), random)
            pieces = _members(rows, finer, members)
            if max(len(piece) for _, piece in pieces) > 0.9 * len(members):
                pieces = [(centre, members[start : start + longest]) for start in range(0, len(members), longest)]
            pending.append(pieces)
    return parts


def _members(rows: Floats, centres: Floats, numbers: Integers) -> list[tuple[Floats, Integers]]:
    """Each centre with those of the given rows that are nearest to it, if there are any."""
    nearest = _assign(rows[numbers] if len(numbers) < len(rows) else rows, centres)
    order = np.argsort(nearest, kind="stable")
    groups = np.split(numbers[order], np.cumsum(np.bincount(nearest, minlength=len(centres)))[:-1])
    return [(centre, group) for centre, group in zip(centres, groups, strict=True) if len(group)]


def _assign(rows: Floats, centres: Floats) -> Integers:
    """The number of the nearest centre of each row."""
    # The half squared length is one more column, so that the product alone gives what is compared.
    columns = np.concatenate([-centres, _half_squares(centres)[:, None]], axis=1).T.copy()
    result = np.empty(len(rows), np.int64)
    step = max(64, _BLOCK_BYTES // (4 * len(centres)))
    block = np.ones((step, rows.shape[1] + 1), np.float32)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        block[: len(part), :-1] = part
        result[start : start + step] = (block[: len(part)] @ columns).argmin(axis=1)
    return result


def _half_squares(rows: Floats) -> Floats:
    return (np.einsum("nd,nd->n", rows, rows, dtype=np.float64) / 2).astype(np.float32)
