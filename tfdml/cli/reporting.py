"""`tfdml report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tfdml._checks import check_choice
from tfdml.cli.console import console, load_tensorflow, say
from tfdml.cli.training import MODEL_FILE, RUN_FILE, load_data, load_model

if TYPE_CHECKING:
    from tfdml.report import Subject

MAPS = ("auto", "tsne", "umap", "pca", "none")


def report(
    subject: Annotated[
        Path,
        typer.Argument(metavar="RUN_OR_BUNDLE", help="A folder written by train or demo, or a bundle.", show_default=False),
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            help="The images to judge on, as for train. Left out: those that the run was made with, or the bundle's gallery.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
    all_classes: Annotated[bool, typer.Option(help="Of a run, judge on all classes, also those that were trained on.")] = False,
    map_method: Annotated[str, typer.Option("--map", help="auto, tsne, umap, pca, or none for no map.")] = "auto",
    map_items: Annotated[int, typer.Option(help="The most images on the map.", min=8)] = 1500,
    duplicates: Annotated[bool, typer.Option(help="Look for near-duplicates, which takes longest.")] = True,
    title: Annotated[str | None, typer.Option(help="The headline.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    on_unreadable: Annotated[str, typer.Option(help="What to do about files that are not images: error or skip.")] = "error",
) -> None:
    """Writes one HTML file that shows how good an embedding is, and why: figures, answers, curves, a map, doubtful labels.

    It loads nothing from anywhere, so it can be sent to others as it is. Every image is a query against all others; of a run,
    only the classes kept out of training count. A report of a bundle's own gallery needs no TensorFlow.

    [bold]Example:[/bold]  tfdml report runs/shop --out report.html
    """
    check_choice("--map", map_method, MAPS)
    options: dict[str, Any] = {} if title is None else {"title": title}
    with console.status("measuring"):
        if (subject / MODEL_FILE).is_file() or subject.suffix == ".keras":
            made = _of_run(subject, data, all_classes, on_unreadable, options)
        elif data is None:
            from tfdml.report import Subject

            made = Subject.of_bundle(subject, **options)
        else:
            made = _of_bundle(subject, data, on_unreadable, options)
        from tfdml.report import write

        write(made, out, map_method=map_method, map_items=map_items, duplicates=duplicates, seed=seed)
    say(f"Report: {escape(str(out))}")


def _of_run(path: Path, data: str | None, all_classes: bool, on_unreadable: str, options: dict[str, Any]) -> Subject:
    load_tensorflow()
    from tfdml.report import Subject

    record = path / RUN_FILE
    run = json.loads(record.read_text(encoding="utf-8")) if path.is_dir() and record.is_file() else {}
    data = data or run.get("data")
    if data is None:
        raise ValueError(f"{path} does not say which images it was made with. Name them: tfdml report {path} DATA.")
    model, preprocessing, unseen = load_model(path)
    dataset = load_data(data, None, on_unreadable).with_preprocessing(preprocessing)
    judged = "all classes, also those that it was trained on" if unseen else "all classes"
    floors: dict[str, Any] = {}
    if unseen and not all_classes:
        _, dataset = dataset.split_by_class(test=unseen)
        judged = "classes that were never trained on"
        floors = {name: figures for name, figures in run.get("figures", {}).items() if name != "trained"}
    given = {
        "title": Path(data).name or data,
        "subtitle": f"{len(dataset):,} images of {dataset.num_classes:,} {judged}",
        "floors": floors,
        "history": run.get("history", {}),
        "remarks": []
        if unseen and not all_classes
        else ["The model may have been trained on these classes: new ones fare worse."],
        "facts": [
            ("run", str(path)),
            ("images", data),
            *(
                (name, f"{run[name]:,}" if isinstance(run[name], int) else str(run[name]))
                for name in ("steps", "loss", "seed")
                if name in run
            ),
        ],
    }
    return Subject.of_model(model, dataset, **{**given, **options})


def _of_bundle(path: Path, data: str, on_unreadable: str, options: dict[str, Any]) -> Subject:
    """A bundle's model on other images than its gallery."""
    load_tensorflow()
    from tfdml.cli.data import embed_by
    from tfdml.report import Subject

    dataset = load_data(data, None, on_unreadable)
    embed, metric = embed_by(path)
    given = {
        "title": Path(data).name or data,
        "subtitle": f"{len(dataset):,} images of {dataset.num_classes:,} classes, by the model of {path}",
        "metric": metric,
        "facts": [("bundle", str(path)), ("images", data)],
    }
    return Subject.of_embeddings(embed(dataset), dataset, **{**given, **options})
