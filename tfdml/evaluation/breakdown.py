"""Figures of each class, category, camera or sender apart. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.index.base import Integers

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Breakdown:
    """Figures by group, the worst group first. A group's figure is the mean over its queries that have an answer.

    Attributes:
        name: what the groups are, e.g. "camera".
        groups: what each group is called.
        queries: int64 `[G]`, queries with an answer.
        figures: each figure by its name, float64 `[G]`; NaN for a group without such a query.
    """

    name: str
    groups: list[Any]
    queries: Integers
    figures: dict[str, Doubles]

    @classmethod
    def of(cls, values: Mapping[str, Doubles], groups: npt.NDArray[Any], name: str = "") -> Breakdown:
        """Of figures `[Q]` by name, NaN where a query counts for nothing."""
        names, which = np.unique(groups, return_inverse=True)
        which = which.reshape(-1)
        counted = ~np.isnan(next(iter(values.values())))
        queries = np.bincount(which[counted], minlength=len(names))
        with np.errstate(invalid="ignore"):
            figures = {key: np.bincount(which[counted], each[counted], len(names)) / queries for key, each in values.items()}
        worst = figures.get("map_at_r", next(iter(figures.values())))
        order = np.lexsort((np.arange(len(names)), worst))
        return cls(name, names[order].tolist(), queries[order], {key: each[order] for key, each in figures.items()})

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[tuple[Any, dict[str, float]]]:
        """Pairs of a group and its figures."""
        for row, group in enumerate(self.groups):
            yield group, {key: float(each[row]) for key, each in self.figures.items()}

    def as_dict(self) -> dict[str, dict[str, float | None]]:
        """By group: the figures (None for a group without an answer) and the number of queries, ready for JSON."""
        result: dict[str, dict[str, float | None]] = {}
        for count, (group, figures) in zip(self.queries.tolist(), self, strict=True):
            plain = {key: None if np.isnan(value) else value for key, value in figures.items()}
            result[str(group)] = {**plain, "queries": count}
        return result

    def __str__(self) -> str:
        from tfdml.evaluation.retrieval_result import spoken

        heads = [self.name or "group", "queries", *(spoken(key) for key in self.figures)]
        rows = [
            [str(group), f"{count:,}", *("-" if np.isnan(value) else f"{value:.2%}" for value in figures.values())]
            for count, (group, figures) in zip(self.queries.tolist(), self, strict=True)
        ]
        widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(max(width, 7))
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in [heads, *rows]
        )
