"""An embedding laid out on a plane, to be looked at."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.index.base import METRICS, Floats, check_vectors

METHODS = ("auto", "umap", "tsne", "pca")


def embedding_map(
    embeddings: npt.ArrayLike, method: str = "auto", *, metric: str = "cosine", perplexity: float = 30.0, seed: int = 0
) -> Floats:
    """Places in a plane where neighbours stay neighbours, from -1 to 1: for pictures, never for figures.

    Distances between far groups mean little in such a map, nor do the sizes of groups: t-SNE and UMAP keep neighbourhoods.

    Args:
        embeddings: `[N, D]`, finite, N >= 3.
        method: `"tsne"` and `"pca"` (scikit-learn), `"umap"` (umap-learn), or `"auto"`: t-SNE; PCA for fewer than 8 items.
        metric: `"cosine"` or `"euclidean"`.
        perplexity: of t-SNE, or the number of neighbours of UMAP; less where there are few items.
        seed: of the layout.

    Returns:
        float32 `[N, 2]`.

    Raises:
        ImportError: if the library of the method is not installed; it says what to install.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import embedding_map
        >>> embedding_map(np.random.default_rng(0).normal(size=(20, 8)), "pca").shape
        (20, 2)
    """
    check_choice("method", method, METHODS)
    check_choice("metric", metric, METRICS)
    # On rows of length 1, Euclidean neighbours are those by cosine.
    vectors = check_vectors(embeddings, metric, "embeddings")
    if len(vectors) < 3:
        raise ValueError(f"embeddings: a map of {len(vectors)} items shows nothing. Expected 3 or more.")
    if method == "auto":
        method = "tsne" if len(vectors) >= 8 else "pca"
    library = {"umap": "umap"}.get(method, "sklearn")
    if importlib.util.find_spec(library) is None:
        package = {"umap": "umap-learn", "sklearn": "scikit-learn"}[library]
        raise ImportError(f"method={method!r} needs {package}. Install it: pip install {package}")
    near = max(2.0, min(perplexity, (len(vectors) - 1) / 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        places = _LAYOUTS[method](vectors, near, seed)
    places = places - (places.max(axis=0) + places.min(axis=0)) / 2
    result: Floats = (places / (np.abs(places).max() or 1.0)).astype(np.float32)
    return result


def _tsne(vectors: Floats, near: float, seed: int) -> Floats:
    from sklearn.manifold import TSNE

    if min(vectors.shape) > 50:
        vectors = _pca(vectors, near, seed, 50)
    # Begun from the principal components, the layout also keeps something of the whole; a constant embedding has none.
    begin = "pca" if np.ptp(vectors, axis=0).any() else "random"
    return np.asarray(TSNE(2, perplexity=near, init=begin, random_state=seed).fit_transform(vectors), np.float32)


def _umap(vectors: Floats, near: float, seed: int) -> Floats:
    from umap import UMAP

    return np.asarray(UMAP(n_neighbors=max(2, int(near)), random_state=seed, n_jobs=1).fit_transform(vectors), np.float32)


def _pca(vectors: Floats, near: float, seed: int, components: int = 2) -> Floats:
    from sklearn.decomposition import PCA

    found = PCA(min(components, *vectors.shape), random_state=seed).fit_transform(vectors)
    return np.pad(np.asarray(found, np.float32), ((0, 0), (0, max(0, components - found.shape[1]))))


_LAYOUTS = {"tsne": _tsne, "umap": _umap, "pca": _pca}
