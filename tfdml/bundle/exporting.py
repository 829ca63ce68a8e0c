"""From a trained model and a gallery to a published bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice, check_positive
from tfdml.bundle.catalogue import Value
from tfdml.bundle.catalogue_writer import check_ids, column_kinds
from tfdml.bundle.deep import check_agreement
from tfdml.bundle.errors import BundleError
from tfdml.bundle.graph_search import GallerySearch
from tfdml.bundle.layout import WARMUP
from tfdml.bundle.manifest import ModelRecord, SearchRecord, Threshold
from tfdml.bundle.match_probability import MatchProbability
from tfdml.bundle.noted import check_figures, check_match_probability, check_thresholds
from tfdml.bundle.packing import Gallery, check_gallery, pack, with_trees
from tfdml.bundle.publish import Publication, translated_os_errors
from tfdml.bundle.reader import Bundle
from tfdml.bundle.runner import SignatureRunner
from tfdml.bundle.saved_model import (
    BYTES_INPUT,
    EMBEDDING,
    EMBEDDING_SIGNATURES,
    IMAGES_INPUT,
    K_INPUT,
    SEARCH_SIGNATURES,
    SavedModelInfo,
    ServedModel,
)
from tfdml.bundle.search_fields import field_columns
from tfdml.bundle.search_plan import SearchPlan, check_search, plan_search
from tfdml.bundle.thumbnails import make_thumbnails
from tfdml.bundle.verification import verify
from tfdml.bundle.warmup import MOST_REQUESTS, Request, write_warmup
from tfdml.index import METRICS
from tfdml.preprocessing import ImagePreprocessing

if TYPE_CHECKING:
    from tfdml.datasets import Dataset

_PROBES = 8
Progress = Callable[[str, float], None]


def export(
    model: keras.Model,
    gallery: Dataset,
    to: str | os.PathLike[str],
    version: int | None = None,
    *,
    metric: str | None = None,
    recall: float = 0.95,
    fields: Mapping[str, Sequence[Value]] | Sequence[str] | None = None,
    preprocessing: ImagePreprocessing | None = None,
    evaluation: Any = None,
    thresholds: Mapping[str, Threshold] | None = None,
    match_probability: MatchProbability | None = None,
    thumbnails: int = 96,
    batch_size: int = 64,
    index: str | Mapping[str, Any] = "annoy",
    trees: int | str = "auto",
    seed: int = 0,
    max_pixels: int = 50_000_000,
    warmup_batch_sizes: Sequence[int] = (1, 8),
    search: str | None = "auto",
    search_fields: Sequence[str] = (),
    max_k: int = 100,
    progress: Progress | None = None,
) -> Bundle:
    """Publishes a bundle: one directory with a model and the index, catalogue and manifest that were made with it.

    The gallery is embedded by the exported graph itself; some of its image files then go through `serving_default` and must
    land on their vectors in the index. Everything is written to a hidden directory, flushed, verified, and renamed in one
    step: whatever happens before leaves the old versions as they were, and nothing new.

    Args:
        model: a `tfdml.EmbeddingModel`, or any Keras model from images, 0 to 255, to embeddings `[N, D]`.
        gallery: the `tfdml.datasets.Dataset` to search in.
        to: the model directory; versions are directories in it, and it is made if it does not exist.
        version: an integer >= 0; None takes the one after the latest.
        metric: "cosine" or "euclidean"; None takes cosine if the model normalises, else euclidean.
        recall: share of the 10 true nearest neighbours that the index must find, measured against exact search.
        fields: what the catalogue keeps of each item: columns of one value per item, or names of the gallery's own fields.
            None keeps all of the gallery's fields, and the class name as `label`.
        preprocessing: how image files become pixels; None takes the model's own, else the gallery's.
        evaluation: figures to record: a mapping of names to numbers, or the result of `tfdml.evaluation.retrieval`.
        thresholds: calibrated distances to record, such as `{"match": calibrate(...).threshold}`.
        match_probability: as `tfdml.evaluation.fit_match_probability` returns it: every hit of the bundle then tells its own.
        thumbnails: side, in pixels, of the small picture that the catalogue keeps of each item (about 3 kB at 96), so that
            answers can be shown; 0 keeps none.
        batch_size: images per step while embedding.
        index: what searches beside the model: "annoy"; "exact"; FAISS's "flat", "hnsw", "ivf", "ivf_sq" or "ivf_pq" (they need
            `pip install 'tfdml[faiss]'`, also where the bundle is served); "milvus" (Milvus Lite; `tfdml[milvus]`); or a
            mapping with settings, as in `tfdml.index.build_index`.
        trees: of an index by Annoy, as in `tfdml.index.AnnoyIndex.build`.
        seed: of the index.
        max_pixels: the exported model does not decode larger images.
        warmup_batch_sizes: batch sizes that TF-Serving runs through every signature before it takes requests.
        search: how the SavedModel searches the gallery by itself, so that TF-Serving alone answers: "exact"; "ivf", in lists by
            k-means, of which so many are looked into that `recall` is reached for the 10 and for the `max_k` nearest; "auto",
            exact up to 200,000 items; None for a model that only embeds. The gallery's vectors are then in the SavedModel too.
        search_fields: names of the catalogue's fields that the search signatures return beside ids and distances.
        max_k: the largest number of neighbours that a request to the search signatures may ask for.
        progress: called with the name of the step and the share of it that is done, 0 to 1.

    Returns:
        The published bundle, open.

    Raises:
        BundleError: with nothing published: if the version exists, ids are not unique, a field or a figure cannot be stored, an
            embedding is not finite, gallery, preprocessing and model do not fit together, the model cannot be served, the asked
            recall is not reached, or the disk is full.
        ImportError: if the index's backend is not installed.

    Example:
        >>> import tempfile, keras, numpy as np, tfdml
        >>> images = np.random.default_rng(0).integers(0, 256, [12, 8, 8, 3], np.uint8)
        >>> data = tfdml.datasets.Dataset.from_arrays(images, [i // 2 for i in range(12)])
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
        >>> bundle = tfdml.bundle.export(model, data, tempfile.mkdtemp())
        >>> len(bundle), bundle.path.name, bundle.manifest.metric
        (12, '1', 'euclidean')
    """
    if metric is not None:
        check_choice("metric", metric, METRICS)
    check_positive("thumbnails", thumbnails, allow_zero=True)
    for name, value in {"batch_size": batch_size, "max_pixels": max_pixels}.items():
        check_positive(name, value)
    check_search(search, max_k, recall)
    settings = with_trees(index, trees)
    report = progress or (lambda step, share: None)
    chosen = _preprocessing(model, gallery, preprocessing)
    ids = [str(item) for item in gallery.ids]
    check_ids(ids)
    columns = {name: list(column) for name, column in _columns(gallery, fields).items()}
    column_kinds(columns, ids)
    figures, distances = check_figures(evaluation), check_thresholds(thresholds)
    check_match_probability(match_probability)
    answered = field_columns(columns, search_fields, ids) if search is not None else {}
    sizes = _warmup_sizes(warmup_batch_sizes, len(EMBEDDING_SIGNATURES) + (search is not None) * len(SEARCH_SIGNATURES))
    with translated_os_errors(Path(to)), Publication(to, version) as publication:
        directory = publication.directory
        report("write the model", 0.0)
        served = ServedModel(model, chosen, max_pixels)
        info = served.write(directory)
        runner = SignatureRunner(directory, _record(info, chosen, max_pixels, normalised=False))
        vectors = _embed(runner, gallery, batch_size, info.dimension, report)
        normalised = bool(np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3))
        probes, files = _probes(gallery)
        pictures = make_thumbnails(gallery, thumbnails) if thumbnails else None
        packed = Gallery(vectors, ids, columns, metric or ("cosine" if normalised else "euclidean"), probes, pictures)
        check_gallery(packed, info.dimension)
        _check_probes(runner, packed, files)
        found: SearchRecord | None = None
        if search is not None:
            report("build the search", 0.0)
            plan = plan_search(vectors, packed.metric, search, max_k=max_k, recall=recall, seed=seed)
            # Written anew: the gallery is embedded by a graph that cannot hold it yet.
            del runner
            info = served.write(directory, GallerySearch(plan, ids, answered))
            runner = SignatureRunner(directory, _record(info, chosen, max_pixels, normalised), tuple(answered))
            found = measured_search(runner, plan, ids, tuple(answered))
        images = np.stack([gallery.load(number).numpy() for number in probes])
        requests = warmup_requests(files, images, vectors[list(probes)], sizes, found)
        write_warmup(directory / WARMUP, publication.to.name, requests)
        report("build the index and the catalogue", 0.0)
        pack(
            directory,
            packed,
            _record(info, chosen, max_pixels, normalised),
            recall=recall,
            index=settings,
            seed=seed,
            evaluation=figures,
            thresholds=distances,
            match_probability=match_probability,
            search=found,
        )
        report("verify", 0.0)
        verify(directory, deep=True)
        report("publish", 0.0)
        path = publication.publish()
        report("publish", 1.0)
    return Bundle.open(path, verify=False)


def _preprocessing(model: keras.Model, gallery: Dataset, given: ImagePreprocessing | None) -> ImagePreprocessing:
    """The one definition of "file bytes -> pixels" that model, gallery and argument agree on."""
    own = getattr(model, "preprocessing", None)
    chosen = given or own or gallery.preprocessing
    for name, other in {"the model": own, "the gallery": gallery.preprocessing}.items():
        if other is not None and other != chosen:
            raise BundleError(
                f"preprocessing: {chosen} is not that of {name}, {other}. Queries and gallery must be prepared alike: use "
                "gallery.with_preprocessing(...), or give export the one that the model was trained with."
            )
    return chosen


def _columns(gallery: Dataset, fields: Mapping[str, Sequence[Value]] | Sequence[str] | None) -> Mapping[str, Sequence[Value]]:
    if isinstance(fields, Mapping):
        return fields
    if fields is None:
        labels = {} if any(name.lower() == "label" for name in gallery.fields) else {"label": _class_names(gallery)}
        return {**labels, **gallery.fields}
    available = {"label": _class_names(gallery), **gallery.fields}
    for name in fields:
        check_choice("fields", name, available)
    return {name: available[name] for name in fields}


def _class_names(gallery: Dataset) -> list[str]:
    return [str(gallery.class_names[label]) for label in gallery.labels]


def _record(info: SavedModelInfo, preprocessing: ImagePreprocessing, max_pixels: int, normalised: bool) -> ModelRecord:
    return ModelRecord(
        fingerprint="",
        dimension=info.dimension,
        normalised=normalised,
        input_shape=info.input_shape,
        preprocessing=preprocessing.get_config(),
        max_pixels=int(max_pixels),
        signatures=info.signatures,
    )


def _embed(
    runner: SignatureRunner, gallery: Dataset, batch_size: int, dimension: int, report: Progress
) -> npt.NDArray[np.float32]:
    """The gallery's embeddings by the exported `embed_images`; a row that was not finite becomes NaN, to be named later."""
    vectors = np.empty([len(gallery), dimension], np.float32)
    done = 0
    for images in gallery.batches(batch_size):
        embeddings, valid = runner.from_images(images)
        if done + len(embeddings) > len(vectors):
            raise BundleError(
                f"gallery: more than {len(vectors)} images came out of batches(); expected one for each of its ids."
            )
        vectors[done : done + len(embeddings)] = np.where(valid[:, None], embeddings, np.nan)
        done += len(embeddings)
        report("embed the gallery", done / len(vectors))
    if done != len(vectors):
        raise BundleError(f"gallery: {done} images came out of batches(); expected one for each of its {len(vectors)} ids.")
    return vectors


def _probes(gallery: Dataset) -> tuple[tuple[int, ...], list[bytes]]:
    """Items whose images go into the warm-up requests: small files, spread over the gallery."""
    candidates = np.unique(np.linspace(0, len(gallery) - 1, 4 * _PROBES).astype(int)).tolist()
    files = {number: gallery.image_bytes(number) for number in candidates}
    chosen = sorted(sorted(candidates, key=lambda number: len(files[number]))[:_PROBES])
    return tuple(chosen), [files[number] for number in chosen]


def _check_probes(runner: SignatureRunner, gallery: Gallery, files: list[bytes]) -> None:
    """The way from a file through `serving_default` ends where the gallery's own way ended."""
    embeddings, valid = runner.from_bytes(files)
    if not valid.all():
        item = gallery.ids[gallery.probes[int(np.argmin(valid))]]
        raise BundleError(f"gallery: the exported model cannot decode the image file of item {item!r}.")
    vectors = gallery.vectors[list(gallery.probes)]
    if gallery.metric == "cosine":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    check_agreement(embeddings, vectors, gallery.metric)


def measured_search(runner: SignatureRunner, plan: SearchPlan, ids: Sequence[str], fields: tuple[str, ...]) -> SearchRecord:
    """What the exported graph finds of the true neighbours."""
    numbers = {item: number for number, item in enumerate(ids)}

    def search(rows: npt.NDArray[np.float32], k: int) -> tuple[list[list[int]], npt.NDArray[np.float32]]:
        parts = [runner.search_embeddings(rows[start : start + 32], k) for start in range(0, len(rows), 32)]
        found = [
            [numbers[item] for item in row[:count]] for part in parts for row, count in zip(part.ids, part.count, strict=True)
        ]
        return found, np.concatenate([part.distances for part in parts])

    return plan.measured(search, fields)


def _warmup_sizes(sizes: Sequence[int], signatures: int) -> list[int]:
    for size in sizes:
        check_positive("warmup_batch_sizes", size)
    if signatures * (len(sizes) + 1) > MOST_REQUESTS:
        raise BundleError(
            f"warmup_batch_sizes: {len(sizes)} sizes for {signatures} signatures; TF-Serving takes {MOST_REQUESTS} requests."
        )
    return sorted({int(size) for size in sizes})


def warmup_requests(
    files: list[bytes],
    images: npt.NDArray[np.uint8],
    embeddings: npt.NDArray[np.float32],
    sizes: list[int],
    search: SearchRecord | None,
) -> list[Request]:
    """Requests of the asked sizes for every signature; one of them holds every probe, for the deep verification."""
    sizes = sizes if max(sizes, default=0) >= len(files) else [*sizes, len(files)]
    requests: list[Request] = []
    for size in sizes:
        rows = [row % len(files) for row in range(size)]
        inputs = {
            BYTES_INPUT: np.array([files[row] for row in rows], object),
            IMAGES_INPUT: images[rows],
            EMBEDDING: embeddings[rows],
        }
        requests += [(name, {given: inputs[given]}) for name, given in EMBEDDING_SIGNATURES.items()]
        if search is not None:
            k = np.full(size, min(10, search.max_k), np.int32)
            requests += [(name, {given: inputs[given], K_INPUT: k}) for name, given in SEARCH_SIGNATURES.items()]
    return requests
