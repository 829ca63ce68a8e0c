"""`tfdml compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from tfdml.cli.console import heading, load_tensorflow, plain_table, say, spoken
from tfdml.cli.training import MODEL_FILE, load_data, load_model

if TYPE_CHECKING:
    from tfdml.evaluation import RetrievalComparison, RetrievalResult


def compare(
    first: Annotated[Path, typer.Argument(help="A bundle, or a folder written by train.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another, of the same kind.", show_default=False)],
    data: Annotated[
        str | None, typer.Argument(help="For folders written by train: the images to compare them on.", show_default=False)
    ] = None,
    label: Annotated[str, typer.Option(help="For bundles: the field that holds an item's class.")] = "label",
    changed: Annotated[int, typer.Option(help="How many of the queries that changed most to list.", min=0)] = 10,
    all_classes: Annotated[bool, typer.Option(help="For folders: also count classes that were trained on.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
    on_unreadable: Annotated[str, typer.Option(help="What to do about files that are not images: error or skip.")] = "error",
) -> None:
    """Compares two bundles, or two trained models: which finds better, how sure that is, and what users will see change.

    Every item is a query against all others. The intervals come from drawing classes, both models on the same ones. Two bundles
    are compared on the items that both hold, without running a model; two folders written by train on the classes of DATA that
    neither was trained on.

    [bold]Example:[/bold]  tfdml compare exports/products/1 exports/products/2
    """
    from tfdml import evaluation

    runs = [_is_run(path) for path in (first, second)]
    if runs[0] != runs[1]:
        raise ValueError(
            f"{second}: a {'folder written by train' if runs[1] else 'bundle'}, but {first} is not. Compare two of a kind."
        )
    if runs[0]:
        results, ids, classes = _of_runs(first, second, data, all_classes, on_unreadable)
    else:
        if data is not None:
            raise ValueError(f"{data}: bundles are compared on their own items. Leave DATA out.")
        results, ids, classes = _of_bundles(first, second, label)
    found = evaluation.compare(results[0], results[1])
    _print(found, first, second)
    most = found.most_changed(changed)
    if len(most):
        heading("Queries that changed most")
        rows = [
            [
                *(f"{100 * result.per_query.map_at_r[query]:.1f}%" for result in results),
                f"{100 * found.change[query]:+.1f}",
                f"{found.overlap[query]:.0%}",
                classes[query],
                ids[query],
            ]
            for query in most
        ]
        columns = ["AP@R before", "after", "change", "same neighbours", "class", "id"]
        plain_table("", columns, rows, right=columns[:4])
    if json_file:
        record = found.as_dict() | {
            "first": str(first),
            "second": str(second),
            "most_changed": [
                {"id": ids[query], "change": float(found.change[query]), "overlap": float(found.overlap[query])}
                for query in most
            ],
        }
        json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _is_run(path: Path) -> bool:
    return path.suffix == ".keras" or (path / MODEL_FILE).is_file()


def _of_runs(
    first: Path, second: Path, data: str | None, all_classes: bool, on_unreadable: str
) -> tuple[list[RetrievalResult], list[str], list[str]]:
    if data is None:
        raise ValueError("DATA: missing. Two trained models are compared on images; name a folder, a .csv file or a dataset.")
    load_tensorflow()
    from tfdml.evaluation import evaluate_dataset

    loaded = [load_model(path) for path in (first, second)]
    dataset = load_data(data, None, on_unreadable)
    unseen = [set(each[2]) for each in loaded if each[2]]
    if unseen and not all_classes:
        common = sorted(set.intersection(*unseen) & set(dataset.class_names))
        if len(common) < 2:
            raise ValueError(
                f"{data}: {len(common)} of its classes were kept out of the training of both models, expected two or more. "
                "Train both with the same --test and --seed, or give --all-classes."
            )
        _, dataset = dataset.split_by_class(test=common)
    say(f"{len(dataset):,} images of {dataset.num_classes} classes")
    results = [evaluate_dataset(model, dataset.with_preprocessing(preprocessing)) for model, preprocessing, _ in loaded]
    return results, [str(item) for item in dataset.ids], [dataset.class_names[number] for number in dataset.labels]


def _of_bundles(first: Path, second: Path, label: str) -> tuple[list[RetrievalResult], list[str], list[str]]:
    from tfdml.bundle import Bundle
    from tfdml.evaluation import retrieval

    with Bundle.open(first) as one, Bundle.open(second) as two:
        places = [{item: number for number, item in enumerate(bundle.index.ids)} for bundle in (one, two)]
        if label not in one.catalogue.fields:
            raise ValueError(f"--label {label}: {first} has no such field. Known: {', '.join(one.catalogue.fields) or 'none'}.")
        both = [item for item in places[0] if item in places[1]]
        given = [item[label] for item in one.catalogue.items([places[0][item] for item in both])]
        # Nothing is right or wrong about an item whose class is not known.
        ids = [item for item, name in zip(both, given, strict=True) if name is not None]
        classes = [str(name) for name in given if name is not None]
        if len(ids) < 2:
            raise ValueError(f"{second}: it has {len(ids)} items with a {label} in common with {first}, expected two or more.")
        numbers = [np.array([place[item] for item in ids]) for place in places]
        left = [len(bundle) - len(both) for bundle in (one, two)]
        apart = f" ({left[0]:,} and {left[1]:,} are in one of them only)" if any(left) else ""
        say(f"{len(ids):,} items of {len(set(classes))} classes are in both{apart}")
        if len(ids) < len(both):
            say(escape(f"{len(both) - len(ids):,} more have no {label} and are left out."))
        pairs: list[tuple[Any, Any]] = list(zip((one, two), numbers, strict=True))
        results = [retrieval(bundle.index.vectors(n), classes, metric=bundle.manifest.metric) for bundle, n in pairs]
    return results, ids, classes


def _print(found: RetrievalComparison, first: Path, second: Path) -> None:
    rows = []
    for name, each in found.figures.items():
        low, high = 100 * each.difference.low, 100 * each.difference.high
        rows.append(
            [
                spoken(name),
                str(each.first),
                str(each.second),
                f"{100 * each.difference.value:+.2f} ({low:+.2f} to {high:+.2f})",
                f"{each.better:.1%}",
            ]
        )
    columns = ["", "first", "second", "difference", "second is better"]
    plain_table(f"{first} and {second}", columns, rows, right=columns[1:])
    shares = [f"{value:.1%} of the {k} nearest" for k, value in found.overlap_at.items()]
    say(escape(f"Neighbours in common: {', '.join(shares)}. {found.queries:,} queries; 95% intervals, drawing classes."))
