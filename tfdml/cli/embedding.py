"""`tfdml embed`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tfdml.cli.bundles import BundlePath
from tfdml.cli.console import console, say

if TYPE_CHECKING:
    from tfdml.scale import EmbedProgress

Address = Annotated[
    str | None,
    typer.Option(
        help="A Ray cluster's address, such as ray-head:6379; without one, the cores of this machine.", show_default=False
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes at work; one for each core if left out. 0: in this process, without Ray.", show_default=False),
]


def embed(
    bundle: BundlePath,
    source: Annotated[str, typer.Argument(help="A folder of images, or a .csv file (path, id).", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write to, or to go on in.", show_default=False)],
    part_size: Annotated[
        int | None, typer.Option(help="Items in a part, the most that is lost at once; 2000 if left out.", show_default=False)
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="The folder that the paths of a .csv file are relative to.", show_default=False)
    ] = None,
    address: Address = None,
    workers: Workers = None,
    gpus: Annotated[float, typer.Option(help="GPUs of each worker.")] = 0.0,
) -> None:
    """Embeds every image of SOURCE with the model of a bundle, on this machine or on a Ray cluster.

    It can be killed at any time: the same command goes on where it stopped, and nothing that is finished is done again. At the
    end every item has exactly one row; what cannot be decoded is listed with the reason.

    [bold]Example:[/bold]  tfdml embed exports/products photos/ --out embedded/
    """
    from tfdml import scale

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, speed="")
        start: list[tuple[float, int]] = []

        def tell(progress: EmbedProgress) -> None:
            start.append((time.monotonic(), progress.done))
            seconds, done = start[-1][0] - start[0][0], progress.done - start[0][1]
            speed = f"{done / seconds:,.0f}/s" if done and seconds else ""
            bar.update(task, description="embedding", total=progress.items, completed=progress.done, speed=speed)

        summary = scale.embed(
            bundle,
            source,
            out,
            part_size=part_size,
            image_root=image_root,
            address=address,
            workers=workers,
            gpus=gpus,
            progress=tell,
        )
    say(
        f"{escape(str(summary.folder))}: {summary.items:,} items, each in exactly one row; "
        f"{summary.failed:,} without an embedding"
    )
    say(
        f"  {summary.parts:,} parts: {summary.parts_kept:,} were there, {summary.parts - summary.parts_kept:,} were done in "
        f"{summary.seconds:.1f} s"
        + (f"; {summary.parts_repaired:,} had been damaged" if summary.parts_repaired else "")
        + (f"; {summary.parts_abandoned:,} had been begun and were begun anew" if summary.parts_abandoned else "")
    )
    if summary.failed:
        failed = scale.EmbeddedFolder.open(summary.folder, checksum=False).failed
        for item, why in list(failed.items())[:5]:
            say(f"  [yellow]{escape(item)}[/yellow]: {escape(why)}")
        if len(failed) > 5:
            say(f"  ... and {len(failed) - 5:,} more")
