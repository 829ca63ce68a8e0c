"""A contact sheet of the classes that are taken for each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tfdml.evaluation.confusions import ConfusedPair
from tfdml.evaluation.pictures import QUERY, WRONG, check_image

_CELL, _GAP, _HEAD, _MARGIN = 1.0, 0.28, 0.42, 0.25


def confusions_figure(
    pairs: Sequence[ConfusedPair],
    names: Sequence[str] | npt.NDArray[Any],
    image: Callable[[int], npt.NDArray[Any]],
    *,
    examples: int = 4,
    dpi: int = 150,
) -> Figure:
    """Draws a row for each pair of classes: left an image, right (dashed) the wrong one that was nearest to it, and so on.

    Args:
        pairs: of `tfdml.evaluation.confused_classes`.
        names: `[N]`, the class of each item, in words.
        image: the picture of an item by its number: uint8 `[h, w, 3]`, `[h, w, 1]` or `[h, w]`.
        examples: how many mistakes of a pair are shown at most.
        dpi: dots per inch of the figure.

    Raises:
        ValueError: if there are no pairs, or an image is no picture.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import confused_classes, confusions_figure, retrieval
        >>> embeddings, names = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.05], [0.9, 0.1]]), ["cup", "cup", "mug", "mug"]
        >>> pairs = confused_classes(retrieval(embeddings, names, ks=(1,)).per_query, names)
        >>> figure = confusions_figure(pairs, names, lambda number: np.full((8, 8, 3), 60 * number, np.uint8))
        >>> figure.texts[0].get_text()
        'cup and mug: 4 of 4 (100%)'
    """
    if not pairs:
        raise ValueError("pairs: received none. Expected one or more, of confused_classes.")
    columns = max(min(examples, len(pair.examples)) for pair in pairs)
    width = max(2 * _MARGIN + columns * (2 * _CELL + 0.08) + (columns - 1) * _GAP, 4.5)
    row_height = _HEAD + _CELL + 0.12
    height = len(pairs) * row_height + _MARGIN
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    for row, pair in enumerate(pairs):
        top = row * row_height
        title = f"{names[pair.first]} and {names[pair.second]}: {pair.mistakes:,} of {pair.queries:,} ({pair.share:.0%})"
        place = _MARGIN / width, 1 - (top + 0.3) / height
        figure.text(*place, title.replace("$", r"\$"), size=9.5, weight="bold", color=QUERY, va="center")
        for number, items in enumerate(pair.examples[:examples]):
            for side, item in enumerate(items.tolist()):
                left = _MARGIN + number * (2 * _CELL + 0.08 + _GAP) + side * (_CELL + 0.08)
                box = (left / width, 1 - (top + _HEAD + _CELL) / height, _CELL / width, _CELL / height)
                axes = figure.add_axes(box)
                axes.imshow(np.asarray(check_image(image(item))), cmap="gray", vmin=0, vmax=255)
                axes.set_axis_off()
                color, dash = ((QUERY, "solid"), (WRONG, "dashed"))[side]
                frame: dict[str, Any] = {
                    "transform": axes.transAxes,
                    "fill": False,
                    "ec": color,
                    "lw": 2.0,
                    "ls": dash,
                    "clip_on": False,
                }
                axes.add_patch(Rectangle((0, 0), 1, 1, **frame))
    return figure
