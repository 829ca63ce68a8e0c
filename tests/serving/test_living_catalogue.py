"""The living catalogue: durable, in order, told to whoever follows, and clear about what is wrong with its file."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tfdml_serving.errors import BadRequest, Conflict, NotWritable, UnknownItem
from tfdml_serving.living import LivingCatalogue, LivingCatalogueError
from tfdml_serving.living.records import NoSpaceLeftError

from tfdml.bundle import FoldedRecord

ONES = np.ones(4, np.float32)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "living.sqlite"


@pytest.fixture
def living(path):
    with LivingCatalogue.open(path) as opened:
        yield opened


def state(living, **options):
    return [(e.sequence, e.kind, e.id, dict(e.fields)) for e in living.entries(space="s", **options)]


def test_what_was_put_is_there_after_opening_again(path):
    fields = {"text": "Käse 🧀", "whole": 2**63 - 1, "real": 0.1, "none": None, "true": True}
    kept = {**fields, "true": 1}
    with LivingCatalogue.open(path) as living:
        name = living.name
        assert living.put("a/b", fields, space="s", embedding=[1.5, -2, 0, 3], image=b"image", thumbnail=b"small") == 1
        assert living.put("c", {}, space="t", embedding=ONES) == 2
        assert state(living) == [(1, "put", "a/b", kept), (2, "put", "c", {})]
    assert sorted(os.listdir(path.parent)) == [path.name, path.name + ".lock"]
    with LivingCatalogue.open(path) as living:
        assert (living.name, living.sequence, living.forgotten) == (name, 2, 0)
        first, second = living.entries(space="s")
        assert (first.embedding.tolist(), first.has_thumbnail) == ([1.5, -2, 0, 3], True)
        assert (second.embedding, second.has_thumbnail) == (None, False)
        assert (living.image("a/b"), living.thumbnail("a/b"), living.image("c")) == (b"image", b"small", None)
        assert living.put("d", {}, space="s", embedding=ONES) == 3
        assert living.check() == 7


def test_of_each_item_the_last_state_is_kept(living):
    living.change("of the bundle", {"a": 1})
    living.change("of the bundle", {"b": 2})
    assert state(living) == [(2, "change", "of the bundle", {"a": 1, "b": 2})]
    living.put("x", {"a": 1}, space="s", embedding=ONES, image=b"first")
    living.change("x", {"a": 2})
    assert state(living, after=2) == [(3, "put", "x", {"a": 1}), (4, "change", "x", {"a": 2})]
    assert state(living, after=3) == [(4, "change", "x", {"a": 2})]
    living.put("x", {"a": 3}, space="t", embedding=ONES)
    assert state(living, after=2) == [(5, "put", "x", {"a": 3})]
    assert living.image("x") is None
    assert living.entries(space="s", after=4)[0].embedding is None
    living.remove("x")
    living.remove("of the bundle")
    assert state(living) == [(6, "remove", "x", {}), (7, "remove", "of the bundle", {})]
    for again in (lambda: living.remove("x"), lambda: living.change("x", {"a": 1})):
        with pytest.raises(UnknownItem, match="'x': this item was removed"):
            again()
    assert living.put("x", {}, space="s", embedding=ONES) > 7
    assert state(living, after=7, also=["of the bundle"])[0] == (7, "remove", "of the bundle", {})


def test_an_embedding_in_one_more_space(living):
    put_at = living.put("x", {}, space="s", embedding=ONES, image=b"image")
    living.put("y", {}, space="s", embedding=ONES)
    assert living.unembedded("t") == [("x", put_at)]
    assert living.unembedded("s") == []
    told = []
    living.follow(told.append, space="t", after=living.sequence)
    living.embed("x", put_at, space="t", embedding=[1, 2])
    assert living.unembedded("t") == []
    assert (told[0].kind, told[0].sequence, told[0].embedding.tolist()) == ("embed", put_at, [1, 2])
    assert living.entries(space="t")[0].embedding.tolist() == [1, 2]
    assert living.entries(space="s")[0].embedding.tolist() == [1, 1, 1, 1]
    living.put("x", {}, space="s", embedding=ONES, image=b"another")
    for name in ("x", "never"):
        with pytest.raises(Conflict, match="put anew or removed since"):
            living.embed(name, put_at, space="t", embedding=[1, 2])


def test_who_follows_is_told_everything_once_and_in_order(living):
    living.put("before", {}, space="s", embedding=ONES)
    told, also_told = [], []
    end = living.follow(lambda entry: told.append((entry.sequence, entry.id)), space="s")
    living.follow(lambda entry: (_ for _ in ()).throw(RuntimeError("a bad listener")), space="s", after=1)

    def work(thread):
        for number in range(20):
            sequence = living.put(f"{thread}-{number}", {}, space="s", embedding=ONES)
            assert (sequence, f"{thread}-{number}") in told  # before it was acknowledged

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    living.follow(lambda entry: also_told.append((entry.sequence, entry.id)), space="s")
    for thread in threads:
        thread.join()
    assert told == also_told
    assert [sequence for sequence, _ in told] == list(range(1, 122))
    end()
    living.remove("before")
    assert (len(told), len(also_told)) == (121, 122)
    living.check()


def test_changes_that_wait_together_are_flushed_together(living, monkeypatch):
    commits = []
    original = type(living._tables).transaction
    monkeypatch.setattr(type(living._tables), "transaction", lambda self: commits.append(1) or original(self))
    started = threading.Barrier(9)

    def work(number):
        started.wait()
        living.put(str(number), {}, space="s", embedding=ONES)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    with living._write_lock:
        for thread in threads:
            thread.start()
        started.wait()
        while len(living._waiting) < 8:
            pass
    for thread in threads:
        thread.join()
    assert (len(commits), living.sequence) == (1, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_id": ""}, "id: 0 characters; expected 1 to 1,000"),
        ({"item_id": "x" * 1001}, "id: 1,001 characters"),
        ({"item_id": 7}, "expected a string, not int"),
        ({"item_id": "a\0"}, "NUL"),
        ({"item_id": "\ud800"}, "not valid Unicode"),
        ({"fields": {"number": 1}}, "'number' is reserved"),
        ({"fields": {"a": 1, "A": 1}}, "differ only in case"),
        ({"fields": {"a": float("nan")}}, "finite number; use null"),
        ({"fields": {"a": 2**63}}, "does not fit in 64 bits"),
        ({"fields": {"a": [1]}}, "list cannot be stored"),
        ({"fields": {"a": "\0"}}, "NUL"),
        ({"fields": {"a": "x" * (1 << 20)}}, "more than 1,048,576 bytes"),
        ({"fields": "a"}, "expected names and values, not str"),
        ({"embedding": [1, float("inf")]}, "NaN or infinity"),
        ({"embedding": [1e300]}, "NaN or infinity"),
        ({"embedding": [[1, 2]]}, r"shape \(1, 2\); expected one vector"),
        ({"embedding": []}, r"shape \(0,\)"),
        ({"embedding": "abc"}, "expected a list of numbers"),
    ],
)
def test_what_cannot_be_kept_is_refused(living, change, message):
    given = {"item_id": "x", "fields": {}, "embedding": ONES, **change}
    with pytest.raises(BadRequest, match=message):
        living.put(given["item_id"], given["fields"], space="s", embedding=given["embedding"])
    assert (living.sequence, state(living)) == (0, [])


def test_a_full_disk_keeps_what_was_there_and_heals(living):
    living.put("before", {}, space="s", embedding=ONES)
    pages = living._tables._connection.execute("PRAGMA page_count").fetchone()[0]
    living._tables._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(NoSpaceLeftError, match=r"the disk is full\. The change was not kept") as caught:
        living.put("large", {}, space="s", embedding=ONES, image=bytes(100_000))
    assert caught.value.status == 507
    assert state(living) == [(1, "put", "before", {})]
    living._tables._connection.execute("PRAGMA max_page_count = 1000000")
    assert living.put("large", {}, space="s", embedding=ONES, image=bytes(100_000)) == 2
    living.check()


def test_only_one_process_writes_and_any_number_read(living, path):
    living.put("x", {}, space="s", embedding=ONES)
    with pytest.raises(LivingCatalogueError, match="another process writes to this living catalogue"):
        LivingCatalogue.open(path)
    with LivingCatalogue.open(path, writable=False) as reader:
        assert state(reader) == state(living)
        living.put("y", {}, space="s", embedding=ONES)
        assert state(reader) == state(living)
        assert reader.snapshot(space="s")[0] == 2
        with pytest.raises(NotWritable):
            reader.put("z", {}, space="s", embedding=ONES)
        with pytest.raises(NotWritable):
            reader.forget([FoldedRecord(living.name, 1)])


def test_a_lock_held_by_another_program(living, path, monkeypatch):
    living._tables._connection.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LivingCatalogueError, match="another program holds a lock") as caught:
        living.put("x", {}, space="s", embedding=ONES)
    assert caught.value.retry_after
    other.close()
    assert living.put("x", {}, space="s", embedding=ONES) == 1


def test_files_that_are_no_living_catalogue(tmp_path):
    with pytest.raises(LivingCatalogueError, match="there is no such living catalogue"):
        LivingCatalogue.open(tmp_path / "none", writable=False)
    with pytest.raises(LivingCatalogueError, match="is a directory"):
        LivingCatalogue.open(tmp_path)
    with pytest.raises(LivingCatalogueError, match="cannot be opened: No such file"):
        LivingCatalogue.open(tmp_path / "no" / "folder")
    (tmp_path / "text").write_text("a text file, and no database. " * 100)
    with pytest.raises(LivingCatalogueError, match="damaged: file is not a database"):
        LivingCatalogue.open(tmp_path / "text")
    with sqlite3.connect(tmp_path / "foreign") as connection:
        connection.execute("CREATE TABLE items (id)")
    connection.close()
    with pytest.raises(LivingCatalogueError, match="an SQLite file, but no living catalogue"):
        LivingCatalogue.open(tmp_path / "foreign")
    LivingCatalogue.open(tmp_path / "newer").close()
    with sqlite3.connect(tmp_path / "newer") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(LivingCatalogueError, match=r"schema version 2; this tfdml reads 1\. Upgrade"):
        LivingCatalogue.open(tmp_path / "newer")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE items SET fields = '{\"a\": 2}' WHERE id = 'x'",
        "UPDATE items SET sequence = 99 WHERE id = 'x'",
        "UPDATE items SET id = 'z' WHERE id = 'x'",
        "UPDATE changes SET fields = '{}'",
        "UPDATE embeddings SET embedding = zeroblob(16)",
        "UPDATE embeddings SET space = 't'",
        "UPDATE pictures SET thumbnail = image, image = thumbnail",
    ],
)
def test_a_damaged_value_is_noticed(path, damage):
    with LivingCatalogue.open(path) as living:
        living.put("x", {"a": 1}, space="s", embedding=ONES, image=b"image", thumbnail=b"small")
        living.change("x", {"b": 1})
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()
    with LivingCatalogue.open(path) as living, pytest.raises(LivingCatalogueError, match=r"damaged: .*Restore the file"):
        living.check()


def test_damage_ends_in_an_error_that_names_the_file(path):
    """Bytes changed anywhere: whatever is read is right, or refused."""
    with LivingCatalogue.open(path) as living:
        for number in range(60):
            living.put(
                f"item-{number}", {"a": number}, space="s", embedding=np.full(64, number), thumbnail=bytes([number]) * 50
            )
        good = state(living)
    data, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(60):
        broken = bytearray(data)
        start = rng.randrange(len(broken))
        broken[start : start + rng.choice([1, 64])] = rng.randbytes(min(64, len(broken) - start))[: rng.choice([1, 64])]
        path.write_bytes(broken[: rng.choice([len(broken), len(broken), rng.randrange(len(broken))])])
        try:
            with LivingCatalogue.open(path) as living:
                living.check()
                found = state(living)
        except LivingCatalogueError as error:
            refused += str(path) in str(error)
            found = good
        assert found == good
    assert refused > 30


def run_kills(path: Path, kills: int) -> dict:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(__file__).with_name("kill_writers.py")), str(path), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_acknowledged_is_lost_by_kill_9(path):
    report = run_kills(path, 20)
    assert report["lost"] == []
    assert report["acknowledged"] > 20


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill_9_at_200_moments(path):
    report = run_kills(path, 200)
    assert report["lost"] == []
    assert report["acknowledged"] > 200
    assert report["in_flight"] > 50
