"""What all commands share: the console, tables, progress, and TensorFlow without its start-up noise."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

# Without emoji: rich would print an item :key:7 as a picture.
console = Console(highlight=False, emoji=False)
_errors = Console(stderr=True, highlight=False, emoji=False)


def errors() -> tuple[type[Exception], ...]:
    """What a user can cause and mend; anything else is a defect and keeps its traceback."""
    return (ValueError, TypeError, OSError, RuntimeError, ImportError)


def fail(message: str, code: int = 1) -> NoReturn:
    """Prints `message` as an error and ends the process."""
    _errors.print(f"[bold red]error:[/bold red] {escape(message)}", soft_wrap=True)
    raise SystemExit(code)


def say(message: str = "") -> None:
    console.print(message, soft_wrap=True)


def heading(text: str) -> None:
    console.print(f"\n[bold]{escape(text)}[/bold]")


def load_tensorflow() -> None:
    """Imports TensorFlow without the lines that its C++ libraries print while they start.

    They write past Python, to the file descriptor, before any logging level holds. An import that fails shows them.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with console.status("starting TensorFlow"), tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow as tf

            # The first operation makes the device, which prints too.
            tf.constant(0.0)
        except Exception:
            kept.seek(0)
            os.write(saved, kept.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def figures_table(rows: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Retrieval figures in percent, one row for each thing measured."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    columns = list(dict.fromkeys(name for figures in rows.values() for name, _ in sorted_figures(figures)))
    for name in columns:
        table.add_column(escape(spoken(name)), justify="right")
    for label, figures in rows.items():
        table.add_row(escape(label), *[f"{100 * figures[name]:.1f}%" if name in figures else "" for name in columns])
    console.print(table)
    without = {label: int(f.get("queries_without_answer", 0)) for label, f in rows.items()}
    for label, count in without.items():
        if count:
            say(f"{escape(label)}: {count} queries have no other image of their class and are not counted.")


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for name in columns:
        table.add_column(escape(name), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*[escape(cell) for cell in row])
    console.print(table)


@contextlib.contextmanager
def step_progress() -> Iterator[Callable[[str, float], None]]:
    """A bar for each step that reports a share between 0 and 1."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, object] = {}

        def report(step: str, share: float) -> None:
            if step not in tasks:
                for task in tasks.values():
                    progress.update(task, completed=1.0)  # type: ignore[arg-type]
                tasks[step] = progress.add_task(step, total=1.0)
            progress.update(tasks[step], completed=share)  # type: ignore[arg-type]

        yield report


def sorted_figures(figures: Mapping[str, float]) -> list[tuple[str, float]]:
    """The shares among `figures`, Recall@k by k first; a manifest keeps its names in alphabetical order."""
    last = ["r_precision", "map_at_r"]
    shares = [(name, value) for name, value in figures.items() if not name.startswith("queries")]
    return sorted(shares, key=lambda item: (last.index(item[0]) + 1 if item[0] in last else 0, len(item[0]), item[0]))


def spoken(name: str) -> str:
    """A figure's name as people write it."""
    known = {"r_precision": "R-Precision", "map_at_r": "MAP@R"}
    return known.get(name, name.replace("recall_at_", "Recall@"))
