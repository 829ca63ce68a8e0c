"""Rolling out, refusing and rolling back, with bundles on the disk and models that see every version its own way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from serving_runs import DIMENSION, eventually, load_fake, picture, publish, run, vectors
from stand_in import StandIn
from tfdml_serving.embedding import EmbeddedModels, Limits, TFServingREST
from tfdml_serving.errors import Conflict, EmbedderUnavailable, UnknownVersion
from tfdml_serving.living import LivingCatalogue
from tfdml_serving.rollout.pin import NAME
from tfdml_serving.rollout.versions import Versions
from tfdml_serving.settings import Settings

LIMITS = Limits(deadline=20.0, check_every=0.0, backoff=0.001, pause=0.05)


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "products"
    publish(directory, 1)
    return directory


@contextlib.asynccontextmanager
async def following(directory: Path, embedder=None, living=None, **settings):
    """Versions of a directory, with models in the process unless an embedder is given."""
    embedder = embedder or EmbeddedModels(load=load_fake_embedder)
    options = {"poll_seconds": 0.02, "keep_versions": 1, **settings}
    versions = Versions(Settings(directory, **options), embedder, living)
    await versions.start()
    try:
        yield versions, embedder
    finally:
        await versions.stop()
        await embedder.aclose()


def load_fake_embedder(path: Path):
    model = load_fake(path)

    class Embedder:
        def try_embed(self, files):
            outputs = model.run("serving_default", {"image_bytes": np.array(files, object)})
            return outputs["embedding"], outputs["valid"]

    return Embedder()


def states(versions: Versions) -> dict[int, str]:
    return {state.version: state.state for state in versions.list()}


def current(versions: Versions) -> int | None:
    return next((version for version, state in states(versions).items() if state == "current"), None)


def reason(versions: Versions, version: int) -> str | None:
    return next(state.reason for state in versions.list() if state.version == version)


async def found(versions: Versions, embedder, number: int = 3, version: int | None = None) -> tuple[int, str]:
    """The version that answers, and the item that it finds for a picture of its own item."""
    with versions.lease(version) as held:
        embeddings, _ = await embedder.embed([picture(number)], held.version)
        return held.version, held.search(embeddings, 1)[0][0].id


def test_a_new_version_comes_and_old_ones_go(directory):
    async def test():
        async with following(directory) as (versions, embedder):
            with pytest.raises(EmbedderUnavailable, match="No version is ready"), versions.lease():
                pass
            await eventually(lambda: current(versions) == 1)
            assert await found(versions, embedder) == (1, "item/3")
            assert versions.list()[0].items == 40
            assert versions.list()[0].created
            with versions.lease() as old:
                publish(directory, 2)
                await eventually(lambda: current(versions) == 2)
                publish(directory, 3)
                await eventually(lambda: states(versions) == {1: "available", 2: "held", 3: "current"})
                with pytest.raises(UnknownVersion, match="does not hold it; it holds 2, 3"), versions.lease(1):
                    pass
                assert await found(versions, embedder, 5, version=2) == (2, "item/5")
                # The version that a request began with is there until it ends, its model too, and closed then.
                embeddings, _ = await embedder.embed([picture(7)], old.version)
                assert old.search(embeddings, 1)[0][0].id == "item/7"
            assert old._closed.is_set()
            while await embedder.loaded() != {2, 3}:
                await asyncio.sleep(0.01)

    run(test)


def damaged_index(directory: Path) -> str:
    path = publish(directory, 2, hidden=True) / "assets.extra/retrieval/index.ann"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "index.ann: its SHA-256 is not that"


def truncated_model(directory: Path) -> str:
    path = publish(directory, 2, hidden=True) / "variables/variables.index"
    path.write_bytes(path.read_bytes()[:-1])
    return "truncated"


def no_manifest(directory: Path) -> str:
    (publish(directory, 2, hidden=True) / "assets.extra/retrieval/manifest.json").unlink()
    return "not a bundle"


def another_dimension(directory: Path) -> str:
    publish(directory, 2, hidden=True, dimension=DIMENSION + 1)
    return "the bundle says float"


def unloadable_model(directory: Path) -> str:
    publish(directory, 2, hidden=True, model_bytes=b"damaged")
    return "could not load version 2: the graph cannot be read"


@pytest.mark.parametrize("spoil", [damaged_index, truncated_model, no_manifest, another_dimension, unloadable_model])
def test_a_bad_version_is_refused_until_it_changes(directory, spoil):
    with StandIn(directory, load_fake, policy=("latest", 3)) as server:

        async def test():
            embedder = TFServingREST(server.url, "products", LIMITS)
            async with following(directory, embedder) as (versions, _):
                await eventually(lambda: current(versions) == 1)
                text = spoil(directory)
                os.rename(directory / ".2", directory / "2")
                await eventually(lambda: states(versions).get(2) == "refused")
                assert text in reason(versions, 2)
                opened = versions._opened
                versions._opened = None  # it would fail if it were looked at again
                await asyncio.sleep(0.3)
                versions._opened = opened
                assert states(versions) == {1: "current", 2: "refused"}
                assert await found(versions, embedder) == (1, "item/3")
                with pytest.raises(UnknownVersion, match="refused"), versions.lease(2):
                    pass
                with pytest.raises(Conflict, match="refused"):
                    await versions.pin(2)
                shutil.rmtree(directory / "2")
                if spoil is unloadable_model:
                    await eventually(lambda: server.manager.servables[2].state == 50)
                    del server.manager.servables[2]  # a real one wants another number
                publish(directory, 2)
                await eventually(lambda: current(versions) == 2)
                assert await found(versions, embedder) == (2, "item/3")

        run(test)


def test_it_starts_with_the_best_that_is_good(directory):
    publish(directory, 2)
    damaged = publish(directory, 3) / "assets.extra/retrieval/catalogue.sqlite"
    damaged.write_bytes(damaged.read_bytes()[:-100])

    async def test():
        async with following(directory) as (versions, embedder):
            await eventually(lambda: states(versions) == {1: "held", 2: "current", 3: "refused"})
            assert await found(versions, embedder) == (2, "item/3")

    run(test)


def test_a_version_waits_for_its_model(directory):
    with StandIn(directory, load_fake, policy=("specific", [1])) as server:

        async def test():
            embedder = TFServingREST(server.url, "products", LIMITS)
            async with following(directory, embedder, load_seconds=60.0) as (versions, _):
                await eventually(lambda: current(versions) == 1)
                publish(directory, 2)
                await eventually(lambda: states(versions).get(2) == "loading" and "does not know" in reason(versions, 2))
                assert await found(versions, embedder) == (1, "item/3")
                server.stop()
                await eventually(lambda: "cannot be reached" in reason(versions, 2))
                server.manager.policy = ("all",)
                server.start()
                await eventually(lambda: current(versions) == 2)

        run(test)


def test_a_model_that_never_comes_is_refused(directory):
    publish(directory, 2)
    with StandIn(directory, load_fake, policy=("specific", [1])) as server:

        async def test():
            embedder = TFServingREST(server.url, "products", LIMITS)
            async with following(directory, embedder, load_seconds=0.2) as (versions, _):
                await eventually(lambda: states(versions) == {1: "current", 2: "refused"})
                assert "still: TF-Serving" in reason(versions, 2)
                assert await found(versions, embedder) == (1, "item/3")

        run(test)


def test_rolling_back_and_returning(directory):
    for version in (2, 3):
        publish(directory, version)

    async def test():
        async with following(directory, keep_versions=2) as (versions, embedder):
            await eventually(lambda: states(versions) == {1: "held", 2: "held", 3: "current"})
            await versions.pin(2)
            assert (current(versions), versions.pinned) == (2, 2)  # at once: it was held
            assert await found(versions, embedder) == (2, "item/3")
            publish(directory, 4)
            await eventually(lambda: 4 in states(versions))
            await asyncio.sleep(0.1)
            assert current(versions) == 2
            with pytest.raises(UnknownVersion, match="not in the model directory"):
                await versions.pin(9)
        # The decision outlives the service.
        async with following(directory) as (versions, embedder):
            await eventually(lambda: current(versions) == 2)
            assert versions.pinned == 2
            await versions.unpin()
            await eventually(lambda: current(versions) == 4)
            # Another node, or the command line, decides: a file is all.
            (directory / NAME).write_text(json.dumps({"version": 3}))
            await eventually(lambda: current(versions) == 3)
            (directory / NAME).write_text("{")
            await asyncio.sleep(0.1)
            assert current(versions) == 3  # nobody can tell what was meant: all stays
            (directory / NAME).unlink()
            await eventually(lambda: current(versions) == 4)

    run(test)


def test_rolling_back_to_what_tf_serving_has_let_go(directory):
    publish(directory, 2)
    with StandIn(directory, load_fake, policy=("all",)) as server:

        async def test():
            embedder = TFServingREST(server.url, "products", LIMITS)
            async with following(directory, embedder) as (versions, _):
                await eventually(lambda: states(versions) == {1: "held", 2: "current"})
                server.manager.policy = ("latest", 1)
                await eventually(lambda: server.manager.servables[1].state == 50)
                await versions.pin(1)
                await eventually(lambda: "as END" in str(reason(versions, 1)))
                assert await found(versions, embedder) == (2, "item/3")
                server.manager.policy = ("specific", [1, 2])
                await eventually(lambda: current(versions) == 1)
                assert await found(versions, embedder) == (1, "item/3")

        run(test)


def test_a_pinned_version_that_is_damaged(directory, tmp_path):
    publish(directory, 3)
    (publish(directory, 2) / "saved_model.pb").write_bytes(b"other")
    state = tmp_path / "state" / "pin.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"version": 2}))

    async def test():
        async with following(directory, state=state) as (versions, _):
            await eventually(lambda: current(versions) == 1)  # never the one that was rolled back from
            assert states(versions)[2] == "refused"
            await versions.pin(3)
            await eventually(lambda: current(versions) == 3)
            assert json.loads(state.read_text())["version"] == 3
            assert not (directory / NAME).exists()
            state.parent.chmod(0o500)
            if os.geteuid() != 0:
                with pytest.raises(Conflict, match="cannot be kept"):
                    await versions.unpin()
            state.parent.chmod(0o700)

    run(test)


def test_a_decision_that_cannot_be_kept(directory, tmp_path):
    (tmp_path / "file").write_text("")

    async def test():
        async with following(directory, state=tmp_path / "file" / "pin.json") as (versions, _):
            await eventually(lambda: current(versions) == 1)
            with pytest.raises(Conflict, match=r"cannot be kept in .*file/pin.json.*'state'"):
                await versions.pin(1)
            assert versions.pinned is None

    run(test)


def test_a_withdrawn_version(directory):
    publish(directory, 2)

    async def test():
        async with following(directory) as (versions, embedder):
            await eventually(lambda: current(versions) == 2)
            shutil.rmtree(directory / "2")
            await eventually(lambda: states(versions) == {1: "current"})
            assert await found(versions, embedder) == (1, "item/3")
            shutil.move(directory, directory.with_name("elsewhere"))
            await asyncio.sleep(0.1)
            assert await found(versions, embedder) == (1, "item/3")  # what is open serves on

    run(test)


def test_one_version_directory(directory):
    publish(directory, 2)

    async def test():
        async with following(directory / "1") as (versions, embedder):
            await eventually(lambda: current(versions) == 1)
            assert states(versions) == {1: "current"}
            assert await found(versions, embedder) == (1, "item/3")

    run(test)


def test_memory_policy(directory):
    for version in (2, 3):
        publish(directory, version)
    size = sum(path.stat().st_size for path in (directory / "2").rglob("*") if path.is_file())

    async def test():
        async with following(directory, keep_versions=5, held_bytes=int(1.5 * size)) as (versions, _):
            await eventually(lambda: states(versions) == {1: "available", 2: "held", 3: "current"})

    run(test)


def test_old_versions_are_removed(directory):
    for version in (2, 3, 4, 5):
        publish(directory, version)
    with StandIn(directory, load_fake, policy=("specific", [1, 4, 5])) as server:

        async def test():
            embedder = TFServingREST(server.url, "products", LIMITS)
            async with following(directory, embedder, keep_on_disk=2, state=directory / NAME) as (versions, _):
                await eventually(lambda: current(versions) == 5)
                # TF-Serving still has 1.
                await eventually(lambda: sorted(path.name for path in directory.iterdir()) == ["1", "4", "5"])
                server.manager.policy = ("latest", 2)
                await eventually(lambda: sorted(path.name for path in directory.iterdir()) == ["4", "5"])
                await versions.pin(4)
                server.manager.policy = ("all",)
                publish(directory, 6)
                publish(directory, 7)
                await asyncio.sleep(0.3)
                assert (directory / "4").exists()
                assert current(versions) == 4

        run(test)


def test_nothing_is_removed_unless_asked(directory):
    async def test():
        for version in range(2, 7):
            publish(directory, version)
        async with following(directory) as (versions, _):
            await eventually(lambda: current(versions) == 6)
            await asyncio.sleep(0.1)
            assert sorted(path.name for path in directory.iterdir()) == list("123456")

    run(test)


def test_added_items_are_embedded_anew_before_a_new_model_serves(directory, tmp_path):
    async def test():
        with LivingCatalogue.open(tmp_path / "living.sqlite") as living:
            async with following(directory, living=living) as (versions, _):
                await eventually(lambda: current(versions) == 1)
                with versions.lease() as held:
                    for number, image in ((38, picture(38)), (39, b"not a picture")):
                        vector = vectors(1)[number] + 50
                        living.put(f"new/{number}", {}, space=held.space, embedding=vector, image=image, thumbnail=None)
                    assert held.search(vectors(1)[38] + 50, 1)[0][0].id == "new/38"
                publish(directory, 2)
                await eventually(lambda: current(versions) == 2)
                with versions.lease() as held:
                    assert {hit.id for hit in held.search(vectors(2)[38], 2)[0]} == {"item/38", "new/38"}
                    assert held.unembedded() == [("new/39", 2)]

    run(test)
