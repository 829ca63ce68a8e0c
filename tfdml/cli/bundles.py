"""`tfdml export`, `verify`, `search` and `inspect`."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from tfdml._checks import check_choice
from tfdml.cli.calibrating import Far, Fir, Precision, calibrated, from_record, limit
from tfdml.cli.console import console, load_tensorflow, plain_table, say, sorted_figures, spoken, step_progress
from tfdml.cli.training import Data, load_data, load_model, load_run

if TYPE_CHECKING:
    from tfdml.bundle import Bundle, Hit, SearchRecord
    from tfdml.evaluation import AnswerRow

BundlePath = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE", help="A version directory, or a model directory, whose latest version is taken.", show_default=False
    ),
]
LABEL = "label"
_SHORTEST_ID = 20


def export(
    model: Annotated[Path, typer.Argument(help="A folder written by train, or a .keras file.", show_default=False)],
    data: Data,
    to: Annotated[Path, typer.Option(help="The model directory; versions are directories in it.")] = Path("exports/products"),
    version: Annotated[int | None, typer.Option(help="An integer; the one after the latest if left out.")] = None,
    recall: Annotated[float, typer.Option(help="Share of the true nearest neighbours that the index must find.")] = 0.95,
    index: Annotated[
        str,
        typer.Option(
            help="What searches beside the model: annoy, exact, flat, hnsw, ivf, ivf_sq, ivf_pq, milvus, or settings as "
            'JSON, such as {"backend": "faiss", "kind": "ivf", "lists": 4096}.'
        ),
    ] = "annoy",
    thumbnails: Annotated[int, typer.Option(help="Side of the items' small pictures, in pixels; 0 for none.")] = 96,
    search: Annotated[
        str, typer.Option(help="How the model itself searches, for TF-Serving alone: auto, exact, ivf (in lists) or none.")
    ] = "auto",
    search_field: Annotated[
        list[str] | None, typer.Option(help="A field that this search returns beside ids and distances; may be repeated.")
    ] = None,
    max_k: Annotated[int, typer.Option(help="The most neighbours that this search may be asked for.", min=1)] = 100,
    far: Far = None,
    fir: Fir = None,
    precision: Precision = None,
    on_unreadable: Annotated[str, typer.Option(help="What to do about files that are not images: error or skip.")] = "error",
) -> None:
    """Publishes a bundle: the model, an index of the images in DATA, and their catalogue, in one versioned directory.

    Nothing is visible before it is complete and verified; TF-Serving picks the directory up as it is. With --far, --fir or
    --precision it is also calibrated which answers are a match, on the classes of DATA that were kept out of training.
    """
    load_tensorflow()
    from tfdml import bundle

    loaded, preprocessing, unseen = load_model(model)
    gallery = load_data(data, None, on_unreadable).with_preprocessing(preprocessing)
    there = [name for name in unseen if name in gallery.class_names]
    held_out = gallery.split_by_class(test=there)[1] if there else None
    calibration = calibrated(loaded, held_out, far, fir, precision) or from_record(load_run(model))
    with step_progress() as progress:
        published = bundle.export(
            loaded,
            gallery,
            to,
            version,
            recall=recall,
            index=from_option(index),
            thumbnails=thumbnails,
            search=None if search == "none" else search,
            search_fields=search_field or (),
            max_k=max_k,
            progress=progress,
            **calibration,
        )
    say(describe(published))


def from_option(index: str) -> str | dict[str, Any]:
    """What `--index` was given: a word, or a JSON object of settings."""
    if not index.lstrip().startswith("{"):
        return index
    try:
        return dict(json.loads(index))
    except ValueError as error:
        raise ValueError(f'--index: not JSON: {error}. Quote it as a whole: --index \'{{"backend": "faiss"}}\'.') from error


def verify(
    path: BundlePath,
    deep: Annotated[bool, typer.Option(help="Also run the model: needs TensorFlow.")] = False,
) -> None:
    """Checks every byte of a bundle, and that its parts belong together. Exit code 1 says that they do not."""
    from tfdml import bundle

    if deep:
        load_tensorflow()
    report = bundle.verify(path, deep=deep, progress=lambda check: say(f"  [green]ok[/green]  {escape(check)}"))
    say(f"{escape(str(report.path))}: in order")


def search(
    path: BundlePath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files to look up.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="How many neighbours.", min=1)] = 5,
    picture: Annotated[Path | None, typer.Option(help="Also write the answers as a picture (.png, .pdf or .svg).")] = None,
    label: Annotated[
        str | None, typer.Option(help="The true class of the images: the picture frames right answers green, wrong ones red.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    engine: Annotated[
        str, typer.Option(help="What searches: index, or graph, the model's own search, as TF-Serving alone would answer.")
    ] = "index",
    within: Annotated[
        str,
        typer.Option(help="Up to where an answer is a match: a distance, a threshold's name, auto (the bundle's own) or none."),
    ] = "auto",
) -> None:
    """Finds the items of a bundle that look most like the given images, or says that there is no match.

    [bold]Example:[/bold]  tfdml search exports/products photo.jpg -k 8 --picture answer.png
    """
    from tfdml import bundle

    check_choice("--engine", engine, ("index", "graph"))
    files = [file.read_bytes() for file in images]
    with bundle.Bundle.open(path) as opened:
        if k > len(opened):
            raise ValueError(f"-k {k}: the bundle has {len(opened)} items. Ask for at most as many.")
        farthest, why = limit(opened, within)
        load_tensorflow()
        if engine == "graph":
            found = bundle.Searcher(opened.path, verify=False).try_search(files, k)
            valid = found.valid
        else:
            embeddings, valid = bundle.Embedder(opened.path, verify=False).try_embed(files)
        bad = [str(file) for file, good in zip(images, valid, strict=True) if not good]
        if bad:
            raise ValueError(f"cannot be read as images: {', '.join(bad)}. Expected whole JPEG, PNG, BMP or GIF files.")
        answers = opened.hits(found.ids.tolist(), found.distances) if engine == "graph" else opened.search(embeddings, k)
        if as_json:
            named = {str(file): [_record(hit, farthest) for hit in hits] for file, hits in zip(images, answers, strict=True)}
            console.print_json(json.dumps(named))
        else:
            for file, hits in zip(images, answers, strict=True):
                print_hits(str(file), hits, farthest)
                if farthest is not None and not any(_matches(hit, farthest) for hit in hits):
                    say(f"[yellow]no match[/yellow]: nothing lies within {farthest:.4f} ({escape(why)})")
        if picture:
            rows = [
                answer_row(opened, data, hits, label, title=label or file.name)
                for file, data, hits in zip(images, files, answers, strict=True)
            ]
            save_picture(rows, picture, f"Nearest items in {opened.path.parent.name}, version {opened.path.name}")
            if not as_json:
                say(f"Picture: {escape(str(picture))}")


def inspect(path: BundlePath) -> None:
    """Prints what a bundle holds: model, index, figures, libraries, and its first items."""
    from tfdml import bundle

    with bundle.Bundle.open(path, verify=False) as opened:
        say(describe(opened))
        first = opened.catalogue.items(range(min(5, len(opened))))
        if first:
            rows = [[_short(value) for value in item.values()] for item in first]
            plain_table("First items", list(first[0]), rows)
    say("Not verified here; tfdml verify checks every byte.")


def describe(opened: Bundle) -> str:
    """What a bundle is, in a few lines."""
    manifest, model = opened.manifest, opened.manifest.model
    index = manifest.index
    height, width, channels = model.input_shape
    lines = [
        f"[bold]{escape(str(opened.path))}[/bold]",
        f"  items       {manifest.items:,}, with {escape(', '.join(opened.catalogue.fields)) or 'no fields'}",
        f"  model       {height} x {width} x {channels} to {model.dimension} dimensions, {manifest.metric} distance"
        + (", normalised" if model.normalised else ""),
        f"  signatures  {', '.join(model.signatures)}",
        f"  index       {spoken_index(index)}; finds {index['recall']:.1%} of the {index['recall_at']} true neighbours",
        f"  search      {spoken_search(manifest.search)}",
        f"  made        {manifest.created} by tfdml {manifest.tfdml_version}, "
        + ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()),
    ]
    for name, each in manifest.thresholds.items():
        interval = f"{each.confidence:.0%} interval {each.low:.4f} to {each.high:.4f}"
        lines.append(f"  threshold   {escape(name)}: up to {each.distance:.4f} ({interval}; {escape(each.target)})")
    if manifest.evaluation:
        shares = [f"{escape(spoken(name))} {value:.1%}" for name, value in sorted_figures(manifest.evaluation)]
        lines.append(f"  evaluation  {', '.join(shares)}")
    return "\n".join(lines)


def spoken_index(record: Mapping[str, Any]) -> str:
    """A bundle's index in a few words: backend and settings."""
    named = {name: record[name] for name in ("trees", "lists", "links", "code_bytes", "search_k") if record.get(name)}
    backend = " ".join(str(record[name]) for name in ("backend", "kind") if name in record)
    if record["backend"] == "exact":
        return backend
    settings = [
        f"{value} {name}" if name == "trees" else f"{name.replace('code_bytes', 'code bytes')} {value}"
        for name, value in named.items()
    ]
    return ", ".join([backend, *settings])


def spoken_search(record: SearchRecord | None) -> str:
    if record is None:
        return "by the index only"
    looks = "exact" if record.method == "exact" else f"in {record.probes} of {record.lists} lists"
    returned = f", with {escape(', '.join(record.fields))}" if record.fields else ""
    finds = f"finds {record.recall:.1%} of the {record.recall_at} true neighbours"
    return f"also in the model: {looks}, up to {record.max_k} neighbours{returned}; {finds}"


def print_hits(title: str, hits: Sequence[Hit], farthest: float | None = None) -> None:
    """A table of answers: rank, distance, class and id, and as many of the other fields as the terminal is wide."""
    columns = {
        "": [str(rank) for rank in range(1, len(hits) + 1)],
        "distance": [f"{hit.distance:.4f}" for hit in hits],
        "id": [hit.id for hit in hits],
    }
    if farthest is not None:
        columns["match"] = ["yes" if _matches(hit, farthest) else "no" for hit in hits]
    if hits and hits[0].probability is not None:
        columns["probability"] = [f"{hit.probability:.0%}" for hit in hits]
    names = sorted(hits[0].fields, key=lambda name: name != LABEL) if hits else []
    for name in names:
        cells = [_short(hit.fields[name]) for hit in hits]
        wider = {**columns, name: cells}
        widths = {head: max(len(text) for text in (head, *column)) for head, column in wider.items()}
        # The id may be long: it stands last, and folds where it must.
        widths["id"] = min(widths["id"], _SHORTEST_ID)
        if cells != columns["id"] and sum(widths.values()) + 3 * len(widths) + 1 <= console.width:
            columns = wider
    columns["id"] = columns.pop("id")
    plain_table(title, list(columns), list(zip(*columns.values(), strict=True)), right=["", "distance", "probability"])


def _matches(hit: Hit, farthest: float) -> bool:
    return bool(hit.distance <= np.float32(farthest))


def _record(hit: Hit, farthest: float | None) -> dict[str, Any]:
    """A hit for JSON; whether it is a match where that is known."""
    record = dataclasses.asdict(hit)
    return record if farthest is None else record | {"match": _matches(hit, farthest)}


def answer_row(opened: Bundle, query: bytes, hits: Sequence[Hit], label: str | None, title: str, note: str = "") -> AnswerRow:
    """A query and its answers for a picture; right and wrong are known when the query's class is."""
    from tfdml.evaluation import Answer, AnswerRow

    answers = []
    for hit in hits:
        thumbnail = opened.catalogue.thumbnail(hit.number)
        if thumbnail is None:
            raise ValueError(f"{opened.path} holds no pictures of its items. Export it with thumbnails to draw answers.")
        own = hit.fields.get(LABEL)
        correct = None if label is None or own is None else str(own) == label
        name = str(hit.fields.get("title") or own or hit.id)
        answers.append(Answer(_pixels(thumbnail), name, hit.distance, correct))
    return AnswerRow(_pixels(query), title, answers, note)


def save_picture(rows: Sequence[AnswerRow], path: Path, title: str, subtitle: str = "") -> None:
    from tfdml.evaluation import answers_figure

    path.parent.mkdir(parents=True, exist_ok=True)
    answers_figure(rows, title, subtitle).savefig(path)


def _pixels(file: bytes) -> np.ndarray:
    from PIL import Image

    from tfdml.bundle.thumbnails import to_rgb

    return np.asarray(to_rgb(Image.open(io.BytesIO(file))))


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
