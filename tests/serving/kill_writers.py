"""Changes a living catalogue in child processes, kills each at a random moment, and prints what was lost.

    python kill_writers.py FILE KILLS

A child tells each change that was acknowledged through a pipe, after the call returned; several threads write at once. What is
in the file afterwards must be the last acknowledged change of each item, or one that was on its way when the process died.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time

import numpy as np
from tfdml_serving.living import LivingCatalogue

THREADS = 3
ITEMS = 5


def write(path: str, seed: int, pipe: int) -> None:
    """Each thread has items of its own, so that their order is known."""
    living = LivingCatalogue.open(path)

    def work(thread: int) -> None:
        rng = random.Random(f"{seed} {thread}")
        for step in range(1_000_000):
            item, stamp = f"{thread}-{rng.randrange(ITEMS)}", f"{seed}-{step}"
            kind = rng.choice(["put", "put", "change", "remove"])
            # One line, shorter than PIPE_BUF, is written whole.
            os.write(pipe, json.dumps(["try", item, kind, stamp]).encode() + b"\n")
            try:
                if kind == "put":
                    image = rng.randbytes(rng.choice([0, 100, 20_000])) or None
                    living.put(item, {"put": stamp}, space="s", embedding=np.full(32, step), image=image)
                elif kind == "change":
                    living.change(item, {"changed": stamp})
                else:
                    living.remove(item)
            except Exception as error:
                kind = type(error).__name__
            os.write(pipe, json.dumps(["done", item, kind, stamp]).encode() + b"\n")

    for thread in range(THREADS):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    time.sleep(60)


def applied(state: dict | None, kind: str, stamp: str) -> dict | None:
    """What an item is after a change: None where it is not."""
    if kind == "put":
        return {"put": stamp}
    if kind == "change":
        return {**(state or {}), "changed": stamp}
    return None if kind == "remove" else state


def main(path: str, kills: int) -> None:
    rng = random.Random(0)
    known: dict[str, dict | None] = {}
    lost: list[str] = []
    acknowledged = in_flight = 0
    for seed in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            write(path, seed, writing)
            os._exit(0)
        os.close(writing)
        timer = threading.Timer(0.02 + rng.uniform(0, 0.08), os.kill, (child, signal.SIGKILL))
        timer.start()
        with os.fdopen(reading, "rb") as pipe:
            lines = [json.loads(line) for line in pipe if line.endswith(b"\n")]
        os.waitpid(child, 0)
        timer.join()
        waiting: dict[str, tuple[str, str]] = {}
        for what, item, kind, stamp in lines:
            if what == "try":
                waiting[item] = kind, stamp
            else:
                del waiting[item]
                known[item] = applied(known.get(item), kind, stamp)
                acknowledged += 1
        in_flight += len(waiting)
        with LivingCatalogue.open(path) as living:
            living.check()
            there: dict[str, dict | None] = {}
            for entry in living.entries(space="s"):
                there[entry.id] = {
                    "put": dict(entry.fields),
                    "change": {**(there.get(entry.id) or {}), **entry.fields},
                    "remove": None,
                }[entry.kind]
        for item in {*known, *waiting, *there}:
            possible = [known.get(item)]
            if item in waiting:
                possible.append(applied(known.get(item), *waiting[item]))
            if there.get(item) not in possible:
                lost.append(f"kill {seed}: {item} is {there.get(item)}, expected one of {possible}")
        known = there
    print(json.dumps({"kills": kills, "acknowledged": acknowledged, "in_flight": in_flight, "lost": lost}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
