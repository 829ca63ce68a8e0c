"""`tfdml index advise` and `tfdml index build`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.markup import escape

from tfdml.cli.bundles import from_option
from tfdml.cli.console import console, plain_table, say, step_progress
from tfdml.cli.embedding import Address, Workers
from tfdml.index import Advice, advise

app = typer.Typer(help="Choosing and building what searches.", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _index() -> None:
    """Choosing and building what searches."""


@app.command("advise")
def advise_command(
    vectors: Annotated[Path, typer.Argument(help="A .npy file of vectors \\[N, D], or a bundle.", show_default=False)],
    metric: Annotated[str | None, typer.Option(help="cosine or euclidean; a bundle knows its own.")] = None,
    recall: Annotated[float, typer.Option(help="Asked share of the 10 true nearest neighbours.")] = 0.95,
    sample: Annotated[int, typer.Option(help="Measure on at most so many of the vectors.", min=16)] = 20_000,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Chooses an index and its settings from measurements on a sample of your own vectors.

    [bold]Example:[/bold]  tfdml index advise vectors.npy --recall 0.95
    """
    with console.status("measuring") if not as_json else console.capture():
        rows, own = load_vectors(vectors)
        found = advise(rows, metric=metric or own, recall=recall, sample=sample, seed=seed)
    if as_json:
        console.print_json(json.dumps(found.as_dict()))
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
    if path.is_file():
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: expected a .npy file of vectors [N, D] ({error}).") from error
        return rows, "cosine"
    from tfdml.bundle import Bundle

    bundle = Bundle.open(path, verify=False)
    return bundle.index.vectors(), bundle.index.metric


def _tell(found: Advice) -> None:
    rows = [
        [
            one.kind,
            "" if one.recall is None else f"{one.recall:.3f}",
            "" if one.latency_ms is None else f"{one.latency_ms:.2f} ms",
            "" if one.build_seconds is None else f"{one.build_seconds:.1f} s",
            "" if one.file_bytes is None else f"{one.file_bytes / 1e6:.1f} MB",
            one.problem,
        ]
        for one in found.candidates
    ]
    columns = ["index", "recall@10", "one query", "build", "file", ""]
    plain_table(f"Measured on {found.sample:,} vectors", columns, rows, right=columns[1:5])
    say(f"[bold]{escape(json.dumps(found.chosen))}[/bold]: {escape(found.reason)}")
