"""`tfdml index advise` and `tfdml index build`."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.markup import escape

from tfdml.cli.bundles import from_option
from tfdml.cli.console import plain_table, say, step_progress
from tfdml.cli.embedding import Address, Workers
from tfdml.index import Advice, advise

app = typer.Typer(help="Choosing and building what searches.", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _index() -> None:
    """Choosing and building what searches."""


@app.command("advise")
def advise_command(
    vectors: Annotated[Path, typer.Argument(help="A .npy file of vectors \\[N, D], or a bundle.", show_default=False)],
    items: Annotated[
        str | None, typer.Option(help="How many the gallery will have, such as 1e8; by default as many as there are vectors.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What a search may keep in memory, such as 8GB; by default half of this machine's.")
    ] = None,
    recall: Annotated[float, typer.Option(help="Asked share of the 10 true nearest neighbours.")] = 0.95,
    latency: Annotated[float, typer.Option(help="What one query may take, in milliseconds.")] = 10.0,
    queries: Annotated[Path | None, typer.Option(help="A .npy file of vectors like those that will be asked for.")] = None,
    metric: Annotated[str | None, typer.Option(help="cosine or euclidean; a bundle knows its own.")] = None,
    sample: Annotated[int, typer.Option(help="Measure on at most so many of the vectors.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the tables.")] = False,
) -> None:
    """Chooses an index and its settings from measurements on a sample of your own vectors.

    [bold]Example:[/bold]  tfdml index advise vectors.npy --items 1e8 --memory 24GB --recall 0.9
    """
    rows, own = load_vectors(vectors)
    with contextlib.nullcontext() if as_json else step_progress() as report:
        found = advise(
            rows,
            items=None if items is None else _whole_number(items),
            memory_bytes=None if memory is None else _bytes(memory),
            recall=recall,
            latency_ms=latency,
            metric=metric or own,
            queries=None if queries is None else _load(queries),
            sample=sample,
            seed=seed,
            report=report,
        )
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        _tell(found)


@app.command("build")
def build(
    embedded: Annotated[Path, typer.Argument(help="A folder that tfdml embed has finished.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write to, or to go on in.", show_default=False)],
    shards: Annotated[int, typer.Option(help="How many indexes, searched as one.", min=1)] = 1,
    index: Annotated[str, typer.Option(help="annoy, exact, hnsw, ... or settings as JSON, as for tfdml export.")] = "annoy",
    recall: Annotated[float, typer.Option(help="Share of the 10 true neighbours that each shard must find.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of what the index draws.")] = 0,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Builds indexes over embedded items, shard by shard, on this machine or on a Ray cluster, and measures their recall.

    It can be killed at any time: the same command keeps the shards that are there and builds the others.

    [bold]Example:[/bold]  tfdml index build embedded/ --out index/ --shards 4
    """
    from tfdml import scale

    with step_progress() as progress:
        summary = scale.build_shards(
            embedded,
            out,
            shards,
            index=from_option(index),
            recall=recall,
            seed=seed,
            address=address,
            workers=workers,
            progress=lambda done, total: progress("building", done / total),
        )
    built = summary.shards - summary.shards_kept
    say(
        f"{escape(str(summary.folder))}: {summary.items:,} items in {summary.shards} shards; "
        f"{built} built in {summary.seconds:.1f} s"
    )
    say(
        f"  recall@{summary.recall_at} {summary.recall:.3f} of the whole, on items of it; "
        f"{summary.lowest_shard_recall:.3f} of the worst shard, on queries that it has not seen"
    )


def load_vectors(path: Path) -> tuple[npt.NDArray[np.float32], str]:
    """The vectors of a .npy file, mapped, or of a bundle's index; and the metric: the bundle's, or cosine."""
    if not path.is_dir():
        return _load(path), "cosine"
    from tfdml.bundle import Bundle

    bundle = Bundle.open(path)
    return bundle.index.vectors(), bundle.index.metric


def _load(path: Path) -> npt.NDArray[np.float32]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected a .npy file of vectors [N, D] ({error}).") from error


def _whole_number(text: str) -> int:
    try:
        number = float(text.replace("_", "").replace(",", ""))
    except ValueError:
        number = 0.5
    if not number.is_integer():
        raise ValueError(f"--items {text}: expected a whole number, such as 1000000 or 1e8.")
    return int(number)


def _bytes(text: str) -> int:
    """The bytes that "8GB", "512 MB" or "1.5T" stand for."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"--memory {text}: expected a size, such as 8GB or 512MB.")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 5400 else f"{seconds:,.1f} s"


def _tell(found: Advice) -> None:
    columns = ["index", "recall@10", "p50", "p99", "build", "file", ""]
    rows = []
    for one in found.candidates:
        last = one.measured[-1] if one.measured and not one.problem else None
        figures = [""] * 5
        if last is not None:
            figures = [f"{last.recall:.3f}", f"{last.p50_ms:.2f} ms", f"{last.p99_ms:.2f} ms"]
            figures += [_time(last.build_seconds), _size(last.file_bytes)]
        rows.append([one.kind, *figures, escape(one.problem)])
    plain_table(f"Measured on {found.sample:,} vectors of dimension {found.dimension}", columns, rows, right=columns[1:6])
    columns = ["index", "memory", "file", "one query", "build", "settings"]
    rows = []
    for one in found.candidates:
        if (cost := one.expected) is not None:
            fits = "" if cost.memory_bytes <= found.memory_bytes else " (too much)"
            figures = [_size(cost.memory_bytes) + fits, _size(cost.file_bytes), f"{cost.latency_ms:,.2f} ms"]
            rows.append([one.kind, *figures, _time(cost.build_seconds), escape(json.dumps(one.settings))])
    title = f"Extrapolated to {found.items:,} items, not measured; memory for a search: {_size(found.memory_bytes)}"
    plain_table(title, columns, rows, right=columns[1:5])
    say(f"[bold]{escape(json.dumps(found.chosen))}[/bold]")
    say(escape(found.reason))
