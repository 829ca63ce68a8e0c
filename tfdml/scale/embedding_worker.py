"""What embeds a part: one object in each process, which loads the model once. TensorFlow is loaded when it is made."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.scale.embedded import ROWS, VECTORS
from tfdml.scale.items import read_items
from tfdml.scale.sources import KINDS, Address
from tfdml.scale.work_folder import WorkFolder, WorkFolderError

BATCH = 64
_READERS = 8
_TRIES = 4  # of one part: an image that kills its worker must not do so for ever
Floats = npt.NDArray[np.float32]


class EmbeddingWorker:
    """Embeds parts of a planned folder.

    A part's batches begin at its first item, so they are the same whoever computes them, and so is the part.

    Args:
        work: `bundle`, `out`, `plan` (its fingerprint), and the source's `kind` and `settings`.
        threads: of TensorFlow; 0 leaves that to TensorFlow.
    """

    def __init__(self, work: Mapping[str, Any], threads: int = 0) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        from tfdml.bundle.embedder import Embedder
        from tfdml.bundle.layout import EXTRA, list_files, model_fingerprint, record_file

        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        self._folder, self._plan = WorkFolder(work["out"], "part"), str(work["plan"])
        plan = self._folder.plan()
        if plan is None:
            raise WorkFolderError(f"{work['out']!r} has no plan here: every worker must see it under the same path.")
        self._facts = plan
        bundle = Path(work["bundle"])
        names = [name for name in list_files(bundle) if not name.startswith(f"{EXTRA}/")]
        found = model_fingerprint({name: record_file(bundle / name) for name in names})
        if found != plan["bundle"]:
            raise WorkFolderError(f"{str(bundle)!r} holds another model here ({found[:12]}) than was planned for.")
        self._embedder = Embedder(bundle, verify=False, batch_size=BATCH)
        self._read = KINDS[work["kind"]].reader(work["settings"])
        self._pool = ThreadPoolExecutor(_READERS)

    def __call__(self, number: int) -> dict[str, Any]:
        """Embeds a part, unless it is there; returns a receipt."""
        begun = self._folder.unfinished().get(number, 0)
        if begun >= _TRIES:
            raise RuntimeError(
                f"part {number} was begun {begun} times, and its worker died each time. One of its images may be what kills "
                "it, or the machine is short of memory."
            )
        record, own = self._folder.commit(number, self._plan, lambda folder: self._write(number, folder))
        worker = {"process": os.getpid(), "machine": socket.gethostname()}
        return {"part": number, "own": own, "worker": worker, **record.facts}

    def _write(self, number: int, folder: Path) -> dict[str, Any]:
        ids, addresses = read_items(self._folder.path, number)
        vectors = np.zeros((len(ids), int(self._facts["dimension"])), np.float32)
        failed: dict[int, str] = {}
        for start, files in self._batches(addresses):
            failed |= {start + place: why for place, why in enumerate(files) if isinstance(why, str)}
            rows = [start + place for place, data in enumerate(files) if isinstance(data, bytes)]
            embeddings, valid = self._embedder.try_embed([data for data in files if isinstance(data, bytes)])
            for row, embedding, good in zip(rows, embeddings, valid, strict=True):
                why = self._why(files[row - start], embedding, bool(good))
                if why:
                    failed[row] = why
                else:
                    vectors[row] = embedding
        np.save(folder / VECTORS, vectors)
        content = {"ids": ids, "failed": {str(row): failed[row] for row in sorted(failed)}}
        (folder / ROWS).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return {"count": len(ids), "failed": len(failed)}

    def _batches(self, addresses: list[Address]) -> Iterator[tuple[int, list[bytes | str]]]:
        """Where a batch starts and its files; the next one is read while one is embedded."""

        def begin(start: int) -> list[Future[bytes | str]]:
            return [self._pool.submit(self._read, address) for address in addresses[start : start + BATCH]]

        coming = begin(0)
        for start in range(0, len(addresses), BATCH):
            ready, coming = coming, begin(start + BATCH)
            yield start, [file.result() for file in ready]

    def _why(self, data: bytes | str, embedding: Floats, good: bool) -> str | None:
        """Why a row has no embedding that can be used."""
        if good:
            if not np.isfinite(embedding).all():
                return "its embedding is not finite"
            zero = self._facts["metric"] == "cosine" and not embedding.any()
            return "its embedding is zero, and has no cosine" if zero else None
        from tfdml.datasets.files import why_undecodable
        from tfdml.preprocessing import ImagePreprocessing

        assert isinstance(data, bytes)
        why = why_undecodable(data, ImagePreprocessing(), int(self._facts["max_pixels"]))
        return why or "the bundle's model does not take it"
