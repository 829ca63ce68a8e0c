"""The models in this process: batches of what waits, and two versions side by side. Most of it needs no TensorFlow."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import encoded, gallery_images
from serving_runs import DIMENSION, number_of, picture, run, vectors
from tfdml_serving.embedding import EmbeddedModels, ModelRefused, ModelVersion
from tfdml_serving.errors import EmbedderUnavailable, Overloaded

from tfdml.bundle import BundleError


class Gated:
    """A model that notes its batches, and waits in each until it is let go."""

    def __init__(self, version: int = 1) -> None:
        self.vectors = vectors(version)
        self.batches: list[list[bytes]] = []
        self.go = threading.Event()
        self.go.set()

    def try_embed(self, files):
        self.batches.append(list(files))
        assert self.go.wait(60)
        if b"poison" in files:
            raise RuntimeError("out of memory")
        numbers = [number_of(file) for file in files]
        valid = np.array([number is not None for number in numbers])
        return self.vectors[[number or 0 for number in numbers]] * valid[:, None], valid


def version_of(number: int = 1, dimension: int = DIMENSION) -> ModelVersion:
    return ModelVersion(number, Path(str(number)), dimension)


async def started(model: Gated, **options) -> EmbeddedModels:
    embedder = EmbeddedModels(load=lambda path: model, **options)
    await embedder.prepare(version_of())
    model.batches.clear()
    return embedder


async def until_waiting(model: Gated, batches: int = 1) -> None:
    while len(model.batches) < batches:
        await asyncio.sleep(0.001)


def test_what_waits_is_one_batch():
    async def test():
        model = Gated()
        embedder = await started(model, batch=8)
        model.go.clear()
        first = asyncio.create_task(embedder.embed([picture(0)], 1))
        await until_waiting(model)  # alone: it waited for nobody
        others = [asyncio.create_task(embedder.embed([picture(2 * n), b"none"], 1)) for n in range(1, 7)]
        await asyncio.sleep(0)
        model.go.set()
        found, _ = await first
        np.testing.assert_array_equal(found, vectors(1)[:1])
        for n, answer in enumerate(await asyncio.gather(*others), 1):
            assert answer[1].tolist() == [True, False]
            np.testing.assert_array_equal(answer[0], np.stack([vectors(1)[2 * n], np.zeros(DIMENSION)]))
        assert [len(batch) for batch in model.batches] == [1, 8, 4]
        await embedder.aclose()

    run(test)


def test_a_lone_request_goes_on_in_the_models_thread_and_holds_up_nobody():
    async def test():
        model = Gated()
        embedder = await started(model)
        places = []

        def then(found, valid):
            places.append(threading.current_thread().name)
            if not valid[0]:
                raise LookupError("nothing to look for")
            return found[0].tolist()

        _, valid, more = await embedder.embed_then([picture(3)], 1, then)
        assert (valid.tolist(), more) == ([True], vectors(1)[3].tolist())
        with pytest.raises(LookupError, match="nothing to look for"):
            await embedder.embed_then([b"none"], 1, then)
        assert len(places) == 2
        assert all(place.startswith("tfdml-embed") for place in places)

        model.batches.clear()
        model.go.clear()
        first = asyncio.create_task(embedder.embed_then([picture(0)], 1, then))
        await until_waiting(model)
        others = [asyncio.create_task(embedder.embed_then([picture(n)], 1, then)) for n in (1, 2)]
        await asyncio.sleep(0)
        model.go.set()
        for number, (found, _, more) in enumerate(await asyncio.gather(first, *others)):
            np.testing.assert_array_equal(found[0], vectors(1)[number])
            assert more is None  # the first had others behind it, and they were two
        assert len(places) == 2
        await embedder.aclose()

    run(test)


def test_one_that_breaks_the_model_fails_alone():
    async def test():
        model = Gated()
        embedder = await started(model)
        model.go.clear()
        tasks = [asyncio.create_task(embedder.embed([data], 1)) for data in (picture(0), picture(1), b"poison", picture(2))]
        await until_waiting(model)
        await asyncio.sleep(0)
        model.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(answer, EmbedderUnavailable) for answer in answers] == [False, False, True, False]
        np.testing.assert_array_equal(answers[3][0][0], vectors(1)[2])
        await embedder.aclose()

    run(test)


def test_callers_that_give_up_are_not_embedded_for():
    async def test():
        model = Gated()
        embedder = await started(model, deadline=0.2)
        model.go.clear()
        with pytest.raises(EmbedderUnavailable, match=r"did not answer within 0\.2 s"):
            await embedder.embed([picture(0)], 1)
        late = [asyncio.create_task(embedder.embed([picture(n)], 1)) for n in (1, 2)]
        await asyncio.sleep(0)
        late[0].cancel()
        await asyncio.sleep(0)
        model.go.set()
        np.testing.assert_array_equal((await late[1])[0][0], vectors(1)[2])
        assert model.batches[1:] == [[picture(2)]]
        await embedder.aclose()

    run(test)


def test_too_many_waiting_are_refused_at_once():
    async def test():
        model = Gated()
        embedder = await started(model, queue=3)
        model.go.clear()
        running = asyncio.create_task(embedder.embed([picture(0)], 1))
        await until_waiting(model)
        waiting = [asyncio.create_task(embedder.embed([picture(n)], 1)) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="3 images wait"):
            await embedder.embed([picture(4)], 1)
        model.go.set()
        await asyncio.gather(running, *waiting)
        await embedder.embed([picture(n) for n in range(5)], 1)  # more than the queue holds, and nothing waits
        await embedder.aclose()

    run(test)


def test_two_versions_and_the_old_one_is_freed():
    async def test():
        models = {1: Gated(1), 2: Gated(2)}
        loads = []

        def load(path: Path):
            loads.append(path.name)
            return models[int(path.name)]

        embedder = EmbeddedModels(load=load)
        with pytest.raises(EmbedderUnavailable, match="version 1 is not loaded"):
            await embedder.check(1)
        await asyncio.gather(*[embedder.prepare(version_of(1)) for _ in range(3)], embedder.prepare(version_of(2)))
        assert sorted(loads) == ["1", "2"]
        for version in (1, 2):
            await embedder.check(version)
            np.testing.assert_array_equal((await embedder.embed([picture(9)], version))[0][0], vectors(version)[9])
        assert await embedder.loaded() == {1, 2}
        gone = weakref.ref(models.pop(1))
        await embedder.release(1)
        await embedder.release(7)
        with pytest.raises(EmbedderUnavailable, match=r"version 1 is not loaded; loaded are \[2\]"):
            await embedder.embed([picture(9)], 1)
        await embedder.embed([picture(9)], 2)
        gc.collect()
        assert gone() is None
        await embedder.aclose()

    run(test)


def test_what_cannot_be_loaded():
    async def test():
        def damaged(path):
            raise BundleError("the model cannot be loaded")

        with pytest.raises(ModelRefused, match="cannot be loaded"):
            await EmbeddedModels(load=damaged).prepare(version_of())

        def without_tensorflow(path):
            raise ImportError("No module named 'tensorflow'")

        with pytest.raises(EmbedderUnavailable, match="TensorFlow cannot be imported") as error:
            await EmbeddedModels(load=without_tensorflow).prepare(version_of())
        assert not isinstance(error.value, ModelRefused)
        embedder = EmbeddedModels(load=lambda path: Gated())
        with pytest.raises(ModelRefused, match=r"\[1, 6\]; the bundle says float \[1, 5\]"):
            await embedder.prepare(version_of(dimension=5))
        await embedder.prepare(version_of())  # the failure is not kept
        await embedder.aclose()

    run(test)


def test_a_real_bundle():
    golden = Path(__file__).resolve().parents[1] / "bundle" / "golden_2"
    files = [encoded(gallery_images()[number]) for number in (0, 7, 20)]
    with np.load(golden / "expected.npz") as kept:
        truth = kept["embeddings"]

    async def test():
        embedder = EmbeddedModels(threads=2)
        await embedder.prepare(ModelVersion(1, golden / "1", 6))
        answers = await asyncio.gather(*[embedder.embed([file, b"no image"], 1) for file in files])
        for answer, expected in zip(answers, truth, strict=True):
            assert answer[1].tolist() == [True, False]
            np.testing.assert_allclose(answer[0], np.stack([expected, 0 * expected]), atol=1e-5)
        await embedder.aclose()

    run(test)


def test_nothing_here_imports_tensorflow():
    code = (
        "import sys, tfdml_serving.embedding, tfdml_serving.rollout;"
        "from tfdml_serving.embedding import TFServingGRPC, EmbeddedModels; EmbeddedModels();"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
