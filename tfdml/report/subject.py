"""What a report is about: embeddings with their labels and pictures, from a bundle or from a model and a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.evaluation.of_models import default_metric, embed
from tfdml.index.base import METRICS, Floats, Integers, check_ids, check_vectors

if TYPE_CHECKING:
    from tfdml.datasets import Dataset

Figures = Mapping[str, float]
LABEL = "label"


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Args:
        embeddings: `[N, D]`.
        labels: `[N]`, class numbers.
        class_names: by class number.
        ids: N different strings.
        image_bytes: an item's picture, the bytes of an image file, by its number.
        metric: `"cosine"` or `"euclidean"`.
        title: of the report.
        subtitle: a line below it.
        floors: figures to compare with, by name, such as those of raw pixels: `{"raw pixels": {"recall_at_1": 0.52, ...}}`.
        history: curves of the training: for each name the steps and the values, `{"loss": ([100, 200], [0.2, 0.1])}`.
        threshold: the distance below which a pair is taken for a match; None takes that of the equal error rate.
        threshold_text: where the threshold comes from.
        facts: `(name, text)`, to be listed at the end.
        remarks: sentences that a reader must know to judge the figures.
    """

    embeddings: Floats
    labels: Integers
    class_names: Sequence[str]
    ids: Sequence[str]
    image_bytes: Callable[[int], bytes]
    metric: str = "cosine"
    title: str = "An embedding"
    subtitle: str = ""
    floors: Mapping[str, Figures] = field(default_factory=dict)
    history: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    threshold: float | None = None
    threshold_text: str = "that of the equal error rate"
    facts: Sequence[tuple[str, str]] = ()
    remarks: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)
        vectors = check_vectors(self.embeddings, self.metric, "embeddings")
        labels = np.asarray(self.labels)
        if labels.shape != (len(vectors),) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"labels: expected {len(vectors)} class numbers, received shape {labels.shape} and dtype {labels.dtype}."
            )
        if labels.min() < 0 or labels.max() >= len(self.class_names):
            raise ValueError(
                f"labels: from {labels.min()} to {labels.max()}, but there are {len(self.class_names)} class_names."
            )
        object.__setattr__(self, "embeddings", vectors)
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "ids", check_ids((str(item) for item in self.ids), len(vectors)))

    def __len__(self) -> int:
        return len(self.embeddings)

    @classmethod
    def of_model(cls, model: Any, dataset: Dataset, batch_size: int = 64, **options: Any) -> Subject:
        """A model on the images of a dataset: take classes that were never trained on.

        Args:
            model: an `EmbeddingModel`, or any Keras model that makes images into vectors.
            dataset: a `tfdml.datasets.Dataset`.
            batch_size: images per step.
            options: `title`, `floors`, `history` and whatever else a `Subject` takes.
        """
        return cls.of_embeddings(embed(model, dataset, batch_size), dataset, **{"metric": default_metric(model), **options})

    @classmethod
    def of_embeddings(cls, embeddings: npt.ArrayLike, dataset: Dataset, **options: Any) -> Subject:
        """Embeddings that something else made of a dataset's images."""
        return cls(
            np.asarray(embeddings, np.float32),
            dataset.labels,
            dataset.class_names,
            [str(item) for item in dataset.ids],
            dataset.image_bytes,
            **options,
        )

    @classmethod
    def of_bundle(cls, path: str | os.PathLike[str], **options: Any) -> Subject:
        """The gallery of a bundle, every item with a label a query against all others. Loads no TensorFlow.

        Raises:
            ValueError: if its catalogue knows no classes (by a field "label") or holds no pictures.
        """
        from tfdml.bundle import Bundle

        with Bundle.open(path) as bundle:
            catalogue, manifest = bundle.catalogue, bundle.manifest
            if LABEL not in catalogue.fields:
                raise ValueError(
                    f"{bundle.path}: its catalogue has no field {LABEL!r}, so nothing is known to be right or wrong."
                )
            if not catalogue.has_thumbnails:
                raise ValueError(f"{bundle.path} holds no pictures of its items. Export it with thumbnails.")
            names = [item[LABEL] for item in catalogue]
            known = [number for number, name in enumerate(names) if name is not None]
            if not known:
                raise ValueError(f"{bundle.path}: none of its items has a {LABEL}, so nothing is known to be right or wrong.")
            class_names, labels = np.unique([str(names[number]) for number in known], return_inverse=True)
            pictures = [catalogue.thumbnail(number) or b"" for number in known]
            ids = catalogue.ids()
            model, index = manifest.model, manifest.index
            facts = [
                ("bundle", str(bundle.path)),
                ("made", f"{manifest.created} by tfdml {manifest.tfdml_version}"),
                ("model", f"{' x '.join(map(str, model.input_shape))} to {model.dimension} dimensions"),
                ("index", f"{index['backend']}, finds {index['recall']:.1%} of the {index['recall_at']} true neighbours"),
            ]
            given: dict[str, Any] = {"title": f"{bundle.path.parent.name}, version {bundle.path.name}", "facts": facts}
            if len(known) < len(names):
                left_out = len(names) - len(known)
                given["remarks"] = [f"{left_out:,} of {len(names):,} items have no {LABEL} and are left out."]
            if manifest.evaluation:
                given["floors"] = {"noted at export": manifest.evaluation}
            if (name := manifest.usual_threshold()) is not None:
                threshold = manifest.thresholds[name]
                given |= {"threshold": threshold.distance, "threshold_text": f"the bundle's own, {name}: {threshold.target}"}
            return cls(
                np.array(bundle.index.vectors(known)),
                labels.reshape(-1),
                class_names.tolist(),
                [ids[number] for number in known],
                pictures.__getitem__,
                **{"metric": manifest.metric, **given, **options},
            )
