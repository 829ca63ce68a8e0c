"""`tfdml data check`, `shard` and `index`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tfdml.cli.console import console, load_tensorflow, say, step_progress
from tfdml.cli.training import Data, load_data, load_model

if TYPE_CHECKING:
    from tfdml.data_care import DataReport
    from tfdml.datasets import Dataset

app = typer.Typer(help="Looking after labelled images.", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _data() -> None:
    """Looking after labelled images."""


@app.command("check")
def check(
    data: Data,
    split: Annotated[
        str | None,
        typer.Option(
            help="What divides the images into sides: a column of the .csv file or a field of the data set; or, for folders "
            "DIR/train/<class>/..., their names with commas: train,test.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="A folder written by train, a .keras file or a bundle, whose embedding says which labels are in doubt; best "
            "one that was not trained on these labels. Without it, colours and their places do."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--report", help="Also write a report with the pictures (.html).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the summary.")] = False,
    near: Annotated[bool, typer.Option(help="Also look for near-duplicates, which takes longest.")] = True,
    similarity: Annotated[float, typer.Option(help="Of near-duplicates: how well their grey values correlate.")] = 0.95,
    few: Annotated[int, typer.Option(help="A class with fewer images is rare.", min=0)] = 5,
    tiny: Annotated[int, typer.Option(help="An image with a shorter side is tiny.", min=0)] = 32,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit code 1 if a file is unreadable or blank, or a picture leaks or has two classes."),
    ] = False,
) -> None:
    """Looks for unreadable files, duplicates, leaks between the sides of a split, doubtful labels and rare classes.

    [bold]Example:[/bold]  tfdml data check photos/ --split train,test --report check.html
    """
    with console.status("reading the images") if not as_json else console.capture():
        load_tensorflow()
        from tfdml import data_care

        sides, field = _sides(data, split)
        embed, metric = (None, "cosine") if model is None else embed_by(model)
        found = data_care.check(
            sides,
            field,
            embed=embed,
            metric=metric,
            near=near,
            similarity=similarity,
            few=few,
            tiny=tiny,
        )
        if out is not None:
            from tfdml.report import write_data

            write_data(found, out, title=Path(data).name or data)
    if as_json:
        console.print_json(json.dumps(found.as_dict()))
    else:
        _tell(found)
        if out is not None:
            say(f"Report: {escape(str(out))}")
    if strict and not found.in_order:
        raise typer.Exit(1)


Workers = Annotated[
    int | None, typer.Option(help="Processes at work; one for each core if left out.", min=1, show_default=False)
]
Address = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster that does it: auto, HOST:PORT, or local. Needs tfdml\\[ray].", show_default=False),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do not go on with, or keep, what is there already.")]


@app.command("shard")
def shard(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the shards.", show_default=False)],
    store: Annotated[
        str,
        typer.Option(help="keep: the files as they are; jpeg or pixels: brought to --image-size once, and quicker to load."),
    ] = "keep",
    image_size: Annotated[int, typer.Option(help="With jpeg and pixels: side of the square, in pixels.")] = 64,
    items_per_shard: Annotated[int, typer.Option(help="Images in a file.")] = 10_000,
    on_unreadable: Annotated[str, typer.Option(help="What to do about files that are not images: error or skip.")] = "error",
    workers: Workers = None,
    address: Address = None,
    overwrite: Overwrite = False,
) -> None:
    """Writes images as TFRecord shards with an index, for data too large for a folder. Run again, it goes on where it stopped.

    [bold]Example:[/bold]  tfdml data shard photos/ --out shards/ --store jpeg --image-size 72
    """
    load_tensorflow()
    from tfdml import datasets
    from tfdml.preprocessing import ImagePreprocessing

    source = datasets.load(data) if data in datasets.names() else data
    with step_progress() as report:
        written = datasets.write_shards(
            source,
            out,
            store=store,
            preprocessing=None if store == "keep" else ImagePreprocessing(size=image_size),
            items_per_shard=items_per_shard,
            on_unreadable=on_unreadable,
            workers=workers or os.cpu_count() or 1,
            address=address,
            overwrite=overwrite,
            progress=lambda done, total: report("writing", done / max(total, 1)),
        )
    _tell_shards(written, out)


@app.command("index")
def index(
    folder: Annotated[Path, typer.Argument(help="A folder of .tfrecord or .tar (WebDataset) files.", show_default=False)],
    image: Annotated[str, typer.Option(help="Of TFRecords: the feature that holds the image file.")] = "image",
    label: Annotated[str, typer.Option(help="Of TFRecords: the feature that holds the label.")] = "label",
    item_id: Annotated[str, typer.Option("--id", help="Of TFRecords: the feature that holds the item id.")] = "id",
    workers: Workers = None,
    address: Address = None,
    overwrite: Overwrite = False,
) -> None:
    """Makes the index of TFRecord or .tar shards that are there already; they are read once and not changed.

    [bold]Example:[/bold]  tfdml data index records/ --image image/encoded --label image/class/label
    """
    load_tensorflow()
    from tfdml import datasets

    with step_progress() as report:
        indexed = datasets.index_shards(
            folder,
            image=image,
            label=label,
            id=item_id,
            workers=workers or os.cpu_count() or 1,
            address=address,
            overwrite=overwrite,
            progress=lambda done, total: report("indexing", done / max(total, 1)),
        )
    _tell_shards(indexed, folder)


def _tell_shards(data: Dataset, folder: Path) -> None:
    for file, reason in data.skipped:
        say(f"[yellow]skipped[/yellow]  {escape(file)}: {escape(reason)}")
    say(escape(f"{len(data):,} images of {data.num_classes:,} classes in {folder}, counted."))


def _sides(data: str, split: str | None) -> tuple[Any, str | None]:
    """The dataset, or one for each side, and the field that holds the side."""
    folders = [] if split is None else [Path(data).expanduser() / name.strip() for name in split.split(",")]
    if len(folders) > 1:
        missing = [folder.name for folder in folders if not folder.is_dir()]
        if missing:
            raise ValueError(
                f"--split {split}: {data} has no folder {missing[0]!r}. Expected {data}/{missing[0]}/<class>/<image>."
            )
        return {folder.name: _loaded(str(folder)) for folder in folders}, None
    dataset = _loaded(data)
    if split is not None and split not in dataset.fields:
        raise ValueError(
            f"--split {split}: expected a field of the data ({', '.join(dataset.fields) or 'it has none'}), or the names of "
            f"two folders or more in {data} with commas, such as train,test."
        )
    return dataset, split


def _loaded(data: str) -> Dataset:
    return load_data(data, None, "skip", quiet=True)


def embed_by(path: Path) -> tuple[Any, str]:
    """What makes embeddings of a dataset, and their metric: a bundle's model, or a Keras model."""
    from tfdml.evaluation.of_models import default_metric, embed

    if path.is_dir() and not (path / "model.keras").is_file():
        from tfdml import bundle

        embedder = bundle.Embedder(path)

        def by_bundle(dataset: Dataset) -> Any:
            files = (dataset.image_bytes(number) for number in range(len(dataset)))
            return _in_parts(embedder, files)

        return by_bundle, embedder.manifest.metric
    loaded, preprocessing, _ = load_model(path)
    return lambda dataset: embed(loaded, dataset.with_preprocessing(preprocessing)), default_metric(loaded)


def _in_parts(embedder: Any, files: Any, size: int = 256) -> Any:
    """Not all files at once: they may be larger than the memory."""
    import itertools

    import numpy as np

    parts = []
    while part := list(itertools.islice(files, size)):
        parts.append(embedder.embed(part))
    return np.concatenate(parts)


def _tell(found: DataReport) -> None:
    say(escape(str(found)))
    shown = [
        ("unreadable", [f"{file}: {reason}" for file, reason in found.unreadable]),
        ("on both sides", [" = ".join(found.ids[n] for n in group.items) for group in found.leaks]),
        ("in two classes", [" = ".join(found.ids[n] for n in group.items) for group in found.across_classes]),
        (
            "label in doubt",
            [
                f"{found.ids[n]}: {found.labels[n]}, or {found.labels[found.doubts.suggested[n]]}?"
                for n in found.doubtful()
                if found.doubts is not None
            ],
        ),
    ]
    for name, lines in shown:
        for line in lines[:5]:
            say(f"[yellow]{name}[/yellow]  {escape(line)}")
        if len(lines) > 5:
            say(f"[yellow]{name}[/yellow]  ... and {len(lines) - 5:,} more")
