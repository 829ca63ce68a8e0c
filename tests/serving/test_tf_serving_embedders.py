"""Asking TF-Serving for embeddings, by REST and by gRPC, over real sockets: well, badly, and not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from serving_runs import DIMENSION, load_fake, make_model_directory, picture, run, vectors
from stand_in import BROKEN, BUSY, StandIn
from tfdml_serving.embedding import EmbedderBusy, Limits, ModelRefused, ModelVersion, TFServingGRPC, TFServingREST, WrongAnswer
from tfdml_serving.errors import EmbedderUnavailable

QUICK = Limits(deadline=20.0, backoff=0.001, pause=0.05, check_every=0.0)


@pytest.fixture
def directory(tmp_path):
    for version in (1, 2):
        make_model_directory(tmp_path / str(version))
    return tmp_path


@pytest.fixture
def server(directory):
    with StandIn(directory, load_fake, policy=("latest", 2)) as server:
        yield server


@pytest.fixture(params=[TFServingREST, TFServingGRPC], ids=["rest", "grpc"])
def language(request):
    return request.param


@contextlib.asynccontextmanager
async def asking(language, server: StandIn, limits: Limits = QUICK, versions=(1, 2)):
    address = server.url if language is TFServingREST else server.grpc_address
    embedder = language(address, "products", limits)
    try:
        for version in versions:
            await embedder.prepare(ModelVersion(version, Path("unused"), DIMENSION))
        yield embedder
    finally:
        await embedder.aclose()


def test_exactly_the_version_asked_for(language, server):
    async def test():
        async with asking(language, server) as embedder:
            for version in (1, 2):
                found, valid = await embedder.embed([picture(3), b"no picture", picture(5)], version)
                assert found.dtype == np.float32
                assert valid.tolist() == [True, False, True]
                expected = vectors(version)[[3, 3, 5]] * valid[:, None]
                np.testing.assert_array_equal(found, expected.astype(np.float32))
            with pytest.raises(EmbedderUnavailable, match=r"version 7 .*does not serve this version: .*Servable not found"):
                await embedder.embed([picture(1)], 7)
            assert (await embedder.embed([], 1))[0].shape == (0, DIMENSION)

    run(test)


def test_many_at_once(language, server):
    async def test():
        async with asking(language, server) as embedder:
            asked = [(number % 40, 1 + number % 2) for number in range(200)]
            answers = await asyncio.gather(*[embedder.embed([picture(number)], version) for number, version in asked])
            for (number, version), (found, _) in zip(asked, answers, strict=True):
                np.testing.assert_array_equal(found[0], vectors(version)[number])

    run(test)


def test_large_batches_go_in_parts(language, server):
    async def test():
        limits = Limits(deadline=20.0, batch=16, batch_bytes=4000)
        async with asking(language, server, limits) as embedder:
            before = server.predictions
            found, valid = await embedder.embed([picture(number) for number in range(40)], 1)
            assert server.predictions - before == 3
            assert valid.all()
            np.testing.assert_array_equal(found, vectors(1))
            await embedder.embed([picture(1) + b" " * 3000] * 3, 1)  # by their size
            assert server.predictions - before == 6

    run(test)


def test_large_files_and_embeddings(language, tmp_path):
    """More than the 4 MB that gRPC takes by itself, in both directions."""
    from stand_in_models import FakeModel

    make_model_directory(tmp_path / "1")
    with StandIn(tmp_path, lambda path: FakeModel(lambda data: np.full(100_000, len(data)), 100_000)) as server:

        async def test():
            async with asking(language, server, Limits(deadline=60.0, check_every=0.0), ()) as embedder:
                await embedder.prepare(ModelVersion(1, tmp_path, 100_000))
                found, _ = await embedder.embed([b"x" * (5 << 20)] + [b"y"] * 11, 1)
                assert found[:2, 7].tolist() == [5 << 20, 1]

        run(test)


def test_a_server_that_takes_smaller_batches(language, directory):
    with StandIn(directory, load_fake, policy=("latest", 2), max_batch_size=2) as server:

        async def test():
            async with asking(language, server) as embedder:
                found, valid = await embedder.embed([picture(1), b"none", picture(2)], 2)
                assert valid.tolist() == [True, False, True]
                np.testing.assert_array_equal(found[2], vectors(2)[2])

        run(test)


def nan(outputs):
    return {**outputs, "embedding": outputs["embedding"] * np.nan}


def infinite(outputs):
    return {**outputs, "embedding": outputs["embedding"] + np.float32(np.inf)}


def narrow(outputs):
    return {**outputs, "embedding": outputs["embedding"][:, :-1]}


def too_few(outputs):
    return {name: value[:-1] for name, value in outputs.items()}


def too_many(outputs):
    return {name: np.concatenate([value, value]) for name, value in outputs.items()}


def without_valid(outputs):
    return {**{name: value for name, value in outputs.items() if name != "valid"}, "other": outputs["valid"]}


def integers_for_valid(outputs):
    return {**outputs, "valid": outputs["valid"].astype(np.int32)}


def texts(outputs):
    return {**outputs, "embedding": np.full(outputs["embedding"].shape, b"1.5", object)}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan, "NaN or infinity"),
        (infinite, "NaN or infinity"),
        (narrow, r"\[1, 5\]; the bundle says float \[1, 6\]"),
        (too_few, "rows"),
        (too_many, "rows"),
        (without_valid, "'valid'|not found"),
        (integers_for_valid, "valid|type"),
        (texts, "<U|type"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_tensors_that_are_not_the_embeddings(language, server, spoil, reason):
    async def test():
        async with asking(language, server) as embedder:
            server.spoil_outputs = spoil
            with pytest.raises(WrongAnswer, match=reason) as error:
                await embedder.embed([picture(1)], 1)
            assert error.value.status == 503
            assert "version 1 of 'products'" in error.value.detail
            with pytest.raises(EmbedderUnavailable, match=reason):
                await embedder.check(1)
            with pytest.raises(ModelRefused, match=f"has version 2 available, but .*({reason})"):
                await embedder.prepare(ModelVersion(2, Path("unused"), DIMENSION))
            server.spoil_outputs = None
            await embedder.check(1)
            await embedder.embed([picture(1)], 1)

    run(test)


BODIES = {
    "html": (200, b"<html><body>502 Bad Gateway</body></html>", "not JSON"),
    "gateway": (502, b"<html>", "HTTP 502"),
    "empty": (200, b"", "not JSON"),
    "truncated": (200, None, "not JSON"),
    "latin": (200, b'{"predictions": "\xff\xfe"}', "not JSON"),
    "deep": (200, b"[" * 4_000, "not JSON"),
    "list": (200, b"[1, 2]", "JSON list"),
    "another object": (200, b'{"outputs": []}', "no list 'predictions'"),
    "null": (200, b'{"predictions": null}', "no list 'predictions'"),
    "plain rows": (200, b'{"predictions": [[1, 2, 3, 4, 5, 6]]}', "no 'embedding' and 'valid'"),
    "strings": (200, b'{"predictions": [{"embedding": ["1", "2", "3", "4", "5", "6"], "valid": true}]}', "<U1"),
    "nested": (200, b'{"predictions": [{"embedding": [[1], [2], [3], [4], [5], [6]], "valid": true}]}', "float"),
    "ragged": (200, b'{"predictions": [{"embedding": [1, [2], 3, 4, 5, 6], "valid": true}]}', "different lengths"),
    "huge numbers": (200, b'{"predictions": [{"embedding": [1e99, 2, 3, 4, 5, 6], "valid": true}]}', "NaN or infinity"),
    "huge integers": (200, b'{"predictions": [{"embedding": [1%s, 2, 3, 4, 5, 6], "valid": true}]}' % (b"0" * 99), "object"),
    "huge": (200, b'{"predictions": [' + b" " * 10_000_000, "longer than the"),
    "moved": (301, b"", "HTTP 301"),
    "unauthorised": (401, b'{"error": "who are you"}', "HTTP 401: 'who are you'"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_not_an_answer(server, name):
    status, body, reason = BODIES[name]

    async def test():
        async with asking(TFServingREST, server) as embedder:
            server.spoil = lambda _, good: (status, good[:-9] if body is None else body)
            with pytest.raises(EmbedderUnavailable, match=reason) as error:
                await embedder.embed([picture(1)], 1)
            assert len(error.value.detail) < 500
            server.spoil = None
            await embedder.embed([picture(1)], 1)

    run(test)


def test_no_image_gets_into_a_message(server):
    async def test():
        async with asking(TFServingREST, server) as embedder:
            secret = "c2VjcmV0" * 20
            server.spoil = lambda _, __: (400, json.dumps({"error": f"JSON Value: {secret} is not"}).encode())
            with pytest.raises(WrongAnswer, match=r"JSON Value: \[\.\.\.\] is not") as error:
                await embedder.embed([picture(1)], 1)
            assert "c2Vj" not in error.value.detail

    run(test)


def test_stopped_and_back(language, server):
    async def test():
        async with asking(language, server) as embedder:
            await embedder.check(1)
            server.stop()
            for _ in range(12):  # the breaker opens meanwhile
                with pytest.raises(EmbedderUnavailable) as error:
                    await embedder.embed([picture(1)], 1)
                assert error.value.retry_after
            with pytest.raises(EmbedderUnavailable, match=r"cannot be reached|left alone"):
                await embedder.check(1)
            assert await embedder.loaded() is None
            server.start()
            while True:  # nobody but the check asks, and it heals
                try:
                    await embedder.check(1)
                    break
                except EmbedderUnavailable:
                    await asyncio.sleep(0.02)
            found, _ = await embedder.embed([picture(2)], 1)
            np.testing.assert_array_equal(found[0], vectors(1)[2])
            assert await embedder.loaded() == {1, 2}

    run(test)


def test_slow_ends_at_the_deadline(language, server):
    async def test():
        async with asking(language, server, Limits(deadline=0.3, pause=30.0, check_every=0.0), ()) as embedder:
            server.delay = 60.0
            for _ in range(5):
                with pytest.raises(EmbedderUnavailable, match=r"no answer (in time|within 0\.3 s)"):
                    await embedder.embed([picture(1)], 1)
            asked = server.predictions
            with pytest.raises(EmbedderUnavailable, match=r"left alone for .* after 5 failures"):
                await embedder.embed([picture(1)], 1)
            assert server.predictions == asked  # refused without asking
            assert embedder._breakers[1].open

    run(test)


def test_busy_is_retried_and_opens_no_breaker(language, server):
    async def test():
        async with asking(language, server) as embedder:
            server.fail = BUSY
            asked = server.predictions
            for _ in range(6):
                with pytest.raises(EmbedderBusy, match="queue"):
                    await embedder.embed([picture(1)], 1)
            assert server.predictions == asked + 6 * 3
            server.fail = None
            await embedder.embed([picture(1)], 1)
            server.fail = BROKEN
            asked = server.predictions
            with pytest.raises(EmbedderUnavailable, match="Something is broken"):
                await embedder.embed([picture(1)], 1)
            assert server.predictions == asked + 1

    run(test)


def test_what_prepare_says_of_a_version(language, directory, tmp_path):
    (make_model_directory(directory / "3") / "saved_model.pb").write_bytes(b"damaged")
    (make_model_directory(directory / "4") / "variables").rmdir()
    with StandIn(directory, load_fake, policy=("all",)) as server:

        async def test():
            async with asking(language, server) as embedder:
                with pytest.raises(ModelRefused, match="could not load version 3: the graph cannot be read"):
                    await embedder.prepare(ModelVersion(3, Path("unused"), DIMENSION))
                with pytest.raises(ModelRefused, match=r"has version 4 available, but it refuses the request: .*variable"):
                    await embedder.prepare(ModelVersion(4, Path("unused"), DIMENSION))
                with pytest.raises(EmbedderUnavailable, match="does not know version 5") as error:
                    await embedder.prepare(ModelVersion(5, Path("unused"), DIMENSION))
                assert not isinstance(error.value, ModelRefused)
                with pytest.raises(ModelRefused, match=r"\[1, 6\]; the bundle says float \[1, 7\]"):
                    await embedder.prepare(ModelVersion(2, Path("unused"), DIMENSION + 1))
                assert await embedder.loaded() == {1, 2, 4}

        run(test)


def test_an_unknown_model(language, server):
    async def test():
        address = server.url if language is TFServingREST else server.grpc_address
        embedder = language(address, "others", QUICK)
        with pytest.raises(EmbedderUnavailable, match="does not know version 1 of the model 'others'"):
            await embedder.prepare(ModelVersion(1, Path("unused"), DIMENSION))
        await embedder.aclose()

    run(test)
