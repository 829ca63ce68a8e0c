"""The rendered catalogue: hundreds of product-like classes, the same everywhere, without a download."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tfdml._checks import check_positive
from tfdml.datasets import checks
from tfdml.datasets.catalogue.draws import Draws
from tfdml.datasets.catalogue.families import MIRRORED, draw_family
from tfdml.datasets.catalogue.look import Look, draw_label, draw_looks, draw_texture
from tfdml.datasets.catalogue.pen import Pen
from tfdml.datasets.catalogue.scene import photograph
from tfdml.datasets.dataset import Dataset
from tfdml.datasets.sources import ArraySource
from tfdml.preprocessing import ImagePreprocessing


def rendered_catalogue(
    classes: int = 300, views: int = 12, image_size: tuple[int, int] | int = (64, 64), seed: int = 0
) -> Dataset:
    """Products that exist only here: bottles, shoes, lamps and the like, drawn as if photographed in shops.

    A class is a product: its family, proportions, colours, pattern and label. Its views differ in pose, light, background and
    in what stands in front of it. Everything is drawn from `seed`, so the data set needs no download and is the same
    everywhere (but for small differences at edges between releases of Pillow); classes and views that a larger and a smaller
    catalogue have in common are the same too. The images are drawn when the first one is needed, and kept in memory.

    Args:
        classes: how many products.
        views: how many images of each.
        image_size: height and width in pixels, at least 8.
        seed: draws another catalogue.

    Returns:
        A `Dataset` in the order of the classes. Fields: `category` (the family), `colour` (of the body), `price` and `title`.

    Example:
        >>> data = rendered_catalogue(classes=20, views=4, image_size=32)
        >>> data
        Dataset('rendered_catalogue': 80 images, 20 classes, 32 x 32 x 3)
        >>> data.load(0).shape
        TensorShape([32, 32, 3])
    """
    for argument, value in (("classes", classes), ("views", views)):
        check_positive(argument, value)
        if not isinstance(value, int):
            raise ValueError(f"{argument}={value!r}: expected an integer.")
    checks.seed("seed", seed)
    preprocessing = ImagePreprocessing(size=image_size)
    height, width, _ = preprocessing.shape
    if min(height, width) < 8:
        raise ValueError(f"image_size={image_size!r}: expected at least 8 pixels a side; nothing can be told apart below that.")
    looks = draw_looks(classes, seed)
    names = [f"product-{number:04d}" for number in range(classes)]

    def render() -> np.ndarray:
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            parts = pool.map(lambda n: render_views(looks[n], (width, height), views, (seed, n)), range(classes))
            return np.concatenate(list(parts))

    def column(values: list[object]) -> list[object]:
        return [value for value in values for _ in range(views)]

    return Dataset(
        ArraySource(render, shape=(classes * views, height, width, 3)),
        np.repeat(np.arange(classes), views),
        preprocessing=preprocessing,
        ids=[f"{name}/view-{view:02d}" for name in names for view in range(views)],
        class_names=names,
        fields={
            "category": column([look.family for look in looks]),
            "colour": column([look.colour_names[0] for look in looks]),
            "price": column([look.price for look in looks]),
            "title": column([look.title for look in looks]),
        },
        name="rendered_catalogue",
    )


def render_views(look: Look, size: tuple[int, int], views: int, name: tuple[int, int]) -> np.ndarray:
    """`uint8 [views, height, width, 3]`: photographs of one product, drawn at twice the size and averaged."""
    canvas = round(2.5 * min(size))
    texture, label = draw_texture(look, canvas), draw_label(look, canvas)
    images = []
    for view in range(views):
        draws = Draws(*name, 1 + view)
        pen = Pen(canvas, texture, label, turn=draws.uniform(-1, 1))
        draw_family(pen, look)
        mirror = draws.chance(0.5) and look.family in MIRRORED
        scene = photograph(pen.image, pen.mask, (2 * size[0], 2 * size[1]), draws, mirror)
        images.append(np.asarray(scene.reduce(2)))
    return np.stack(images)
