"""Folding a living catalogue into the next version of a bundle. This part loads TensorFlow, when it is called."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfdml.bundle import Bundle, BundleError, FoldedRecord, Manifest, Publication, SearchRecord, verify
from tfdml.bundle.layout import EXTRA, WARMUP
from tfdml.bundle.packing import Gallery, check_gallery, pack
from tfdml.bundle.publish import translated_os_errors
from tfdml.index.stored import settings_of
from tfdml_serving.living.folding import FoldedGallery, folded_before
from tfdml_serving.living.records import Floats
from tfdml_serving.living.store import LivingCatalogue

Progress = Callable[[str, float], None]

_PROBES = 8
_IMAGES_AT_ONCE = 32


def compact(
    path: str | os.PathLike[str],
    living: LivingCatalogue,
    version: int | None = None,
    *,
    progress: Progress | None = None,
) -> Bundle | None:
    """Publishes the next version of a bundle, with the changes of a living catalogue in it.

    The encoder is the same, and so are the embedding space, the thresholds, the match probability and the evaluation;
    index, catalogue, pictures and the model's own search signatures hold the new gallery. Everything is written to a hidden
    directory, verified, with the model, and renamed in one step. The living catalogue is only read, so a service may go on
    writing to it: what it adds meanwhile is not in the new version, and is applied beside it.

    Items of another space are embedded anew if their image was kept; others are left out, which the manifest records, and stay
    in the living catalogue.

    Args:
        path: a version directory, or a model directory, whose latest version is taken.
        living: the living catalogue; `writable=False` will do.
        version: of the new bundle; None takes the one after the latest.
        progress: called with the name of the step and the share of it that is done, 0 to 1.

    Returns:
        The published bundle, open; None if there is nothing to fold in.

    Raises:
        BundleError: with nothing published: if the bundle is damaged, no items would be left, an item's fields do not fit the
            catalogue, or the recall that the bundle was exported with is not reached any more.
    """
    report = progress or (lambda step, share: None)
    report("read", 0.0)
    with Bundle.open(path) as source:
        before = folded_before(source, living)
        sequence, entries = living.snapshot(space=source.manifest.space, after=before.sequence, also=before.left_out)
        if all(entry.sequence <= before.sequence for entry in entries):
            return None
        gallery = FoldedGallery(source, entries)
        published = _publish(source, gallery, living, sequence, version, report)
    return Bundle.open(published, verify=False)


def _publish(
    source: Bundle, gallery: FoldedGallery, living: LivingCatalogue, sequence: int, version: int | None, report: Progress
) -> Path:
    from tfdml.bundle.runner import SignatureRunner

    manifest, to = source.manifest, source.path.parent
    fields = manifest.search.fields if manifest.search else None
    with translated_os_errors(to), Publication(to, version) as publication:
        directory = publication.directory
        report("load the model", 0.0)
        runner = SignatureRunner(source.path, manifest.model, fields)
        left_out = _embed_anew(runner, gallery, living, report)
        if not len(gallery):
            raise BundleError("no item would be left; a bundle needs at least one. Nothing was published.")
        ids, columns = gallery.ids(), gallery.columns()
        vectors = gallery.vectors()
        packed = Gallery(vectors, ids, columns, manifest.metric, thumbnails=gallery.thumbnails(living))
        check_gallery(packed, manifest.model.dimension)
        probes, files = _probes(runner, source, gallery, living, ids, vectors)
        report("build the search", 0.0)
        found = _write_model(directory, manifest, source.path, packed)
        _write_warmup(directory, source, runner, files, found)
        del runner
        report("build the index and the catalogue", 0.0)
        index = manifest.index
        pack(
            directory,
            dataclasses.replace(packed, probes=probes),
            dataclasses.replace(manifest.model, fingerprint=""),
            recall=index["recall_asked"],
            index=settings_of(index),
            seed=index.get("seed", 0),
            evaluation=manifest.evaluation,
            thresholds=manifest.thresholds,
            search=found,
            space=manifest.space,
            folded=FoldedRecord(living.name, sequence, tuple(left_out)),
            match_probability=manifest.match_probability,
        )
        report("verify", 0.0)
        verify(directory, deep=True)
        report("publish", 0.0)
        path = publication.publish()
        report("publish", 1.0)
    return path


def _embed_anew(runner: Any, gallery: FoldedGallery, living: LivingCatalogue, report: Progress) -> list[str]:
    """Embeds items of other spaces by their images. Returns, and drops from the gallery, those that have none."""
    missing = [name for name, item in gallery.items.items() if item.vector is None and item.number < 0]
    left_out: list[str] = []
    for start in range(0, len(missing), _IMAGES_AT_ONCE):
        names = missing[start : start + _IMAGES_AT_ONCE]
        images = {name: image for name in names if (image := living.image(name)) is not None}
        embeddings, valid = runner.from_bytes(list(images.values())) if images else (np.zeros([0, 0]), np.zeros(0, bool))
        for name, embedding, good in zip(images, embeddings, valid, strict=True):
            if good:
                gallery.items[name].vector = embedding
        left_out += [name for name in names if gallery.items[name].vector is None]
        report("embed items of other spaces", (start + len(names)) / len(missing))
    for name in left_out:
        gallery.drop(name)
    return left_out


def _write_model(directory: Path, manifest: Manifest, source: Path, gallery: Gallery) -> SearchRecord | None:
    """The SavedModel: as it is, or around the new gallery. Returns how it searches."""
    if manifest.search is None:
        for entry in source.iterdir():
            if entry.name != EXTRA:
                (shutil.copytree if entry.is_dir() else shutil.copy)(entry, directory / entry.name)
        return None
    from tfdml.bundle.exporting import measured_search
    from tfdml.bundle.graph_search import GallerySearch
    from tfdml.bundle.loaded_model import LoadedModel
    from tfdml.bundle.runner import SignatureRunner
    from tfdml.bundle.search_fields import field_columns
    from tfdml.bundle.search_plan import LARGEST_EXACT, plan_search

    record = manifest.search
    try:
        answered = field_columns(gallery.fields, record.fields, gallery.ids)
    except ValueError as error:
        raise BundleError(f"the search signatures cannot answer the fields of the new items: {error}") from error
    method = "auto" if record.method == "exact" and len(gallery.ids) > LARGEST_EXACT else record.method
    plan = plan_search(
        gallery.vectors, gallery.metric, method, max_k=record.max_k, recall=record.recall_asked, seed=record.seed
    )
    LoadedModel(source, manifest.model).write(directory, GallerySearch(plan, gallery.ids, answered))
    runner = SignatureRunner(directory, manifest.model, tuple(answered))
    return measured_search(runner, plan, gallery.ids, tuple(answered))


def _probes(
    runner: Any, source: Bundle, gallery: FoldedGallery, living: LivingCatalogue, ids: list[str], vectors: Floats
) -> tuple[tuple[int, ...], list[bytes]]:
    """Items whose images are in the warm-up requests, and all images for these: the items' own first.

    Those of the bundle that are still there, and new ones with an image, if the model takes it to where their vector is.
    """
    from tfdml.bundle.deep import check_agreement, probe_images

    old = probe_images(source.path, len(source.manifest.probes)) if source.manifest.probes else []
    where = gallery.numbers()
    probes = {where[number]: file for number, file in zip(source.manifest.probes, old, strict=True) if number in where}
    places = {name: place for place, name in enumerate(ids)}
    for name, item in gallery.items.items():
        if len(probes) >= _PROBES:
            break
        image = living.image(name) if item.number < 0 else None
        if image is None:
            continue
        embeddings, valid = runner.from_bytes([image])
        try:
            if valid[0]:
                check_agreement(
                    embeddings, _prepared(vectors[places[name]][None], source.manifest.metric), source.manifest.metric
                )
                probes[places[name]] = image
        except BundleError:  # the embedding that it was put with is of another image
            continue
    others = [file for file in old if file not in probes.values()]
    return tuple(probes), [*probes.values(), *others[: max(0, _PROBES - len(probes))]]


def _write_warmup(directory: Path, source: Bundle, runner: Any, files: list[bytes], found: SearchRecord | None) -> None:
    from tfdml.bundle.exporting import warmup_requests
    from tfdml.bundle.saved_model import BYTES_INPUT, FROM_BYTES
    from tfdml.bundle.warmup import read_warmup, write_warmup
    from tfdml.preprocessing import ImagePreprocessing

    target = directory / WARMUP
    if not files:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source.path / WARMUP, target)
        return
    preprocessing = ImagePreprocessing.from_config(dict(source.manifest.model.preprocessing))
    images = np.stack([np.asarray(preprocessing(file)) for file in files])
    requests = read_warmup(source.path / WARMUP)
    sizes = sorted({int(inputs[BYTES_INPUT].size) for name, inputs in requests if name == FROM_BYTES})
    embeddings, _ = runner.from_bytes(files)
    write_warmup(target, source.path.parent.name, warmup_requests(files, images, embeddings, sizes, found))


def _prepared(vectors: Floats, metric: str) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if metric == "cosine" else vectors
