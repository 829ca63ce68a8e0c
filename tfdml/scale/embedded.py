"""Reading what `embed` wrote. NumPy only: loads neither Ray nor TensorFlow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml.scale.items import read_items
from tfdml.scale.work_folder import WorkFolder, WorkFolderError, fingerprint

FORMAT = "tfdml embedding 1"
VECTORS, ROWS = "vectors.npy", "rows.json"
_FACTS = {"source": str, "kind": str, "items": int, "part_size": int, "parts": int, "bundle": str, "dimension": int}
_FACTS |= {"metric": str, "max_pixels": int}


class Part(NamedTuple):
    """Some items in the order of the source.

    Attributes:
        ids: `[N]`.
        vectors: float32 `[N, D]`, mapped from the disk; zero for a row that failed.
        failed: why a row has no embedding, by its number in the part.
    """

    ids: list[str]
    vectors: npt.NDArray[np.float32]
    failed: dict[int, str]


class EmbeddedFolder:
    """The embeddings of a source: use `open`.

    Attributes:
        path: the folder.
        dimension: length of an embedding.
        metric: the bundle's, "cosine" or "euclidean".
        bundle: fingerprint of the model that made them.
        failed: why an item has no embedding, by its id.

    Example:
        folder = EmbeddedFolder.open("embedded/")
        for part in folder.parts():
            print(len(part.ids), part.vectors.shape)
        ids, vectors = folder.valid()        # all of it in memory, without the failed ones
    """

    def __init__(self, folder: WorkFolder, plan: Mapping[str, Any], digests: list[str], counts: list[int]) -> None:
        self._folder, self._plan, self._digests = folder, plan, digests
        self.path = folder.path
        self.dimension, self.metric, self.bundle = int(plan["dimension"]), str(plan["metric"]), str(plan["bundle"])
        self.counts = tuple(counts)
        self.failed: dict[str, str] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, checksum: bool = True) -> EmbeddedFolder:
        """Opens a finished folder.

        Args:
            path: what was `out` of `embed`.
            checksum: False skips the SHA-256 of the parts only.

        Raises:
            WorkFolderError: if the folder was not written by `embed`, is not finished, or is damaged; it says how.
        """
        folder = WorkFolder(path, "part")
        plan = read_plan(folder)
        name, digests, counts = fingerprint(plan), list[str](), list[int]()
        missing = sorted(set(range(plan["parts"])) - set(folder.finished()))
        if missing:
            raise WorkFolderError(
                f"{str(folder.path)!r}: {len(missing)} of {plan['parts']} parts are missing, e.g. part {missing[0]}. "
                "Run `tfdml embed` again with the same arguments: it goes on where it stopped."
            )
        opened = cls(folder, plan, digests, counts)
        for number in range(plan["parts"]):
            record = folder.read(number, name, checksum=checksum)
            digests.append(record.digest())
            counts.append(int(record.facts["count"]) - int(record.facts["failed"]))
            if record.facts["failed"]:
                part = opened.part(number)
                opened.failed.update({part.ids[row]: why for row, why in part.failed.items()})
        opened.counts = tuple(counts)
        return opened

    def __len__(self) -> int:
        """The number of items, failed ones too."""
        return int(self._plan["items"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the ids, embeddings and failures of all items, whatever was killed on the way."""
        return fingerprint(self._digests)

    def part(self, number: int) -> Part:
        """One part.

        Raises:
            WorkFolderError: if its files do not fit each other.
        """
        folder = self._folder.folder(number)
        vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        rows = json.loads((folder / ROWS).read_bytes())
        size = int(self._plan["part_size"])
        expected = (min(size, len(self) - number * size), self.dimension)
        if vectors.dtype != np.float32 or vectors.shape != expected or len(rows["ids"]) != expected[0]:
            raise WorkFolderError(
                f"{folder}: {len(rows['ids'])} ids and vectors {vectors.dtype} {vectors.shape}; expected float32 {expected}."
            )
        return Part(rows["ids"], vectors, {int(row): str(why) for row, why in rows["failed"].items()})

    def parts(self) -> Iterator[Part]:
        """All parts in order."""
        return (self.part(number) for number in range(int(self._plan["parts"])))

    def valid(self, start: int = 0, stop: int | None = None) -> tuple[list[str], npt.NDArray[np.float32]]:
        """Ids and vectors of the items that have an embedding, by their numbers among these: `start` to `stop` - 1."""
        ends = np.cumsum(self.counts)
        total = int(ends[-1])
        stop = total if stop is None else min(stop, total)
        ids: list[str] = []
        vectors = np.empty((max(0, stop - start), self.dimension), np.float32)
        for number in range(int(np.searchsorted(ends, start, "right")), len(ends)):
            first = int(ends[number]) - self.counts[number]
            if first >= stop:
                break
            part = self.part(number)
            rows = np.array([row for row in range(len(part.ids)) if row not in part.failed], np.int64)
            rows = rows[max(0, start - first) : stop - first]
            at = max(0, first - start)
            vectors[at : at + len(rows)] = part.vectors[rows]
            ids.extend(part.ids[row] for row in rows)
        return ids, vectors

    def check_ids(self) -> None:
        """Makes sure that there is a row for each planned item, and no other: as many, with the same ids in the same order.

        Raises:
            WorkFolderError: for the first part that differs.
        """
        rows = 0
        for number, part in enumerate(self.parts()):
            planned, _ = read_items(self.path, number)
            if part.ids != planned:
                raise WorkFolderError(
                    f"part {number}: its ids are not those of the plan. Delete {self._folder.folder(number)}."
                )
            rows += len(part.ids)
        if rows != len(self):
            raise WorkFolderError(f"{str(self.path)!r}: {rows} rows for {len(self)} items.")


def read_plan(folder: WorkFolder) -> dict[str, Any]:
    """The plan of an embedding.

    Raises:
        WorkFolderError: if there is none, or it is something else.
    """
    plan = folder.plan()
    if plan is None:
        raise WorkFolderError(f"{str(folder.path)!r}: has no plan. Expected a folder that `tfdml embed` wrote.")
    good = plan.get("format") == FORMAT and plan.keys() == {"format", *_FACTS}
    if not good or not all(isinstance(plan[name], kind) for name, kind in _FACTS.items()):
        raise WorkFolderError(f"{str(folder.path)!r}: its plan is not that of an embedding ({FORMAT!r}).")
    return plan
