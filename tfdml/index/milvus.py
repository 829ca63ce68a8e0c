"""Search with Milvus: in a local database (Milvus Lite), or on a cluster."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.index import _milvus_file
from tfdml.index._compared import ComparedIndex, compared
from tfdml.index._files import check_bytes, map_vectors_at
from tfdml.index._ids import PackedIds, packed_ids
from tfdml.index._measured import Folder, checked
from tfdml.index._milvus_server import MOST_FOUND, Server, cluster_address, import_milvus
from tfdml.index._milvus_spec import MilvusSpec, milvus_sizes
from tfdml.index._recall import recall_at
from tfdml.index.base import Floats, IndexFormatError, Integers


class MilvusIndex(ComparedIndex[MilvusSpec]):
    """Nearest neighbours with Milvus, behind the same protocol, file rules and recall measurement as `AnnoyIndex`.

    Without a cluster, Milvus Lite searches a local database in this process: for trying out what will run on a cluster. It is
    written in Python and walks through all items at each query (figures: `docs/index_backends.md`), so for a gallery that one
    machine holds `FaissIndex` is the better choice. With `cluster`, the same code makes a collection on a Milvus cluster and
    searches it there.

    | kind | Milvus's name |
    |---|---|
    | `"flat"` | FLAT |
    | `"hnsw"` | HNSW |
    | `"ivf"` | IVF_FLAT |
    | `"ivf_sq"` | IVF_SQ8 |

    The file holds the vectors, and for Milvus Lite its database. What Milvus finds is put in order by exact float64 differences
    from the vectors, which are mapped. A database can be open in one process only, and that process writes to it; therefore
    each index that is opened unpacks a copy of its own into a temporary folder, which goes when the index does, and a file is
    never changed. The file of an index on a cluster holds the vectors only; its record names the collection. Address and token
    are in neither: they come from the environment (`TFDML_MILVUS_URI`, `TFDML_MILVUS_TOKEN`) or from the caller.

    Any number of threads may search at once; Milvus Lite answers one after the other.

    Needs pymilvus: `pip install 'tfdml[milvus]'`, which TensorFlow 2.15's protobuf does not go with.

    Example:
        >>> import numpy as np
        >>> from tfdml.index import MilvusIndex
        >>> vectors = np.random.default_rng(0).normal(size=(300, 8))
        >>> index = MilvusIndex.build(vectors, [f"item-{i}" for i in range(300)], kind="flat")
        >>> bool(index.search(vectors[7], k=3).ids[0, 0] == "item-7")
        True
        >>> index.kind, index.spec.recall
        ('milvus_flat', 1.0)

    References:
        Wang et al., Milvus: A Purpose-Built Vector Data Management System, 2021: https://doi.org/10.1145/3448016.3457550
        Milvus Lite: https://github.com/milvus-io/milvus-lite
    """

    def __init__(self, path: Path, spec: MilvusSpec, ids: PackedIds, keep: _Kept) -> None:
        # Private: use build or load. The file's size is that of `spec` when this runs.
        super().__init__(path, spec, ids, keep)
        assert keep.server is not None
        self._server, self._kept = keep.server, keep
        weakref.finalize(self, keep.close)
        self._vectors = map_vectors_at(path, 0, spec.count, spec.dimension, spec.metric)
        self._server.check(spec, self._vectors)
        self._self_test()

    @classmethod
    def build(
        cls,
        vectors: npt.ArrayLike,
        ids: Iterable[Any],
        metric: str = "cosine",
        *,
        kind: str = "hnsw",
        lists: int | str = "auto",
        links: int | str = "auto",
        cluster: bool | str = False,
        token: str | None = None,
        seed: int = 0,
        recall: float = 0.95,
        queries: npt.ArrayLike | None = None,
        search_k: int | None = None,
        folder: Folder = None,
    ) -> MilvusIndex:
        """Fills a collection, tests it, and chooses `search_k` for the asked recall.

        Args:
            vectors: `[N, D]`, finite; under cosine none may be zero.
            ids: N different strings.
            metric: `"cosine"` or `"euclidean"`.
            kind: `"flat"`, `"hnsw"`, `"ivf"` or `"ivf_sq"`.
            lists: of an inverted file, Milvus's nlist. `"auto"`: 4 sqrt(N), and 40 items or more for each.
            links: of an item in the graph, HNSW's M. `"auto"`: 16.
            cluster: False for Milvus Lite; True for the cluster whose address is in `TFDML_MILVUS_URI`; or an address. The
                collection is named by what it holds. It stays when the index was saved, until somebody drops it.
            token: for the cluster, if it asks for one; by default what `TFDML_MILVUS_TOKEN` holds. It is never stored.
            seed: of the sample that the recall is measured on.
            recall: asked share of the 10 true nearest neighbours that a search returns, in (0, 1].
            queries: `[Q, D]`, vectors like those that will be asked for, to measure the recall on; up to 512 are used. By
                default a second index is built without up to 512 of the items, and those are the queries.
            search_k: fixes the number of items to look at by hand; the recall is then only measured.
            folder: where file and database lie until `save`; default: the system's temporary folder.

        Raises:
            ImportError: without pymilvus.
            ConnectionError: if the cluster does not answer.
            ValueError: for bad vectors, ids or options, and when the asked recall is not reached (it names what was).
        """
        import_milvus()
        rows, names, asked = checked(vectors, ids, metric, recall=recall, seed=seed, search_k=search_k, queries=queries)
        sizes = milvus_sizes(kind, len(rows), lists, links)
        if not isinstance(cluster, (bool, str)):
            raise ValueError(f"cluster={cluster!r}: expected True, False, or an address such as 'http://host:19530'.")
        address = cluster_address(cluster) if cluster is not False else None
        index = cls._grow(rows, names, metric, kind, sizes, int(seed), address, token, folder)
        graph = kind == "hnsw" and search_k is None
        index._measure(
            rows,
            asked,
            lambda kept: cls._grow(kept, PackedIds(names[: len(kept)]), metric, kind, sizes, int(seed), address, token, folder),
            recall=float(recall),
            fixed=search_k if search_k is not None else len(rows) if kind == "flat" else None,
            least=min(compared(index.spec.recall_at), len(rows)) if graph else 1,
            way_out="Allow a larger search_k, or leave it out to have it chosen, or ask for less.",
        )
        return index

    @classmethod
    def _grow(
        cls,
        rows: Floats,
        ids: PackedIds,
        metric: str,
        kind: str,
        sizes: tuple[int, int],
        seed: int,
        address: str | None,
        token: str | None,
        folder: Folder,
    ) -> MilvusIndex:
        """A tested index of which no recall is known yet."""
        lists, links = min(sizes[0], len(rows)), sizes[1]
        keep = _Kept(tempfile.mkdtemp(prefix=".tfdml-index-", dir=folder))
        path, database = keep.folder / "index.milvus", keep.folder / "lite.db"
        name = _collection_name(rows, kind, lists, links)
        with keep.or_all_goes():
            server = keep.server = Server(address, token, None if address else database)
            if not server.has(name):
                keep.made = name if address else ""
                server.fill(name, rows, kind, lists, links)
            if address is None:
                server.close()  # a database that is open is not all in its files
            _milvus_file.write(rows, None if address else database, path)
            spec = MilvusSpec(
                dimension=rows.shape[1],
                metric=metric,
                count=len(rows),
                kind=kind,
                lists=lists,
                links=links,
                seed=seed,
                collection=name,
                cluster=int(address is not None),
                search_k=1,
                recall_asked=0.0,
                recall=0.0,
                recall_at=recall_at(len(rows)),
                recall_queries=0,
                sha256="",
                bytes=path.stat().st_size,
            )
            if address is None:
                keep.server = Server(None, None, database)
            return cls(path, spec, ids, keep)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        spec: MilvusSpec | Mapping[str, Any],
        ids: Iterable[Any],
        *,
        cluster: str | None = None,
        token: str | None = None,
        checksum: bool = True,
    ) -> MilvusIndex:
        """Opens a saved index, after making sure that it is the one that `spec` describes.

        Size and SHA-256 are checked before anything else; then that the collection has this size, dimension and kind, that some
        of its vectors are those of the file, and that these items find themselves.

        Args:
            path: the file.
            spec: what `save` returned, or its dict.
            ids: the items' ids in order, as many as `spec.count`.
            cluster: the address of the cluster that holds the collection; default: what `TFDML_MILVUS_URI` holds. Not used for
                an index of Milvus Lite.
            token: as for `build`.
            checksum: False skips the SHA-256 only (for a caller that has computed it just before).

        Raises:
            ImportError: without pymilvus.
            ConnectionError: if the cluster does not answer.
            IndexFormatError: if anything disagrees; it says what.
            ValueError: for ids that are no strings, not unique, or not as many as there are items, and for a missing address.
        """
        spec = MilvusSpec.from_dict(spec.as_dict() if isinstance(spec, MilvusSpec) else spec)
        file = Path(path)
        check_bytes(file, spec.bytes, spec.sha256 if checksum else None)
        names = packed_ids(ids, spec.count)
        import_milvus()
        address = cluster_address(cluster or True) if spec.cluster else None
        keep = _Kept(tempfile.mkdtemp(prefix=".tfdml-milvus-"))
        database = keep.folder / "lite.db"
        with keep.or_all_goes():
            if address is not None:
                keep.server = Server(address, token)
                return cls(file, spec, names, keep)
            _milvus_file.unpack(file, spec.vectors_end, database)
            try:
                keep.server = Server(None, None, database)
                return cls(file, spec, names, keep)
            except ConnectionError as error:
                raise IndexFormatError(f"{file}: Milvus Lite cannot open its database: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> MilvusSpec:
        """As of every index; a collection on a cluster is from now on kept there."""
        spec = super().save(path)
        self._kept.made = ""
        return spec

    @property
    def kind(self) -> str:
        """`"milvus_"` and the kind of its record."""
        return f"milvus_{self._spec.kind}"

    def _looked_at(self, batch: Floats, wanted: int, width: int) -> list[Integers]:
        """What Milvus finds; where everything is asked for, or more than it ever returns, all there is."""
        if wanted > MOST_FOUND or (width >= len(self) and self._spec.kind != "flat"):
            return [np.arange(len(self))] * len(batch)
        return self._server.search(self._spec, batch, wanted, width)

    def __repr__(self) -> str:
        place = f"collection {self._spec.collection} at {self._server.name}"
        return (
            f"MilvusIndex({len(self)} items, dimension={self.dimension}, metric={self.metric!r}, kind={self._spec.kind!r}, "
            f"{place}, search_k={self._spec.search_k}, recall@{self._spec.recall_at}={self._spec.recall:.3f})"
        )


class _Kept:
    """What an open index keeps, and what goes with it: a folder, a connection, and a collection that nobody saved."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.server: Server | None = None
        self.made = ""

    def close(self) -> None:
        try:
            if self.server is not None:
                if self.made:
                    self.server.drop(self.made)
                self.server.close()
        except OSError:
            pass  # a cluster that is gone keeps what it has
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def or_all_goes(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise


def _collection_name(rows: Floats, kind: str, lists: int, links: int) -> str:
    """By what it holds: the same vectors and settings have the same name, others another."""
    digest = hashlib.sha256(f"{rows.shape} {kind} {lists} {links}".encode())
    digest.update(np.ascontiguousarray(rows, "<f4").data)
    return f"tfdml_{kind}_{digest.hexdigest()[:24]}"
