"""`tfdml demo`: the whole way, from photographs to answers, in a few minutes."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from tfdml._checks import check_choice
from tfdml.cli.bundles import answer_row, describe, print_hits, save_picture
from tfdml.cli.console import heading, load_tensorflow, say, step_progress
from tfdml.cli.training import fit, save_run

if TYPE_CHECKING:
    from tfdml.bundle import Bundle, Hit, Threshold
    from tfdml.datasets import Dataset
    from tfdml.models import EmbeddingModel

SOURCES = ("auto", "grocery_store", "rendered_catalogue")
_ROWS, _NEIGHBOURS = 6, 6
_THUMBNAIL = 192
# How often the nearest item has to be the right one where it is called a match.
_PRECISION = 0.95


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the bundle and the pictures.")] = Path("demo"),
    data: Annotated[
        str,
        typer.Option(help="grocery_store, rendered_catalogue, or auto: the photographs where they can be had."),
    ] = "auto",
    steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the split, the batches and the weights.")] = 0,
) -> None:
    """Does the main job once: trains on product photographs, measures on products never seen, publishes a bundle, searches it.

    Photographs come from TFDML_DATA or a download; without either, a catalogue of products is drawn instead.
    """
    started = time.monotonic()
    check_choice("data", data, SOURCES)
    load_tensorflow()
    import tfdml

    dataset = _dataset(data)
    train, test = dataset.split_by_class(test=0.5, seed=seed)
    say(
        f"{dataset.name}: trains on {len(train):,} images of {train.num_classes} classes, "
        f"is judged on {len(test):,} images of {test.num_classes} others."
    )
    model, figures, history = fit(
        train,
        test,
        dimension=64,
        loss=tfdml.losses.TripletLoss(margin=0.2, mining="semi_hard"),
        classes=16,
        examples=4,
        steps=steps,
        learning_rate=1e-3,
        flip=True,
        seed=seed,
    )
    save_run(out, model, dataset.name, test, figures, history, seed=seed, steps=steps, loss="triplet", skipped=dataset.skipped)

    heading("Publishing a bundle of the unseen products")
    queries, gallery = _kept_out(test.with_preprocessing(model.preprocessing or test.preprocessing), seed)
    thresholds = _thresholds(model, test, seed)
    options: dict[str, Any] = {"evaluation": figures["trained"], "thresholds": thresholds, "thumbnails": _THUMBNAIL}
    with step_progress() as progress:
        bundle = tfdml.bundle.export(model, gallery, out / "products", progress=progress, **options)
    with bundle:
        say(describe(bundle))
        files = _write_queries(queries, out / "queries")
        heading("Searching with pictures that are not in it")
        embeddings = tfdml.bundle.Embedder(bundle.path, verify=False).embed([file.read_bytes() for file in files])
        answers = bundle.search(embeddings, _NEIGHBOURS)
        print_hits(f"A photograph of {queries.class_names[queries.labels[0]]}", answers[0])
        _pictures(bundle, queries, files, answers, out, figures["trained"])
    place = escape(str(out))
    say(f"\nDone in {time.monotonic() - started:.0f} s. Look at {place}/answers.png and {place}/mistakes.png, then try:")
    # Where the environment is not active, the command has to be called by its path.
    command = "tfdml" if shutil.which("tfdml") else escape(sys.argv[0])
    say(f"  {command} report {place} --out {place}/report.html")
    say(f"  {command} verify {escape(str(bundle.path))}")
    say(f"  {command} search {escape(str(bundle.path))} {escape(str(files[0]))} --picture answer.png")
    say(f"  {command} serve {place}/products    # a search page at http://127.0.0.1:8000; try it with {place}/queries")


def _dataset(name: str) -> Dataset:
    from tfdml import datasets

    if name == "auto":
        try:
            return datasets.grocery_store()
        except datasets.DownloadError as error:
            say(f"There are no photographs, so a catalogue of products is drawn instead. The reason: {escape(str(error))}")
            name = "rendered_catalogue"
    return datasets.load(name)


def _kept_out(test: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """One image of every class as a query; the others are the gallery."""
    rng = np.random.default_rng(seed)
    chosen = np.array([rng.choice(np.flatnonzero(test.labels == label)) for label in range(test.num_classes)])
    chosen = chosen[rng.permutation(len(chosen))]
    rest = np.setdiff1d(np.arange(len(test)), chosen)
    return test.subset(chosen), test.subset(rest)


def _thresholds(model: EmbeddingModel, test: Dataset, seed: int) -> dict[str, Threshold]:
    """The distance up to which an answer counts as a match, where the model is good enough to have one."""
    from tfdml.evaluation import calibrate

    try:
        match = calibrate(model.embed(test), test.labels, precision=_PRECISION, seed=seed)
    except ValueError as error:
        say(f"Answers will not be told from mistakes by their distance: {escape(str(error))}")
        return {}
    say(f"Up to a distance of {match.distance:.3f} the nearest item is of the right product {_PRECISION:.0%} of the time.")
    return {"match": match.threshold}


def _write_queries(queries: Dataset, folder: Path) -> list[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = []
    for number, item in enumerate(queries.ids):
        name = item.replace("/", "_").replace(os.sep, "_")
        path = folder / (name if Path(name).suffix else f"{name}.png")
        path.write_bytes(queries.image_bytes(number))
        paths.append(path)
    return paths


def _pictures(
    bundle: Bundle, queries: Dataset, files: list[Path], answers: list[list[Hit]], out: Path, figures: dict[str, float]
) -> None:
    names = [queries.class_names[label] for label in queries.labels]
    titles = queries.fields.get("title", names)
    right = [str(hits[0].fields["label"]) == name for hits, name in zip(answers, names, strict=True)]
    say(f"The nearest item is of the right product for {sum(right)} of {len(right)} queries.")
    chosen = {
        "answers.png": (list(range(len(files))), "Products the model has never seen"),
        "mistakes.png": ([i for i, good in enumerate(right) if not good], "Where it goes wrong"),
    }
    for name, (numbers, title) in chosen.items():
        rows = [answer_row(bundle, files[i].read_bytes(), answers[i], names[i], titles[i]) for i in numbers[:_ROWS]]
        (out / name).unlink(missing_ok=True)
        if rows:
            recall, count = figures["recall_at_1"], int(figures["queries"])
            subtitle = f"Searched among {bundle.manifest.items:,} items; Recall@1 over all {count:,} unseen images {recall:.1%}"
            save_picture(rows, out / name, title, subtitle)
