"""Joint Bayesian verification on features. NumPy only."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_positive
from tfdml.evaluation._labels import class_numbers
from tfdml.index.base import check_vectors

Doubles = npt.NDArray[np.float64]

_FORMAT = 1
_ROUNDING = 1e-10
"""Directions with less than this share of the largest variance are rounding errors."""


class JointBayesian:
    r"""How much likelier is it that two vectors are of one class than of two? A score that is learned from labelled vectors.

    A vector is the sum of what its class is and how this item of it differs:

        x = m + mu + eps,   mu ~ N(0, S_mu),   eps ~ N(0, S_eps)
        score(x1, x2) = log P(x1, x2 | one mu) - log P(x1, x2 | a mu each)

    Above 0, one class is the likelier. DeepID2 verifies faces in this way: features of a trained network, PCA to 180
    dimensions, Joint Bayesian. Train it on classes that the *network* was not trained on where there are enough: DeepID2 did.

    `fit` finds S_mu and S_eps by expectation maximisation, exactly (with the covariance of the unknown mu, not only its mean),
    so the likelihood never falls. In each step both matrices are made diagonal at once, S_eps = 1 and S_mu = ratio, where
    classes of any size cost the same and nothing is inverted; the score is then a sum over dimensions,

        score = sum of ratio / (1 + 2 ratio) * z1 z2 - ratio^2 / (2 (1 + ratio) (1 + 2 ratio)) * (z1^2 + z2^2) + constant

    It stands in the place of a metric: `tfdml.evaluation.verification(features, labels, metric=joint_bayesian)`.

    Args:
        components: take the so many first principal components of the vectors first (DeepID2: 180); None: all directions in
            which they differ.
        iterations: at most so many steps.
        tolerance: stop when a step raises the mean log-likelihood of a vector by less.

    Attributes:
        log_likelihoods: before each step, that of a vector on average, in coordinates in which the vectors have variance 1;
            empty for one that was loaded.

    Raises:
        ValueError: (by `fit`) for NaN or infinity; without two classes, one of them with two vectors; for more components than
            the vectors or their differences within classes can tell.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import JointBayesian
        >>> random, labels = np.random.default_rng(0), np.arange(600) // 3
        >>> spread = np.array([3.0, 1.0, 0.1])  # classes differ in the first direction, and hardly in the last
        >>> x = (spread * random.normal(size=(200, 3)))[labels] + random.normal(size=(600, 3))
        >>> joint_bayesian = JointBayesian().fit(x, labels)
        >>> scores = joint_bayesian.score([[5.0, 0, 0], [0, 0, 0]], [[5.0, 0, 2], [5.0, 0, 0]])
        >>> bool(scores[0] > 0 > scores[1])
        True

    References:
        Chen, Cao, Wang, Wen and Sun, Bayesian Face Revisited: A Joint Formulation, ECCV 2012.
        Sun, Chen, Wang and Tang, Deep Learning Face Representation by Joint Identification-Verification, NIPS 2014.
    """

    def __init__(self, components: int | None = None, iterations: int = 200, tolerance: float = 1e-6) -> None:
        if components is not None and (isinstance(components, bool) or not hasattr(components, "__index__") or components < 1):
            raise ValueError(f"components={components!r}: expected a whole number >= 1, or None for all directions.")
        check_positive("iterations", iterations)
        check_positive("tolerance", tolerance, allow_zero=True)
        self.components, self.iterations, self.tolerance = components, int(iterations), float(tolerance)
        self.log_likelihoods: list[float] = []
        self._mean: Doubles | None = None
        self._transform = np.empty((0, 0))
        self._ratio = np.empty(0)

    def fit(self, features: npt.ArrayLike, labels: npt.ArrayLike) -> JointBayesian:
        """Learns from features `[N, D]` with labels `[N]`, integers or strings; returns itself."""
        vectors = check_vectors(features, "euclidean", "features").astype(np.float64)
        classes = class_numbers(labels, len(vectors), "labels")
        sizes = np.bincount(classes)
        if len(sizes) < 2 or sizes.max() < 2:
            raise ValueError(
                f"labels: {len(sizes)} classes, the largest of {sizes.max()} vectors. "
                "Expected two classes or more, and two vectors in one of them."
            )
        mean = vectors.mean(axis=0)
        whitening = self._whitening(vectors - mean, len(vectors) - len(sizes))
        white = (vectors - mean) @ whitening
        class_means = np.zeros((len(sizes), white.shape[1]))
        np.add.at(class_means, classes, white)
        class_means /= sizes[:, None]
        within = white - class_means[classes]
        scatter = within.T @ within
        if np.linalg.eigvalsh(scatter / len(white))[0] < _ROUNDING:
            raise ValueError(
                f"components={self.components}: {white.shape[1]} dimensions, in some of which the vectors of a class do not "
                "differ at all. Ask for fewer components, or take more vectors for each class."
            )
        expectation = _Expectation(class_means, sizes, scatter)
        self.log_likelihoods = []
        for _ in range(self.iterations):
            basis, ratio = expectation.diagonalise()
            self.log_likelihoods.append(expectation.log_likelihood(basis, ratio) / len(white))
            if len(self.log_likelihoods) > 1 and self.log_likelihoods[-1] - self.log_likelihoods[-2] < self.tolerance:
                break
            expectation.step(basis, ratio)
        else:
            basis, ratio = expectation.diagonalise()
        self._mean, self._transform, self._ratio = mean, whitening @ basis, ratio
        return self

    def transform(self, features: npt.ArrayLike) -> Doubles:
        """`[N, D]` to `[N, K]`: coordinates with variance 1 within a class and `ratio` between classes."""
        mean = self._fitted()
        vectors = check_vectors(features, "euclidean", "features")
        if vectors.shape[1] != len(mean):
            raise ValueError(f"features: dimension {vectors.shape[1]}, but it was fitted to vectors of {len(mean)}.")
        return (vectors - mean) @ self._transform

    def score(self, left: npt.ArrayLike, right: npt.ArrayLike) -> Doubles:
        """`[P, D]` and `[P, D]` to `[P]`: the log-likelihood ratio of each row with the same row."""
        first, second = self.transform(left), self.transform(right)
        if first.shape != second.shape:
            raise ValueError(f"right: {len(second)} vectors, but left has {len(first)}. Expected as many; or use pairwise.")
        cross, own, constant = self._weights()
        return (first * second) @ cross - (first**2 + second**2) @ own + constant

    def pairwise(self, left: npt.ArrayLike, right: npt.ArrayLike | None = None) -> Doubles:
        """`[N, D]` and `[M, D]` to `[N, M]`: the log-likelihood ratios of all pairs."""
        first = self.transform(left)
        second = first if right is None else self.transform(right)
        cross, own, constant = self._weights()
        return (first * cross) @ second.T - (first**2 @ own)[:, None] - second**2 @ own + constant

    @property
    def between(self) -> Doubles:
        """`[D, D]`, S_mu: the covariance of the classes, in the space of the features (of their components)."""
        basis = self._basis()
        return (basis * self._ratio) @ basis.T

    @property
    def within(self) -> Doubles:
        """`[D, D]`, S_eps: the covariance within a class, in the space of the features (of their components)."""
        basis = self._basis()
        return basis @ basis.T

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an `.npz` file of plain numbers: nothing in it is pickled."""
        self._fitted()
        with open(_npz(path), "wb") as file:
            np.savez(file, format=_FORMAT, mean=self._mean, transform=self._transform, ratio=self._ratio)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> JointBayesian:
        """Reads what `save` wrote.

        Raises:
            ValueError: for a file that is none, or not whole.
        """
        loaded = cls()
        try:
            with np.load(_npz(path), allow_pickle=False) as file:
                version = int(file["format"])
                mean, transform, ratio = (file[name].astype(np.float64) for name in ("mean", "transform", "ratio"))
        except (ValueError, KeyError, zipfile.BadZipFile, EOFError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"path={str(path)!r}: not a JointBayesian that save() wrote, or damaged ({error}).") from error
        fits = mean.ndim == ratio.ndim == 1 and transform.shape == mean.shape + ratio.shape
        sound = all(np.isfinite(numbers).all() for numbers in (mean, transform, ratio)) and (ratio >= 0).all()
        if version != _FORMAT or not fits or not sound:
            raise ValueError(
                f"path={str(path)!r}: format {version} with shapes {mean.shape}, {transform.shape}, {ratio.shape}; "
                f"expected format {_FORMAT} with finite numbers of shapes [D], [D, K], [K]."
            )
        loaded._mean, loaded._transform, loaded._ratio = mean, transform, ratio
        loaded.components = len(ratio)
        return loaded

    def __repr__(self) -> str:
        shape = "not fitted" if self._mean is None else f"{len(self._mean)} -> {len(self._ratio)} dimensions"
        return f"JointBayesian(components={self.components}, {shape})"

    def _whitening(self, centred: Doubles, differences: int) -> Doubles:
        """`[D, K]`: to the first principal components, each of variance 1."""
        variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
        variances, directions = variances[::-1], directions[:, ::-1]
        available = min(int((variances > _ROUNDING * variances[0]).sum()) if variances[0] > 0 else 0, differences)
        if available == 0:
            raise ValueError("features: all vectors are equal.")
        if self.components is not None and self.components > available:
            raise ValueError(
                f"components={self.components}: the features tell {available} directions apart (dimension {len(variances)}, "
                f"{differences} vectors more than classes). Ask for that many at most, or take more vectors."
            )
        kept = self.components or available
        return directions[:, :kept] / np.sqrt(variances[:kept])

    def _weights(self) -> tuple[Doubles, Doubles, float]:
        ratio = self._ratio
        cross = ratio / (1 + 2 * ratio)
        own = ratio**2 / (2 * (1 + ratio) * (1 + 2 * ratio))
        return cross, own, float(np.sum(np.log1p(ratio) - 0.5 * np.log1p(2 * ratio)))

    def _basis(self) -> Doubles:
        self._fitted()
        basis: Doubles = np.linalg.pinv(self._transform).T.astype(np.float64)
        return basis

    def _fitted(self) -> Doubles:
        if self._mean is None:
            raise ValueError("JointBayesian: not fitted yet. Call fit(features, labels) first, or JointBayesian.load(path).")
        return self._mean


class _Expectation:
    """The state of the algorithm, on white vectors: what is known of the classes, and the two covariances."""

    def __init__(self, means: Doubles, sizes: npt.NDArray[Any], scatter: Doubles) -> None:
        self.means, self.sizes, self.scatter = means, sizes[:, None].astype(np.float64), scatter
        self.count = float(sizes.sum())
        self.within = scatter / self.count
        self.between = (self.means * self.sizes).T @ self.means / self.count

    def diagonalise(self) -> tuple[Doubles, Doubles]:
        """B and r with B' S_eps B = 1 and B' S_mu B = diag(r)."""
        variances, directions = np.linalg.eigh(self.within)
        half = directions / np.sqrt(variances)
        ratio, rotation = np.linalg.eigh(half.T @ self.between @ half)
        return half @ rotation[:, ::-1], np.maximum(ratio[::-1], 0)

    def log_likelihood(self, basis: Doubles, ratio: Doubles) -> float:
        """Of all vectors, as they are before whitening but for a constant."""
        z = self.means @ basis
        gain = 1 + self.sizes * ratio
        within = np.sum(basis * (self.scatter @ basis))
        determinant = np.linalg.slogdet(basis)[1]
        spread = np.sum(np.log(gain) + self.sizes * z**2 / gain) + within
        return float(self.count * (determinant - 0.5 * len(ratio) * np.log(2 * np.pi)) - 0.5 * spread)

    def step(self, basis: Doubles, ratio: Doubles) -> None:
        """The covariances that are likeliest, given what the present ones tell of each class's mu."""
        z = self.means @ basis
        gain = 1 + self.sizes * ratio
        known, unknown = self.sizes * ratio / gain * z, ratio / gain  # mean and variance of mu
        between = known.T @ known / len(z) + np.diag(unknown.mean(axis=0))
        rest = z - known
        within = (self.sizes * rest).T @ rest + np.diag((self.sizes * unknown).sum(axis=0))
        back = np.linalg.inv(basis)
        self.between = back.T @ between @ back
        self.within = (self.scatter + back.T @ within @ back) / self.count


def _npz(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
