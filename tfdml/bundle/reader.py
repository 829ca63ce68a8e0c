"""Reading a bundle: search and look up items, without TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt

from tfdml.bundle.catalogue import Catalogue, Value
from tfdml.bundle.layout import resolve
from tfdml.bundle.manifest import Threshold
from tfdml.bundle.verification import check_files, open_catalogue, open_index, read_manifest, refusing


@dataclasses.dataclass(frozen=True)
class Hit:
    """One answer: an item and how far it is from the query.

    Args:
        id: the item's id.
        distance: in the bundle's metric: `||u - v||` or `1 - cos(u, v)`.
        fields: the item's own fields.
        number: the item's number in index and catalogue.
        probability: how likely it is of the query's class, if the bundle holds a `MatchProbability`; else None.
    """

    id: str
    distance: float
    fields: Mapping[str, Value]
    number: int
    probability: float | None = None


class Bundle:
    """An open bundle: its manifest, its index and its catalogue, which belong together.

    Neither opening nor searching loads TensorFlow; `tfdml.bundle.Embedder` makes the embeddings of query images. Safe to use
    from several threads.

    Attributes:
        path: the version directory.
        manifest: a `tfdml.bundle.Manifest`.
        index: a `tfdml.index.StoredIndex`, memory-mapped: an `AnnoyIndex`, unless the bundle was exported with another.
        catalogue: the `tfdml.bundle.Catalogue`.

    Example:
        with Bundle.open("exports/products") as bundle:
            for hit in bundle.search(embedding, k=5):
                print(hit.id, hit.distance, hit.fields)
    """

    def __init__(self, path: str | os.PathLike[str], verify: bool = True) -> None:
        self.path = resolve(path)
        with refusing(self.path):
            self.manifest = read_manifest(self.path)
            if verify:
                check_files(self.path, self.manifest)
            self.catalogue: Catalogue = open_catalogue(self.path, self.manifest)
            try:
                self.index = open_index(self.path, self.manifest, self.catalogue)
            except BaseException:
                self.catalogue.close()
                raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = True) -> Bundle:
        """Opens a bundle.

        Args:
            path: a version directory, or a model directory, whose latest version is taken.
            verify: compute the checksum of every file. Without it only the manifest, the files' layout and the agreement of
                index and catalogue are checked: for bundles that were verified a moment ago.

        Raises:
            BundleError: if anything is missing, damaged or does not belong together; it says what.
        """
        return cls(path, verify)

    def __len__(self) -> int:
        return self.manifest.items

    def search(self, embeddings: npt.ArrayLike, k: int = 10, within: float | str | None = None) -> list[list[Hit]]:
        """The `k` items nearest to each query; with `within` only those that are a match.

        Args:
            embeddings: `[B, D]`, or one `[D]`, which counts as B = 1.
            k: how many, from 1 to the number of items.
            within: the distance up to which an answer is a match, or the name of one of the manifest's thresholds. Farther
                ones are left out. None leaves out none.

        Returns:
            For each query a list of `k` hits, nearest first; with `within` fewer, and an empty one where there is no match.

        Raises:
            ValueError: for another dimension, NaN, `k` out of range, or a name that no threshold has.
        """
        farthest = np.inf if within is None else self.threshold(within).distance if isinstance(within, str) else float(within)
        if np.isnan(farthest):
            raise ValueError("within: received NaN, expected a distance or the name of a threshold.")
        result = self.index.search(embeddings, k)
        answers = self._hits(result.numbers, result.distances)
        if within is None:
            return answers
        return [[hit for hit in hits if hit.distance <= np.float32(farthest)] for hits in answers]

    def threshold(self, name: str | None = None) -> Threshold:
        """A calibrated threshold of the manifest; without a name the only one that there is.

        Raises:
            ValueError: if there is none, or none of that name, or several to choose from.
        """
        known = self.manifest.thresholds
        if name is None and len(known) == 1:
            return next(iter(known.values()))
        if name is not None and name in known:
            return known[name]
        if not known:
            raise ValueError(
                f"{self.path}: no threshold was calibrated. Export it with thresholds={{'match': calibrate(...).threshold}}."
            )
        wanted = "" if name is None else f"there is no threshold {name!r}; "
        raise ValueError(f"{self.path}: {wanted}known: {', '.join(repr(one) for one in sorted(known))}.")

    def hits(self, ids: Sequence[Sequence[str]], distances: npt.ArrayLike) -> list[list[Hit]]:
        """What the catalogue knows of ids that something else found, such as `tfdml.bundle.Searcher` or TF-Serving.

        Args:
            ids: for each query as many ids.
            distances: `[B, k]`.

        Raises:
            KeyError: for an id that no item has.
        """
        given = np.asarray(distances, np.float32)
        numbers = np.array(self.catalogue.numbers(item for row in ids for item in row), np.int64)
        return self._hits(numbers.reshape(given.shape), given)

    def _hits(self, all_numbers: npt.NDArray[np.int64], all_distances: npt.NDArray[np.float32]) -> list[list[Hit]]:
        flat = [int(number) for number in all_numbers.ravel()]
        items = iter(self.catalogue.items(flat))
        answers: list[list[Hit]] = []
        fitted = self.manifest.match_probability
        for numbers, distances in zip(all_numbers, all_distances, strict=True):
            row = []
            likely = [None] * len(numbers) if fitted is None else fitted(distances).tolist()
            for number, distance, probability in zip(numbers, distances, likely, strict=True):
                item = next(items)
                row.append(Hit(str(item.pop("id")), float(distance), item, int(number), probability))
            answers.append(row)
        return answers

    def close(self) -> None:
        """Closes the catalogue. The index is unmapped when the last reference to it goes."""
        self.catalogue.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        model = self.manifest.model
        return f"Bundle({str(self.path)!r}: {len(self)} items, dimension={model.dimension}, metric={self.manifest.metric!r})"
