"""Whether a bundle is whole and its parts belong together. Needs no TensorFlow unless asked for the deep check."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tfdml.bundle.catalogue import Catalogue
from tfdml.bundle.errors import BundleError
from tfdml.bundle.layout import (
    CATALOGUE,
    MANIFEST,
    FileRecord,
    index_file,
    list_files,
    model_fingerprint,
    record_file,
    resolve,
)
from tfdml.bundle.manifest import LARGEST_MANIFEST, Manifest
from tfdml.index import IndexFormatError, StoredIndex, load_index
from tfdml.index._ids import PackedIds

_AGAIN = "Copy or export the bundle anew."


@dataclasses.dataclass(frozen=True)
class VerificationReport:
    """What `verify` looked at and found in order.

    Args:
        path: the version directory.
        manifest: its manifest.
        checks: one sentence for each thing that was checked.
    """

    path: Path
    manifest: Manifest
    checks: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.path}: in order", *(f"  - {check}" for check in self.checks)])


def verify(
    path: str | os.PathLike[str], *, deep: bool = False, progress: Callable[[str], None] | None = None
) -> VerificationReport:
    """Checks every byte of a bundle, and that its parts belong together.

    The manifest's own checksum and form; no file missing, added or changed (size and SHA-256); the model's fingerprint; the
    catalogue's integrity and its link to this manifest; dimension, metric and item count of manifest, index and catalogue; a
    search in the index that returns n of n neighbours.

    Args:
        path: a version directory, or a model directory, whose latest version is taken.
        deep: also load the SavedModel with TensorFlow, look at its operations and signatures, and embed the images of the
            warm-up requests anew: they must land on their vectors in the index. Its search signatures must find these items,
            and others of the gallery, at the distances that the index has.
        progress: called with a sentence when a check is done.

    Raises:
        BundleError: at the first thing that is wrong, saying what, and nothing else whatever the damage.
    """
    root = resolve(path)
    done: list[str] = []

    def note(check: str) -> None:
        done.append(check)
        if progress is not None:
            progress(check)

    with refusing(root):
        manifest = read_manifest(root)
        note(f"manifest: schema and checksum, written by tfdml {manifest.tfdml_version} on {manifest.created}")
        check_files(root, manifest)
        total = sum(file.bytes for file in manifest.files.values())
        note(f"files: {len(manifest.files)} with {total:,} bytes, sizes and SHA-256")
        with open_catalogue(root, manifest) as catalogue:
            catalogue.check()
            note(f"catalogue: {len(catalogue)} items with {len(catalogue.fields)} fields, made with this manifest")
            index = open_index(root, manifest, catalogue)
            spec = index.spec
            note(
                f"index: {index.kind}, {len(index)} vectors of dimension {index.dimension}, {index.metric}, "
                f"recall@{spec.recall_at} {spec.recall:.3f}"
            )
            if deep:
                from tfdml.bundle.deep import check_model

                for check in check_model(root, manifest, index, catalogue):
                    note(check)
    return VerificationReport(root, manifest, tuple(done))


def read_manifest(root: Path) -> Manifest:
    """The manifest of a version directory."""
    path = root / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{str(root)!r} has no file {MANIFEST}: not a bundle, or an incomplete copy. {_AGAIN}")
    with open(path, "rb") as file:
        return Manifest.from_bytes(file.read(LARGEST_MANIFEST + 1))


def check_files(root: Path, manifest: Manifest) -> None:
    """Every file is there with its size and checksum, no other is, and the model is the one that the index was made with."""
    there, listed = set(list_files(root)) - {MANIFEST}, set(manifest.files)
    for name in (index_file(manifest.index), CATALOGUE, "saved_model.pb"):
        if name not in listed:
            raise BundleError(f"{MANIFEST}: lists no {name}. {_AGAIN}")
    if missing := sorted(listed - there):
        raise BundleError(f"{_names(missing)}: missing. {_AGAIN}")
    if extra := sorted(there - listed):
        raise BundleError(f"{_names(extra)}: not of this bundle. A published version is never changed: remove what was added.")
    # Sizes first: they find a truncated copy at once.
    for name, record in sorted(manifest.files.items()):
        _check_size(root, name, record)
    # The largest first, each on a core of its own: computing a checksum releases Python's lock.
    names = sorted(manifest.files, key=lambda name: (-manifest.files[name].bytes, name))
    with ThreadPoolExecutor(min(len(names), os.cpu_count() or 1, 8)) as pool:
        for name, found in zip(names, pool.map(lambda name: record_file(root / name), names), strict=True):
            if found != manifest.files[name]:
                pool.shutdown(wait=False, cancel_futures=True)
                raise BundleError(
                    f"{name}: its SHA-256 is not that of the manifest; the file is damaged or another one. {_AGAIN}"
                )
    if model_fingerprint(manifest.files) != manifest.model.fingerprint:
        raise BundleError(
            f"the model is not the one that the index was made with (fingerprint {manifest.model.fingerprint[:12]}). {_AGAIN}"
        )


def open_catalogue(root: Path, manifest: Manifest) -> Catalogue:
    """The catalogue, if it was written with this manifest."""
    catalogue = Catalogue(root / CATALOGUE)
    try:
        if catalogue.metadata.get("manifest_identity") != manifest.identity():
            raise BundleError(f"{CATALOGUE} and {MANIFEST} are of different bundles, or the manifest was edited. {_AGAIN}")
        if len(catalogue) != manifest.items:
            raise BundleError(f"{CATALOGUE} has {len(catalogue)} items, {MANIFEST} says {manifest.items}. {_AGAIN}")
        outside = [number for number in manifest.probes if number >= manifest.items]
        if outside:
            raise BundleError(f"{MANIFEST}: probe {outside[0]} is not an item number below {manifest.items}. {_AGAIN}")
        unknown = [name for name in (manifest.search.fields if manifest.search else ()) if name not in catalogue.fields]
        if unknown:
            raise BundleError(f"{MANIFEST}: the search returns the field {unknown[0]!r}, which {CATALOGUE} has not. {_AGAIN}")
    except BaseException:
        catalogue.close()
        raise
    return catalogue


def open_index(root: Path, manifest: Manifest, catalogue: Catalogue) -> StoredIndex:
    """The index, if it has the manifest's dimension, metric and number of items, and its record is that of its file."""
    name = index_file(manifest.index)
    file = manifest.files.get(name)
    if file is None or (manifest.index.get("sha256"), manifest.index.get("bytes")) != (file.sha256, file.bytes):
        raise BundleError(f"{name} is not the index that was built for this bundle. {_AGAIN}")
    for key, expected in {
        "dimension": manifest.model.dimension,
        "metric": manifest.metric,
        "count": manifest.items,
    }.items():
        if manifest.index.get(key) != expected:
            raise BundleError(f"{MANIFEST}: the index has {key}={manifest.index.get(key)!r}, the bundle {expected!r}. {_AGAIN}")
    try:
        return load_index(root / name, manifest.index, PackedIds(catalogue.iter_ids()), checksum=False)
    except ImportError as error:
        raise BundleError(str(error)) from error


@contextmanager
def refusing(root: Path) -> Iterator[None]:
    """Whatever goes wrong while a bundle is read is a refusal of the bundle."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"{str(root)!r} is refused: {error}") from error.__cause__
    except IndexFormatError as error:
        raise BundleError(f"{str(root)!r} is refused: index: {error}") from error
    except (OSError, ValueError, MemoryError) as error:
        raise BundleError(f"{str(root)!r} is refused: {type(error).__name__}: {error}") from error


def _check_size(root: Path, name: str, record: FileRecord) -> None:
    size = (root / name).stat().st_size
    if size != record.bytes:
        raise BundleError(f"{name}: {size:,} bytes, expected {record.bytes:,}; it is truncated or another file. {_AGAIN}")


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
