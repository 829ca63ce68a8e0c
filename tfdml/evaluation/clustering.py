"""Clustering figures: do the classes come out as clusters? scikit-learn does the clustering."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.evaluation._labels import class_numbers
from tfdml.index.base import METRICS, Integers, check_vectors

Doubles = npt.NDArray[np.float64]
NORMALIZERS = ("arithmetic", "geometric", "min", "max")


class OverSeeds(NamedTuple):
    """A figure over several runs of k-means.

    Attributes:
        mean: over the seeds.
        deviation: standard deviation of the seeds' values (n - 1); 0 for one seed.
        values: float64, of each seed.
    """

    mean: float
    deviation: float
    values: Doubles

    def __str__(self) -> str:
        return f"{self.mean:.2%} ± {self.deviation:.2%}"


@dataclass(frozen=True)
class ClusteringResult:
    """What `clustering` found.

    Attributes:
        nmi: normalised mutual information of clusters and classes.
        ami: adjusted mutual information: 0 on average for clusters drawn at random.
        f1: pairwise F1: of the pairs in one cluster against the pairs of one class.
        normalizer: the mean of both entropies that NMI is divided by.
        clusters: number of clusters.
        items: number of embeddings.
        seeds: those of k-means.
        metric: `"cosine"` or `"euclidean"`.
        assignments: int64 `[seeds, N]`, the cluster of each item.
    """

    nmi: OverSeeds
    ami: OverSeeds
    f1: OverSeeds
    normalizer: str
    clusters: int
    items: int
    seeds: tuple[int, ...]
    metric: str
    assignments: Integers = field(repr=False, compare=False)

    def figures(self, prefix: str = "") -> dict[str, float]:
        """`nmi`, `ami` and `pairwise_f1`, means over the seeds, each name with the prefix."""
        values = {"nmi": self.nmi.mean, "ami": self.ami.mean, "pairwise_f1": self.f1.mean}
        return {prefix + name: value for name, value in values.items()}

    def as_dict(self, prefix: str = "") -> dict[str, Any]:
        """The figures, their deviations and how they were computed, ready for JSON."""
        more = {"nmi_deviation": self.nmi.deviation, "ami_deviation": self.ami.deviation}
        more |= {"pairwise_f1_deviation": self.f1.deviation, "clusters": self.clusters}
        return self.figures(prefix) | {prefix + name: value for name, value in more.items()}

    def __str__(self) -> str:
        return (
            f"NMI          {self.nmi} ({self.normalizer})\n"
            f"AMI          {self.ami}\n"
            f"pairwise F1  {self.f1}\n"
            f"{self.items:,} items in {self.clusters:,} clusters by k-means, {len(self.seeds)} seeds; {self.metric}"
        )


def clustering(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    clusters: int | None = None,
    seeds: int | Iterable[int] = range(5),
    normalizer: str = "arithmetic",
    metric: str = "cosine",
) -> ClusteringResult:
    r"""NMI, AMI and pairwise F1 of k-means clusters against the classes, over several seeds.

    With U the clusters and V the classes, I their mutual information and H the entropy:

        NMI  I(U, V) / mean(H(U), H(V)); the mean is `normalizer`: papers use the arithmetic one, 2 I / (H(U) + H(V)), and
             scikit-learn took the geometric one before version 0.22
        AMI  (I - E[I]) / (mean(H(U), H(V)) - E[I]), with the arithmetic mean and E over random clusters of the same sizes
        F1   2 P R / (P + R), P the share of the pairs in one cluster that are of one class, R the share of the pairs of one
             class that are in one cluster

    k-means starts at random, so one seed is an anecdote: papers average ten (N-pair). NMI is high for random embeddings where
    clusters are many; read AMI beside it. Prefer MAP@R for choosing between models.

    Args:
        embeddings: `[N, D]`, finite.
        labels: `[N]`, integers or strings.
        clusters: number of clusters; None: as many as there are classes.
        seeds: of k-means, one run for each.
        normalizer: `"arithmetic"`, `"geometric"`, `"min"` or `"max"`.
        metric: `"cosine"`: vectors are divided by their length first; or `"euclidean"`.

    Raises:
        ImportError: without scikit-learn, which `pip install 'tfdml[evaluation]'` brings.
        ValueError: for NaN or infinity, one class, or more clusters than items.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import clustering
        >>> labels = np.arange(60) // 15
        >>> embeddings = np.eye(4)[labels] + 0.1 * np.random.default_rng(0).normal(size=(60, 4))
        >>> found = clustering(embeddings, labels)
        >>> found.nmi.mean > 0.8
        True
    """
    check_choice("metric", metric, METRICS)
    check_choice("normalizer", normalizer, NORMALIZERS)
    vectors = check_vectors(embeddings, metric, "embeddings")
    classes = class_numbers(labels, len(vectors), "labels")
    present = int(classes.max()) + 1
    if present < 2:
        raise ValueError(f"labels: all {len(vectors)} items are of one class, so every clustering would be right.")
    count = present if clusters is None else clusters
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 2 <= count <= len(vectors):
        raise ValueError(f"clusters={clusters!r}: expected a whole number from 2 to {len(vectors)}, the number of items.")
    chosen = tuple(int(seed) for seed in (seeds if isinstance(seeds, Iterable) else [seeds]))
    if not chosen:
        raise ValueError("seeds: received none. Expected one or more, such as range(5).")
    kmeans, metrics = _scikit_learn()
    rows = []
    assignments = np.empty((len(chosen), len(vectors)), np.int64)
    for row, seed in enumerate(chosen):
        assignments[row] = kmeans(n_clusters=int(count), n_init=1, random_state=seed).fit_predict(vectors)
        nmi = metrics.normalized_mutual_info_score(classes, assignments[row], average_method=normalizer)
        ami = metrics.adjusted_mutual_info_score(classes, assignments[row])
        rows.append((nmi, ami, pairwise_f1(classes, assignments[row])))
    nmi, ami, f1 = (_over(np.array(column, np.float64)) for column in zip(*rows, strict=True))
    return ClusteringResult(nmi, ami, f1, normalizer, int(count), len(vectors), chosen, metric, assignments)


def pairwise_f1(classes: Integers, clusters: Integers) -> float:
    """F1 of the pairs in one cluster against the pairs of one class, from counts alone."""
    cells = np.unique(clusters.astype(np.int64) * (int(classes.max()) + 1) + classes, return_counts=True)[1]
    both, one_class, one_cluster = (
        float((sizes * (sizes - 1)).sum()) for sizes in (cells, np.bincount(classes), np.bincount(clusters))
    )
    # 2 P R / (P + R) with P = both / one_cluster, R = both / one_class.
    return 2 * both / (one_class + one_cluster) if one_class + one_cluster else 0.0


def _over(values: Doubles) -> OverSeeds:
    return OverSeeds(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0, values)


def _scikit_learn() -> tuple[Any, Any]:
    try:
        from sklearn import metrics
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError(
            "clustering needs scikit-learn, which is not installed. Install it with: pip install 'tfdml[evaluation]'"
        ) from error
    return KMeans, metrics
