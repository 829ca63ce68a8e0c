"""What `losses.py` and `heads.py` share: one step of several libraries, timed and weighed beside each other in one run.

For every name and batch size each library has a fresh process, since only that shows what memory a step needs: a fork of one
that has imported the library and used nothing of it yet. They are timed in rounds that take turns, so that a disturbance of the
machine meets all of them. A figure is the median over all steps. Memory is the growth of the process's high-water mark by its
first steps.

On a machine that others use too, `--one-thread` gives every library one thread and takes its processor time instead: what a
step computes, whoever else computes meanwhile.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DIMENSION = 128
TFDML, ADDONS, SIMILARITY, TORCH = "tfdml", "TF Addons", "TF Similarity", "pytorch-metric-learning"
PYTHONS = {
    TFDML: Path(sys.executable),
    ADDONS: ROOT / ".venv-keras2/bin/python",
    SIMILARITY: ROOT / ".venv-keras2/bin/python",
    TORCH: ROOT / ".venv-peers/bin/python",
}
PACKAGES = ("tensorflow", "keras", "tensorflow-addons", "tensorflow-similarity", "torch", "pytorch-metric-learning")
ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Step = Callable[[], object]


@dataclass
class Comparison:
    """A table of `names` (the first is the bare yardstick) by library.

    `step(library, name, batch, examples, classes)` gives a small run that is not measured and the step that is.
    `examples` and `too_large` are exceptions: the examples per class of a name, and the largest batch of (library, name).
    """

    script: str
    kind: str
    names: Sequence[str]
    libraries: dict[str, Sequence[str]]
    step: Callable[[str, str, int, int, int], tuple[Step, Step]]
    classes: int = 0
    examples: dict[str, int] = field(default_factory=dict)
    too_large: dict[tuple[str, str], int] = field(default_factory=dict)

    def main(self, description: str | None) -> None:
        args = self.parser(description).parse_args()
        if args.worker:
            serve(self.step, args.worker)
            return
        if args.table:
            print(self.table(json.loads(args.table.read_text())["rows"]))
            return
        workers = {library: Worker(self.script, library, args.one_thread) for library in self.usable(args)}
        rows = []
        for batch in args.batch:
            for name in getattr(args, self.kind):
                answers = self.measure(batch, name, args, workers)
                rows += [row for row, _ in answers]
                if args.json:
                    # At once, so that a run that is cut short keeps what it has.
                    self.write(args.json, [row for row, _ in answers], {row["library"]: found for row, found in answers})
        print(self.table(rows))

    def parser(self, description: str | None) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        some = f"some of: {'; '.join(self.names)}"
        parser.add_argument("--batch", type=int, nargs="+", default=[128, 512, 1800])
        parser.add_argument("--examples", type=int, default=4, help="examples per class in a batch (K)")
        parser.add_argument(f"--{self.kind}", nargs="+", choices=self.names, default=self.names, metavar="NAME", help=some)
        if self.classes:
            parser.add_argument("--classes", type=int, default=self.classes)
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--seconds", type=float, default=0.5, help="timed for each library and round")
        parser.add_argument("--one-thread", action="store_true", help="processor time of one thread, for a busy machine")
        parser.add_argument("--no-peers", action="store_true")
        parser.add_argument(
            "--json", type=Path, help="also write all figures here, in place of those of the same name and batch"
        )
        parser.add_argument("--table", type=Path, metavar="JSON", help="only print the table of a file that --json has written")
        parser.add_argument("--worker", help=argparse.SUPPRESS)
        return parser

    def usable(self, args: argparse.Namespace) -> list[str]:
        """The libraries that are installed and have anything to do."""
        libraries = [library for library, names in self.libraries.items() if set(names) & set(getattr(args, self.kind))]
        for library in libraries:
            if not PYTHONS[library].exists():
                print(f"{library}: no {PYTHONS[library]}, left out", file=sys.stderr)
        return [library for library in libraries if PYTHONS[library].exists() and (library == TFDML or not args.no_peers)]

    def measure(
        self, batch: int, name: str, args: argparse.Namespace, workers: dict[str, Worker]
    ) -> list[tuple[dict[str, Any], dict[str, str]]]:
        """The row of each library that can run it, and the versions it ran with."""
        task = {"name": name, "batch": batch, "examples": self.examples.get(name, args.examples), "seconds": args.seconds}
        task |= {"one_thread": args.one_thread, "classes": args.classes if self.classes else 0}
        chosen = [
            worker
            for library, worker in workers.items()
            if name in self.libraries[library] and batch <= self.too_large.get((library, name), batch)
        ]
        running = [worker for worker in chosen if worker.begin(task)]
        for _ in range(args.rounds):
            running = [worker for worker in running if worker.round()]
        for worker in running:
            worker.end()
        return [(self.row(task, worker), worker.versions) for worker in running]

    def row(self, task: dict[str, Any], worker: Worker) -> dict[str, Any]:
        times = sorted(time for times in worker.rounds for time in times)
        row = {"batch": task["batch"], "examples": task["examples"], self.kind: task["name"], "library": worker.library}
        print(f"B={task['batch']}: {worker.library} {task['name']} {statistics.median(times):.2f} ms", file=sys.stderr)
        return row | {
            "clock": "processor time of one thread" if task["one_thread"] else "time",
            "ms": round(statistics.median(times), 4),
            # How far the figure can be trusted: the middle nine tenths of the steps, and the median of each round.
            "ms_5_to_95_percent": [round(times[int(share * (len(times) - 1))], 4) for share in (0.05, 0.95)],
            "ms_of_each_round": [round(statistics.median(times), 4) for times in worker.rounds],
            "steps": len(times),
            "extra_mb": round(worker.extra_mb, 2),
        }

    def table(self, rows: Iterable[dict[str, Any]]) -> str:
        """A Markdown table: milliseconds, of peers also as times tfdml's, and memory."""
        cells: dict[tuple[int, int, str], dict[str, dict[str, Any]]] = {}
        for row in sorted(rows, key=self.order):
            cells.setdefault((row["batch"], row["examples"], row[self.kind]), {})[row["library"]] = row
        peers = [library for library in self.libraries if library != TFDML]
        heads = ["B", "K", self.kind, "tfdml, ms", f"x {self.names[0]}", *peers, "tfdml, MB", "peers, MB"]
        lines = ["| " + " | ".join(heads) + " |", "|---:|---:|---|" + "---:|" * (len(heads) - 3)]
        bare = {
            batch: found[TFDML]["ms"] for (batch, _, name), found in cells.items() if name == self.names[0] and TFDML in found
        }
        for (batch, examples, name), found in cells.items():
            ours = found.get(TFDML, {"ms": math.nan, "extra_mb": math.nan})
            line = [str(batch), str(examples), name, f"**{ours['ms']:.2f}**"]
            line.append(f"{ours['ms'] / bare[batch]:.2f}" if batch in bare else "")
            line += [f"{found[p]['ms']:.2f} ({found[p]['ms'] / ours['ms']:.2f})" if p in found else "" for p in peers]
            line += [f"{ours['extra_mb']:.0f}", ", ".join(f"{found[p]['extra_mb']:.0f}" for p in peers if p in found)]
            lines.append("| " + " | ".join(line) + " |")
        return "\n".join(lines)

    def order(self, row: dict[str, Any]) -> tuple[int, int, int]:
        return row["batch"], self.names.index(row[self.kind]), list(PYTHONS).index(row["library"])

    def write(self, path: Path, rows: list[dict[str, Any]], versions: dict[str, dict[str, str]]) -> None:
        """Into a file that runs in parts fill: rows of the same name and batch are replaced together, as they were measured."""
        old = json.loads(path.read_text()) if path.exists() else {"rows": [], "versions": {}}
        new = {(row["batch"], row[self.kind]) for row in rows}
        kept = [row for row in old["rows"] if (row["batch"], row[self.kind]) not in new]
        record = {"machine": machine(), "versions": old["versions"] | versions, "dimension": DIMENSION}
        if self.classes:
            record["classes"] = self.classes
        head = json.dumps(record, indent=1)[:-2]
        lines = ",\n".join(f"  {json.dumps(row)}" for row in sorted(kept + rows, key=self.order))
        path.write_text(f'{head},\n "rows": [\n{lines}\n ]\n}}\n')


class Worker:
    """One library's process, which forks for every task; the fork takes a turn whenever it is given a line."""

    def __init__(self, script: str, library: str, one_thread: bool):
        self.library = library
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
        if one_thread:
            environment |= dict.fromkeys(ONE_THREAD, "1")
        command = [str(PYTHONS[library]), script, "--worker", library]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)

    def begin(self, task: dict[str, Any]) -> bool:
        """Makes the step, runs it for the first times, and weighs it."""
        self.task, self.rounds = task, list[list[float]]()
        answer = self.ask(json.dumps(task))
        if answer:
            self.versions: dict[str, str] = answer["versions"]
            self.extra_mb: float = answer["extra_mb"]
        return answer is not None

    def round(self) -> bool:
        answer = self.ask("round")
        if answer:
            self.rounds.append(answer["ms"])
        return answer is not None

    def end(self) -> None:
        self.ask("end")

    def ask(self, line: str) -> dict[str, Any] | None:
        """The next line that the worker means for us; libraries print lines of their own."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = next((line for line in self.process.stdout if line.startswith(MARK)), None)
        if answer is None:
            raise RuntimeError(f"the process of {self.library} has ended")
        answer = json.loads(answer.removeprefix(MARK))
        if "failed" in answer:
            print(f"B={self.task['batch']}: {self.library} {self.task['name']} failed: {answer['failed']}", file=sys.stderr)
            return None
        return answer


MARK = "benchmark: "
MODULES = {
    TFDML: ("tensorflow", "keras", "tfdml.losses", "tfdml.layers"),
    ADDONS: ("tensorflow", "keras", "tensorflow_addons"),
    SIMILARITY: ("tensorflow", "keras", "tensorflow_similarity.losses"),
    TORCH: ("torch", "pytorch_metric_learning.losses", "pytorch_metric_learning.miners"),
}


def serve(make: Callable[[str, str, int, int, int], tuple[Step, Step]], library: str) -> None:
    """In the worker's process: a fork for each task that comes in."""
    for module in MODULES[library]:
        importlib.import_module(module)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            try:
                work(make, json.loads(line) | {"library": library})
            except Exception as error:
                say({"failed": f"{type(error).__name__}: {error}"[:300]})
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            say({"failed": f"it ended with status {status}"})


def work(make: Callable[[str, str, int, int, int], tuple[Step, Step]], task: dict[str, Any]) -> None:
    """In the fork: makes the step, weighs it, and then times it once for each further line of the input, until the last."""
    warm, step = make(task["library"], task["name"], task["batch"], task["examples"], task["classes"])
    warm()
    before = high_water_mb()
    for _ in range(3):
        step()
    versions = {"python": platform.python_version()} | {name: found for name in PACKAGES if (found := version(name))}
    say({"versions": versions, "extra_mb": high_water_mb() - before})
    clock = time.process_time if task["one_thread"] else time.perf_counter
    while sys.stdin.readline().strip() == "round":
        times: list[float] = []
        end = clock() + task["seconds"]
        while not times or (clock() < end and len(times) < 200):
            start = clock()
            step()
            times.append((clock() - start) * 1e3)
        say({"ms": times})
    say({})


def say(answer: dict[str, Any]) -> None:
    print(MARK + json.dumps(answer), flush=True)


def high_water_mb() -> float:
    # Linux counts in KB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def version(package: str) -> str | None:
    """Of a package that this process has loaded."""
    if package.replace("-", "_") not in sys.modules:
        return None
    return importlib.metadata.version(package)


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    return {"cpus": os.cpu_count(), "cpu": cpu, "system": platform.system()}


def graph_steps(function: Any, small: Sequence[Any], full: Sequence[Any]) -> tuple[Step, Step]:
    """Of a function of (labels, embeddings), traced as `fit` does it: with the batch size left open."""
    import tensorflow as tf

    small, full = [tf.constant(part) for part in small], [tf.constant(part) for part in full]
    specs = [tf.TensorSpec([None, *part.shape[1:]], part.dtype) for part in full]
    concrete = tf.function(function).get_concrete_function(*specs)

    def run(parts: Sequence[Any]) -> list[Any]:
        return [tf.convert_to_tensor(gradient).numpy() for gradient in tf.nest.flatten(concrete(*parts))]

    return lambda: run(small), lambda: run(full)
