"""The part of verification that runs the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfdml.bundle.catalogue import Catalogue
from tfdml.bundle.deep_search import check_search_signatures
from tfdml.bundle.errors import BundleError
from tfdml.bundle.layout import WARMUP
from tfdml.bundle.manifest import Manifest
from tfdml.bundle.runner import SignatureRunner
from tfdml.bundle.saved_model import BYTES_INPUT, FROM_BYTES
from tfdml.bundle.verification import refusing
from tfdml.bundle.warmup import read_warmup
from tfdml.index import StoredIndex

# Of an embedding's length. Other kernels round differently, about 1e-6; another model, or another resize, is far beyond.
TOLERANCE = 1e-3


def check_model(root: Path, manifest: Manifest, index: StoredIndex, catalogue: Catalogue) -> Iterator[str]:
    """Yields a sentence for each thing that is in order.

    Raises:
        BundleError: unless the SavedModel runs here, the probes land on their vectors in the index, and its search signatures
            answer as the index would.
    """
    with refusing(root):
        runner = SignatureRunner(root, manifest.model, manifest.search.fields if manifest.search else None)
        images: list[bytes] = []
        if manifest.probes:
            images = probe_images(root, len(manifest.probes))
            embeddings, valid = runner.from_bytes(images)
            if not valid.all():
                raise BundleError("the model cannot decode the images of its own warm-up requests.")
            check_agreement(embeddings, index.vectors(list(manifest.probes)), manifest.metric)
        yield f"model: operations, signatures, and {len(manifest.probes)} images that land on their vectors in the index"
        if manifest.search is not None:
            searched = check_search_signatures(runner, manifest, index, catalogue, images)
            yield f"search: {manifest.search.method}, {searched} items find themselves, at the distances of the index"


def probe_images(root: Path, count: int) -> list[bytes]:
    """The bytes of the probes' images: the largest warm-up request begins with them."""
    files: list[bytes] = []
    for signature, inputs in read_warmup(root / WARMUP):
        if signature == FROM_BYTES and inputs[BYTES_INPUT].size > len(files):
            files = [bytes(file) for file in inputs[BYTES_INPUT].tolist()]
    if len(files) < count:
        raise BundleError(f"the warm-up requests hold {len(files)} images; the manifest speaks of {count} probes.")
    return files[:count]


def check_agreement(
    embeddings: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], metric: str, tolerance: float = TOLERANCE
) -> float:
    """The largest difference between embeddings and index vectors, as a share of their length; refuses a large one."""
    if metric == "cosine":
        embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), np.finfo(np.float32).tiny)
    worst = float(np.max(np.linalg.norm(embeddings - vectors, axis=1) / lengths))
    if not worst <= tolerance:
        raise BundleError(
            f"the model embeds images of the gallery {worst:.2g} (relative) away from their vectors in the index, more than "
            f"{tolerance:g}: they are not a pair, or the gallery's pixels were prepared in another way than `serving_default` "
            "prepares them. Give export the preprocessing of the gallery."
        )
    return worst
