"""What the service is measured against: a process that embeds a photograph and asks the index, and does nothing else."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _serving_bundles import K
from _serving_processes import environment, photograph


def main(path: Path) -> None:
    """Reads what to measure from standard input, and answers with JSON lines."""
    from tfdml.bundle import Bundle, Embedder

    embedder, bundle, photo = Embedder(path, verify=False), Bundle.open(path, verify=False), photograph()

    def answer() -> None:
        embeddings, _ = embedder.try_embed([photo])
        bundle.index.search(embeddings, K)

    for line in sys.stdin:
        what, *numbers = line.split()
        if what == "alone":
            seconds = []
            for _ in range(int(numbers[0])):
                began = time.perf_counter()
                answer()
                seconds.append(time.perf_counter() - began)
            print(json.dumps({"seconds": seconds}), flush=True)
        else:
            print(json.dumps({"rate": together(answer, int(numbers[0]), float(numbers[1]))}), flush=True)


def together(answer: Any, count: int, seconds: float) -> float:
    """Answers a second from several threads."""
    done, end = [0] * count, time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            answer()
            done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


@contextlib.contextmanager
def bare_process(path: Path) -> Iterator[Any]:
    command = [sys.executable, __file__, str(path)]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    assert run.stdin
    assert run.stdout

    def ask(question: str) -> dict[str, Any]:
        run.stdin.write(question + "\n")
        run.stdin.flush()
        answer: dict[str, Any] = json.loads(run.stdout.readline())
        return answer

    try:
        yield ask
    finally:
        run.stdin.close()
        run.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
