"""Embedded mode: the SavedModel runs in this process. The one place of the service that needs TensorFlow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from tfdml.bundle import BundleError
from tfdml_serving.embedding.answers import checked_answer, zeros
from tfdml_serving.embedding.base import Booleans, Floats, ModelRefused, ModelVersion, Then, WrongAnswer
from tfdml_serving.embedding.microbatch import MicroBatcher
from tfdml_serving.embedding.remote import PROBE
from tfdml_serving.errors import EmbedderUnavailable

log = logging.getLogger(__name__)


class Model(Protocol):
    """A loaded model: `tfdml.bundle.Embedder`."""

    def try_embed(self, files: Sequence[bytes]) -> tuple[Floats, Booleans]:
        """Embeddings and valid."""


class EmbeddedModels:
    """Runs the SavedModels of the versions in use in this process, one step at a time.

    Requests that wait at the same time are embedded together; a lone request waits for nobody. Two versions can be loaded at
    once, as a roll-out needs; each is freed when it is released.

    Args:
        batch: the most images in one step.
        wait: seconds to wait for a batch to fill.
        queue: how many images may wait for the model; further requests are refused.
        deadline: seconds within which a request is answered or refused.
        threads: of TensorFlow's operations; 0 for its own choice.
        load: how a version is loaded; `tfdml.bundle.Embedder`, which imports TensorFlow, if left out.

    Example:
        embedder = EmbeddedModels()
        await embedder.prepare(ModelVersion(1, Path("exports/products/1"), dimension=64))
        embeddings, valid = await embedder.embed([photo], version=1)
    """

    def __init__(
        self,
        batch: int = 32,
        wait: float = 0.0,
        queue: int = 1024,
        deadline: float = 10.0,
        threads: int = 0,
        load: Callable[[Path], Model] | None = None,
    ) -> None:
        self._batch, self._wait, self._queue, self._deadline = batch, wait, queue, deadline
        self._load = load or (lambda path: _load(path, batch, threads))
        self._batchers: dict[int, MicroBatcher] = {}
        self._loading: dict[int, asyncio.Task[MicroBatcher]] = {}
        # Models run in one thread: TensorFlow has its own for what is inside a step. Another loads the next version meanwhile.
        self._runner = ThreadPoolExecutor(1, "tfdml-embed")
        self._loader = ThreadPoolExecutor(1, "tfdml-load")

    async def prepare(self, model: ModelVersion) -> None:
        """See `ImageEmbedder`: loads the model, and embeds a small picture with it."""
        version = model.version
        if version in self._batchers:
            return
        if version not in self._loading:
            self._loading[version] = asyncio.create_task(self._loaded(model))
        task = self._loading[version]
        try:
            batcher = await asyncio.shield(task)
        finally:
            if task.done():
                self._loading.pop(version, None)
        self._batchers.setdefault(version, batcher)

    async def release(self, version: int) -> None:
        """See `ImageEmbedder`. What still waits for this version is answered; then its model is freed."""
        self._batchers.pop(version, None)

    async def embed(self, files: Sequence[bytes], version: int) -> tuple[Floats, Booleans]:
        """See `ImageEmbedder`."""
        embeddings, valid, _ = await self.embed_then(files, version, None)
        return embeddings, valid

    async def embed_then(self, files: Sequence[bytes], version: int, then: Then | None) -> tuple[Floats, Booleans, Any]:
        """See `EmbedderWithThread`."""
        batcher = self._batchers.get(version)
        if batcher is None:
            raise EmbedderUnavailable(f"the model of version {version} is not loaded; loaded are {sorted(self._batchers)}")
        try:
            return await batcher.submit(files, self._deadline, then)
        except TimeoutError:
            raise EmbedderUnavailable(f"the model of version {version} did not answer within {self._deadline:g} s") from None

    async def check(self, version: int) -> None:
        """See `ImageEmbedder`."""
        if version not in self._batchers:
            raise EmbedderUnavailable(f"the model of version {version} is not loaded")

    async def loaded(self) -> frozenset[int] | None:
        """See `ImageEmbedder`."""
        return frozenset(self._batchers) | frozenset(self._loading)

    async def aclose(self) -> None:
        """See `ImageEmbedder`."""
        for task in self._loading.values():
            task.cancel()
        for batcher in self._batchers.values():
            await batcher.aclose()
        self._batchers.clear()
        self._runner.shutdown(wait=False, cancel_futures=True)
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _loaded(self, model: ModelVersion) -> MicroBatcher:
        loop = asyncio.get_running_loop()
        try:
            loaded = await loop.run_in_executor(self._loader, self._load, model.path)
        except BundleError as error:
            raise ModelRefused(str(error)) from error
        except ImportError as error:
            text = f"TensorFlow cannot be imported: {error}. Install it, or name a TF-Serving (--tf-serving, --grpc)."
            raise EmbedderUnavailable(text, retry_after=None) from error
        except MemoryError as error:
            raise EmbedderUnavailable(f"no memory for the model of version {model.version}") from error

        def run(files: list[bytes]) -> tuple[Floats, Booleans]:
            if not files:
                return zeros(0, model.dimension)
            try:
                return checked_answer(*loaded.try_embed(files), len(files), model.dimension)
            except EmbedderUnavailable:
                raise
            except Exception as error:
                log.exception("the model of version %d failed", model.version)
                raise EmbedderUnavailable(f"the model of version {model.version} failed: {type(error).__name__}") from error

        # Not among the requests of the version that serves: a first step takes its time.
        try:
            await loop.run_in_executor(self._loader, run, [PROBE])
        except WrongAnswer as error:
            raise ModelRefused(
                f"the model of version {model.version} was asked for a first picture, but {error.detail}"
            ) from error
        return MicroBatcher(run, self._runner, self._batch, self._queue, self._wait)


def _load(path: Path, batch: int, threads: int) -> Model:
    import tensorflow as tf

    from tfdml.bundle import Embedder

    if threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError:
            if tf.config.threading.get_intra_op_parallelism_threads() != threads:
                log.warning("TensorFlow runs already; its number of threads can no longer be set to %d", threads)
    model: Any = Embedder(path, verify=False, batch_size=batch)
    return model
