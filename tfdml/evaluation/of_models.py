"""From a model and a dataset to retrieval figures. Keras is not imported: whatever has `predict` is a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdml.evaluation.ranking import retrieval
from tfdml.evaluation.retrieval_result import RetrievalResult
from tfdml.index.base import Floats

if TYPE_CHECKING:
    from tfdml.datasets import Dataset


def evaluate_dataset(
    model: Any,
    dataset: Dataset,
    gallery: Dataset | None = None,
    *,
    metric: str | None = None,
    ks: int | Sequence[int] | None = None,
    batch_size: int = 64,
) -> RetrievalResult:
    """Retrieval figures of a Keras model on a dataset.

    Args:
        model: an `EmbeddingModel`, or any Keras model that makes images into vectors `[N, D]`.
        dataset: its images are the queries.
        gallery: another dataset to search in; classes are compared by *name*, and an image with the query's id is left out.
            None: every image of the dataset is a query against all others.
        metric: `"cosine"`, `"euclidean"`, or None for `default_metric(model)`.
        ks: the k of Recall@k; None takes those of 1, 5 and 10 that there are items for.
        batch_size: images per step.

    Returns:
        A `RetrievalResult`; see `tfdml.evaluation.retrieval`, whose errors apply.
    """
    metric = metric or default_metric(model)
    embeddings = embed(model, dataset, batch_size)
    if gallery is None:
        return retrieval(embeddings, dataset.labels, dataset.ids, metric=metric, ks=ks)
    return retrieval(
        embeddings,
        np.asarray(dataset.class_names)[dataset.labels],
        dataset.ids,
        embed(model, gallery, batch_size),
        np.asarray(gallery.class_names)[gallery.labels],
        gallery.ids,
        metric=metric,
        ks=ks,
    )


def default_metric(model: Any) -> str:
    """Euclidean for an `EmbeddingModel` that leaves its vectors as long as they are; cosine for all other models."""
    return "cosine" if getattr(model, "normalize", True) else "euclidean"


def images_and_labels(dataset: Any) -> tuple[Any, Any]:
    """What a callback measures on: a Dataset and its labels, or a pair of arrays."""
    if isinstance(dataset, (tuple, list)) and len(dataset) == 2:
        return np.asarray(dataset[0]), np.asarray(dataset[1])
    if hasattr(dataset, "batches") and hasattr(dataset, "labels"):
        return dataset, dataset.labels
    raise ValueError(
        f"dataset: expected a tfdml.datasets.Dataset or a pair (images, labels) of arrays, received {type(dataset).__name__}."
    )


def embed(model: Any, images: Any, batch_size: int = 64) -> Floats:
    """Embeddings `[N, D]` of a dataset's images (anything with `batches(batch_size)`), or of an array of images.

    Raises:
        ValueError: if the model returns several outputs, or anything but one vector for each image.
    """
    count = len(images)
    if hasattr(images, "batches"):
        output = model.predict(images.batches(batch_size), verbose=0)
    else:
        output = model.predict(images, batch_size=batch_size, verbose=0)
    if not isinstance(output, np.ndarray):
        names = f" ({', '.join(map(str, output))})" if isinstance(output, dict) else ""
        raise ValueError(
            f"model: {model.name!r} returns {len(output)} outputs{names}, expected one array of embeddings. "
            "Evaluate the part of it that makes the embeddings: keras.Model(model.inputs, embedding)."
        )
    if output.ndim != 2 or len(output) != count:
        raise ValueError(
            f"model: {model.name!r} returns shape {output.shape} for {count} images, expected one vector for each, "
            f"({count}, dimension)."
        )
    return output.astype(np.float32)
