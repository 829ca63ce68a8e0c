"""Writes to the service over HTTP, kills it with SIGKILL at a random moment, starts it again, and prints what was lost.

    python tests/serving/kill_service.py FOLDER [--kills 200] [--seed 0] [--json FILE]

Callers add items (by an embedding or by an image), change their fields and remove them, those of the bundle as well. A change
counts as acknowledged when its answer has arrived. After each restart the catalogue, listed over HTTP, must be the bundle with
every acknowledged change in it; a change that was on its way when the service died may be there or not, but not in part. What
was changed last must be found by searches, and what was removed must not. Then the file is checked through and through.

The service is a fork of this process, with uvicorn on a real socket; a second fork answers as TF-Serving does.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import http.client
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "serving"))

import numpy as np
from serving_runs import DIMENSION, load_fake, picture, publish, vectors
from tfdml_serving.api.server import run
from tfdml_serving.living import LivingCatalogue
from tfdml_serving.settings import Settings

CALLERS = 3
OWN_ITEMS = 6
BUNDLE_ITEMS = 40
_LONGEST_RUN = 0.25
_PATIENCE = 60.0


class State(NamedTuple):
    """What an item is: its fields, its embedding if it was put with one, and whether it has a picture."""

    title: str | None
    price: float | None
    vector: tuple[float, ...] | None
    pictured: bool


@dataclasses.dataclass
class Change:
    """One request that changes something: how it is sent, what it makes of a state, and the status that it must get."""

    method: str
    body: dict[str, Any] | None
    apply: Callable[[State | None], State | None]

    def status(self, before: State | None) -> int:
        if self.method == "PUT":
            return 201 if before is None else 200
        return 404 if before is None else 200 if self.method == "PATCH" else 204


@dataclasses.dataclass
class Outcome:
    """What one caller saw: the states that were acknowledged, and the change that got no answer."""

    known: dict[str, State | None]
    waiting: tuple[str, Change] | None = None
    touched: set[str] = dataclasses.field(default_factory=set)
    acknowledged: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    report = json.dumps(run_kills(arguments.folder, arguments.kills, arguments.seed), indent=2)
    print(report)
    if arguments.json:
        arguments.json.write_text(report + "\n")


def run_kills(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    products, living = folder / "products", folder / "living.sqlite"
    publish(products, 1)
    rng = random.Random(seed)
    known: dict[str, State | None] = {
        f"item/{number}": State(f"Thing {number}", 0.5 * number, tuple(vector), False)
        for number, vector in enumerate(vectors(1, BUNDLE_ITEMS).tolist())
    }
    found: dict[str, Any] = {"kills": kills, "seed": seed, "acknowledged": 0, "in_flight": 0, "in_flight_kept": 0, "lost": []}
    starts: list[float] = []
    outcomes: list[Outcome] = []
    began = time.perf_counter()
    with model_server(products) as address:
        settings = Settings(products, port=0, tf_serving=address, living=living, writable=True, poll_seconds=0.05)
        for kill in range(kills + 1):  # the last start is only looked at
            started = time.perf_counter()
            pid, port = start_service(settings)
            try:
                wait_ready(port)
                starts.append(time.perf_counter() - started)
                problems, kept = judged(port, known, outcomes)
                found["lost"] += [f"after kill {kill}: {problem}" for problem in problems]
                found["in_flight_kept"] += kept
                with LivingCatalogue.open(living, writable=False) as reader:
                    reader.check()
                outcomes = write_until_killed(pid, port, known, rng) if kill < kills else []
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            for outcome in outcomes:
                known |= outcome.known
                found["acknowledged"] += outcome.acknowledged
                found["in_flight"] += outcome.waiting is not None
                found["lost"] += [f"before kill {kill + 1}: {problem}" for problem in outcome.wrong]
    found["ready_s"] = {"median": round(float(np.median(starts)), 3), "max": round(max(starts), 3)}
    found["seconds"] = round(time.perf_counter() - began, 1)
    return found


# Processes: forked while no thread but this one runs.


def start_service(settings: Settings) -> tuple[int, int]:
    """A new process that serves: its id and its port."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            run(settings, listening=lambda url: os.write(writing, url.encode()) and os.close(writing))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        url = pipe.read()
    assert url, "the service ended before it listened"
    return pid, int(urlsplit(url).port or 0)


@contextlib.contextmanager
def model_server(products: Path) -> Iterator[str]:
    """Something that answers as TF-Serving does, in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            from stand_in import StandIn

            with StandIn(products, load_fake) as server:
                os.write(writing, server.url.encode())
                os.close(writing)
                while os.getppid() != 1:
                    time.sleep(0.5)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            yield pipe.read()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def wait_ready(port: int) -> None:
    end = time.monotonic() + _PATIENCE
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)) as connection:
        # /readyz answers what it found half a second ago.
        while ask(connection, "GET", "/v1/info")[0] != 200:
            assert time.monotonic() < end, "the service did not become ready"
            time.sleep(0.01)


# Writing


def write_until_killed(pid: int, port: int, known: dict[str, State | None], rng: random.Random) -> list[Outcome]:
    """Callers that write as fast as they are answered, until the process is killed."""
    outcomes = []
    threads = []
    for caller in range(CALLERS):
        names = [f"new/{caller}-{number}" for number in range(OWN_ITEMS)]
        names += [f"item/{number}" for number in range(caller, BUNDLE_ITEMS, CALLERS)]
        outcome = Outcome({name: known.get(name) for name in names})
        outcomes.append(outcome)
        threads.append(threading.Thread(target=_write, args=(port, outcome, random.Random(rng.random())), daemon=True))
    for thread in threads:
        thread.start()
    time.sleep(rng.uniform(0.0, _LONGEST_RUN))
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(_PATIENCE)
        assert not thread.is_alive()
    return outcomes


def _write(port: int, outcome: Outcome, rng: random.Random) -> None:
    names = list(outcome.known)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)) as connection:
        while True:
            name, change = rng.choice(names), random_change(rng)
            outcome.waiting = name, change
            outcome.touched.add(name)
            try:
                status, answer = ask(connection, change.method, f"/v1/items/{name}", change.body)
            except (OSError, http.client.HTTPException):
                return
            before = outcome.known[name]
            outcome.waiting = None
            if status != change.status(before):
                outcome.wrong.append(f"{change.method} {name}, which was {before}: {status} {answer}")
            if status < 300:
                outcome.known[name] = change.apply(before)
                outcome.acknowledged += 1


def random_change(rng: random.Random) -> Change:
    title, price = f"stamp {rng.getrandbits(48):x}", float(rng.randrange(1000))
    kind = rng.choice(["embedding", "embedding", "image", "change", "remove"])
    if kind == "remove":
        return Change("DELETE", None, lambda _: None)
    if kind == "change":
        return Change(
            "PATCH", {"fields": {"price": price}}, lambda before: None if before is None else before._replace(price=price)
        )
    fields = {"title": title, "price": price}
    if kind == "image":
        number = rng.randrange(BUNDLE_ITEMS)
        vector = tuple(vectors(1, BUNDLE_ITEMS)[number].tolist())
        image = base64.b64encode(picture(number)).decode()
        return Change("PUT", {"fields": fields, "image": image}, lambda _: State(title, price, vector, True))
    vector = tuple(np.array([rng.gauss(0, 1) for _ in range(DIMENSION)], np.float32).tolist())
    return Change("PUT", {"fields": fields, "embedding": vector}, lambda _: State(title, price, vector, False))


# Judging


def judged(port: int, known: dict[str, State | None], outcomes: list[Outcome]) -> tuple[list[str], int]:
    """What is not as it was acknowledged, and how many unanswered changes were kept. `known` is brought up to date."""
    problems = []
    kept = 0
    waiting = dict(outcome.waiting for outcome in outcomes if outcome.waiting is not None)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)) as connection:
        listed = everything(connection)
        for name in sorted({*known, *listed}):
            before = known.get(name)
            after = waiting[name].apply(before) if name in waiting else before
            there = listed.get(name)
            if there == _seen(before):
                continue
            if name in waiting and there == _seen(after):
                known[name] = after
                kept += 1
            else:
                problems.append(f"{name} is {there}, and was acknowledged as {before}; on its way: {after}")
        for name in sorted(set().union(*(outcome.touched for outcome in outcomes))):
            problems += searched(connection, name, known.get(name))
    return problems, kept


def everything(connection: http.client.HTTPConnection) -> dict[str, tuple[str | None, float | None, bool]]:
    found: dict[str, tuple[str | None, float | None, bool]] = {}
    after = ""
    while after is not None:
        status, answer = ask(connection, "GET", f"/v1/items?limit=25{after and '&after=' + after}")
        assert status == 200, answer
        for item in answer["items"]:
            assert item["id"] not in found
            found[item["id"]] = item["fields"]["title"], item["fields"]["price"], item["thumbnail"] is not None
        after = answer["next"]
    return found


def searched(connection: http.client.HTTPConnection, name: str, state: State | None) -> list[str]:
    """What a search by an item's embedding, and one for more like it, say that they must not."""
    status, _ = ask(connection, "POST", "/v1/search/item", {"id": name, "k": 1})
    if status != (404 if state is None else 200):
        return [f"more like {name}, which is {state}: {status}"]
    if state is None or state.vector is None:
        return []
    # Others may have been put with the same image.
    status, answer = ask(connection, "POST", "/v1/search/embedding", {"embedding": state.vector, "k": 100})
    hits = {hit["id"]: hit["distance"] for hit in answer["hits"]}
    return [] if hits.get(name, 1.0) < 1e-5 else [f"{name} is not found at its own embedding: {hits.get(name)}"]


def _seen(state: State | None) -> tuple[str | None, float | None, bool] | None:
    return None if state is None else (state.title, state.price, state.pictured)


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {} if data is None else {"Content-Type": "application/json"})
    with connection.getresponse() as response:
        content = response.read()
        return response.status, json.loads(content) if content else None


if __name__ == "__main__":
    main()
