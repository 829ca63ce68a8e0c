"""Index, catalogue and manifest beside a SavedModel: the half of an export that needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import tfdml
from tfdml.bundle.catalogue import Value
from tfdml.bundle.catalogue_writer import check_ids, write_catalogue
from tfdml.bundle.errors import BundleError
from tfdml.bundle.layout import CATALOGUE, INDEX_FILES, MANIFEST, RETRIEVAL, list_files, model_fingerprint, record_file
from tfdml.bundle.manifest import FoldedRecord, Manifest, ModelRecord, SearchRecord, Threshold
from tfdml.bundle.match_probability import MatchProbability
from tfdml.index.stored import IndexSettings, build_index, index_settings

_LIBRARIES = ("tensorflow", "keras", "numpy", "annoy")
_LIBRARIES_OF = {"faiss": ("faiss",), "milvus": ("pymilvus", "milvus-lite", "faiss")}


@dataclasses.dataclass(frozen=True)
class Gallery:
    """What goes into index and catalogue.

    Args:
        vectors: float32 `[N, D]`, the items' embeddings, finite; not zero if the metric is cosine.
        ids: N different strings.
        fields: columns of N values each, by name.
        metric: "cosine" or "euclidean".
        probes: numbers of the items whose images are in the warm-up requests, by which a reader can check that the model
            still makes the index's vectors.
        thumbnails: for every item the bytes of a small image file, or None, in order; read once. None for no pictures at all.
    """

    vectors: npt.NDArray[np.float32]
    ids: Sequence[str]
    fields: Mapping[str, Sequence[Value]]
    metric: str
    probes: tuple[int, ...] = ()
    thumbnails: Iterable[bytes | None] | None = None


def pack(
    directory: Path,
    gallery: Gallery,
    model: ModelRecord,
    *,
    recall: float = 0.95,
    index: IndexSettings = "annoy",
    trees: int | str = "auto",
    seed: int = 0,
    evaluation: Mapping[str, float] | None = None,
    thresholds: Mapping[str, Threshold] | None = None,
    search: SearchRecord | None = None,
    space: str = "",
    folded: FoldedRecord | None = None,
    match_probability: MatchProbability | None = None,
) -> Manifest:
    """Completes a directory that holds a SavedModel: builds the index, writes the catalogue and, last, the manifest.

    Args:
        directory: the version directory in the making; everything in it is recorded.
        gallery: the items.
        model: what is known of the model; its fingerprint is computed here.
        recall: share of the true neighbours that the index must find.
        index: as in `tfdml.index.build_index`.
        trees: of an index by Annoy.
        seed: of the index.
        evaluation: retrieval figures by name.
        thresholds: calibrated distances by name.
        search: how the SavedModel searches by itself, if it does.
        space: the embedding space's name, where it is not the model's own.
        folded: which changes of a living catalogue the gallery holds.
        match_probability: how likely an answer is right, from its distance.

    Raises:
        BundleError: for items that cannot be indexed, or if the asked recall is not reached.
    """
    check_gallery(gallery, model.dimension)
    files = {name: record_file(directory / name) for name in list_files(directory)}
    (directory / RETRIEVAL).mkdir(parents=True, exist_ok=True)
    workshop = directory / ".index"
    workshop.mkdir()
    try:
        try:
            settings = with_trees(index, trees)
            built = build_index(
                gallery.vectors, gallery.ids, gallery.metric, settings, seed=seed, recall=recall, folder=workshop
            )
        except ValueError as error:
            raise BundleError(f"the index cannot be built: {error}") from error
        file = INDEX_FILES[settings["backend"]]
        spec = built.save(directory / file)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    manifest = Manifest(
        created=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tfdml_version=tfdml.__version__,
        model=dataclasses.replace(model, fingerprint=model_fingerprint(files)),
        metric=gallery.metric,
        items=len(gallery.ids),
        index=spec.as_dict(),
        evaluation={name: float(value) for name, value in (evaluation or {}).items()},
        thresholds=dict(thresholds or {}),
        libraries=_library_versions(settings["backend"]),
        probes=tuple(int(number) for number in gallery.probes),
        files={},
        search=search,
        space=space,
        folded=folded,
        match_probability=match_probability,
    )
    notes = {"manifest_identity": manifest.identity()}
    write_catalogue(directory / CATALOGUE, gallery.ids, gallery.fields, notes, gallery.thumbnails)
    added = {name: record_file(directory / name) for name in (file, CATALOGUE)}
    manifest = dataclasses.replace(manifest, files={**files, **added})
    data = manifest.to_bytes()
    Manifest.from_bytes(data)
    (directory / MANIFEST).write_bytes(data)
    return manifest


def with_trees(index: IndexSettings, trees: int | str) -> dict[str, Any]:
    """The settings of an index, with the number of trees if that was given apart."""
    settings = index_settings(index)
    if trees == "auto":
        return settings
    if settings["backend"] != "annoy":
        raise ValueError(f"trees={trees!r}: only an index by Annoy has trees, and index={index!r} is another. Leave it out.")
    return {**settings, "trees": trees}


def check_gallery(gallery: Gallery, dimension: int) -> None:
    """Raises a `BundleError` that names the items which cannot be indexed."""
    vectors, ids = gallery.vectors, gallery.ids
    check_ids(ids)
    if vectors.ndim != 2 or vectors.shape != (len(ids), dimension):
        raise BundleError(
            f"the gallery has {len(ids)} ids and embeddings of shape {vectors.shape}; expected {(len(ids), dimension)}."
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise BundleError(
            f"the embeddings of {len(bad)} of {len(ids)} items are not finite, e.g. {_some(ids, bad)}. "
            "Look at these images, and whether the model has diverged."
        )
    zero = np.flatnonzero(~vectors.any(axis=1))
    if len(zero) and gallery.metric == "cosine":
        raise BundleError(
            f"the embeddings of {len(zero)} of {len(ids)} items are zero, e.g. {_some(ids, zero)}, and have no "
            'direction. Look at these images, or use metric="euclidean".'
        )


def _some(ids: Sequence[str], numbers: npt.NDArray[Any]) -> str:
    return ", ".join(repr(ids[number]) for number in numbers[:3])


def _library_versions(backend: str) -> dict[str, str]:
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in (*_LIBRARIES, *_LIBRARIES_OF.get(backend, ())):
        for distribution in (name, f"{name}-cpu"):
            try:
                found[name] = metadata.version(distribution)
                break
            except metadata.PackageNotFoundError:
                continue
    return found
