"""Plots of an embedding's figures, each a function that returns a matplotlib figure.

The figures belong to nobody: no window, no global state. Save one with `figure.savefig("roc.png")`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tfdml.evaluation.verification_result import VerificationResult

Numbers = Sequence[float] | npt.NDArray[Any]


@dataclass(frozen=True)
class PlotStyle:
    """Colours and size of a plot.

    Attributes:
        ink: of titles and ticks' labels.
        faint: of axes and lines that guide the eye.
        grid: of the grid.
        paper: of the ground; "none" leaves it open.
        right: of positives. It is told from `wrong` by more than the colour: by a label, a hatch or a dash.
        wrong: of negatives.
        series: of further lines, in their order.
        width: in inches.
        height: in inches.
    """

    ink: str = "#1f2933"
    faint: str = "#6b7480"
    grid: str = "#e4e8ec"
    paper: str = "white"
    right: str = "#1a9850"
    wrong: str = "#d73027"
    series: tuple[str, ...] = ("#2f5fd0", "#d9822b", "#0f8a8a", "#9a4fc4", "#7a7f87")
    width: float = 6.0
    height: float = 3.6


def distances_figure(
    positives: Numbers, negatives: Numbers, threshold: float | None = None, *, bins: int = 60, style: PlotStyle | None = None
) -> Figure:
    """Histograms of the distances of positive and of negative pairs: how far apart the two are is what a threshold lives on.

    Args:
        positives: distances of pairs of one class.
        negatives: distances of pairs of two classes.
        threshold: drawn as a line, with the shares of pairs on its wrong side; None for none.
        bins: of the histogram.
        style: a `PlotStyle`.

    Raises:
        ValueError: if either is empty, or holds NaN.

    Example:
        >>> figure = distances_figure([0.1, 0.2, 0.25], [0.5, 0.6, 0.9], threshold=0.4)
        >>> len(figure.axes)
        1
    """
    near, far = _finite("positives", positives), _finite("negatives", negatives)
    style = style or PlotStyle()
    figure, axes = _figure(style)
    ends = float(min(near.min(), far.min(), 0)), float(max(near.max(), far.max()))
    edges = np.linspace(ends[0], ends[1] or 1.0, bins + 1)
    for values, color, name, hatch in ((far, style.wrong, "of two classes", "///"), (near, style.right, "of one class", None)):
        share = np.histogram(values, edges)[0] / len(values)
        axes.stairs(share, edges, fill=True, alpha=0.28, color=color, linewidth=0)
        axes.stairs(share, edges, color=color, linewidth=1.6, label=f"pairs {name}", hatch=hatch)
    axes.set_ylim(bottom=0)
    if threshold is not None:
        axes.axvline(threshold, color=style.ink, linewidth=1.3, linestyle=(0, (4, 3)))
        missed, let_in = float((near > threshold).mean()), float((far <= threshold).mean())
        text = (
            f"threshold {threshold:.3g}\n{_share(let_in)} of two classes are nearer,\n{_share(missed)} of one class are farther"
        )
        right = threshold < (edges[0] + edges[-1]) / 2
        axes.annotate(
            text,
            (threshold, 1),
            xycoords=("data", "axes fraction"),
            xytext=(6 if right else -6, -4),
            textcoords="offset points",
            ha="left" if right else "right",
            va="top",
            size=8.5,
            color=style.ink,
        )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("distance")
    axes.set_ylabel("share of the pairs")
    _legend(axes, style, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    if threshold is not None:
        axes.set_ylim(top=axes.get_ylim()[1] * 1.22)
    return figure


def roc_figure(result: VerificationResult, *, style: PlotStyle | None = None) -> Figure:
    """The ROC curve: share of accepted positive pairs (TAR) over that of accepted negative pairs (FAR), on a logarithmic axis.

    Args:
        result: of `tfdml.evaluation.verification`.
        style: a `PlotStyle`.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import roc_figure, verification
        >>> embeddings = np.random.default_rng(0).normal(size=(30, 4))
        >>> figure = roc_figure(verification(embeddings, np.arange(30) % 3))
        >>> figure.axes[0].get_xscale()
        'log'
    """
    style = style or PlotStyle()
    figure, axes = _figure(style)
    least = max(1 / max(result.negative_pairs, 1), 1e-5)
    # A step that begins left of the axis begins at it: the curve is straight between its vertices.
    rates = np.geomspace(least, 1, 400)
    axes.plot(
        rates, np.interp(rates, result.curve.far, result.curve.tar), color=style.series[0], linewidth=2, label="this model"
    )
    axes.plot(rates, rates, color=style.faint, linewidth=1, linestyle=(0, (2, 3)), label="chance")
    for far, tar in result.tar_at_far.items():
        axes.plot([far], [tar], marker="o", markersize=5, color=style.series[0], linestyle="none")
        axes.annotate(
            f"{tar:.0%}", (far, tar), xytext=(-4, 6), textcoords="offset points", size=8.5, ha="right", color=style.ink
        )
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.04)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.6f}".rstrip("0").rstrip("."))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("pairs of two classes that are taken for one (FAR)")
    axes.set_ylabel("pairs of one class found (TAR)")
    axes.set_title(f"AUC {result.auc:.1%}, equal error rate {result.eer:.1%}", size=9.5, color=style.ink, loc="left")
    _legend(axes, style, loc="upper left" if result.curve.tar[np.searchsorted(result.curve.far, 0.01)] < 0.5 else "lower right")
    return figure


def cmc_figure(curves: Mapping[str, Numbers], *, style: PlotStyle | None = None) -> Figure:
    """Cumulative match curves: for each k the share of queries with a right answer among the k nearest.

    Args:
        curves: for each name the values for k = 1, 2, ...; the first one is drawn strongest, the others are what it is compared
            with.
        style: a `PlotStyle`.

    Example:
        >>> figure = cmc_figure({"trained": [0.8, 0.9, 0.95], "raw pixels": [0.5, 0.6, 0.7]})
    """
    if not curves:
        raise ValueError("curves: received none. Expected one or more, by their names.")
    style = style or PlotStyle()
    figure, axes = _figure(style)
    for number, (name, values) in enumerate(curves.items()):
        values = _finite(f"curves[{name!r}]", values)
        color = style.series[0] if not number else style.faint
        dash = "solid" if not number else (0, (5, 1 + 2 * number))
        axes.plot(
            np.arange(1, len(values) + 1), values, color=color, linewidth=2 if not number else 1.4, linestyle=dash, label=name
        )
    axes.set_ylim(0, 1.04)
    axes.set_xlim(left=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("k: answers that are looked at")
    axes.set_ylabel("queries with a right one")
    _legend(axes, style, loc="lower right")
    return figure


def history_figure(
    history: Mapping[str, tuple[Numbers, Numbers]], *, percent: bool = False, style: PlotStyle | None = None
) -> Figure:
    """Training curves.

    Args:
        history: for each name the steps and the values.
        percent: whether the values are shares.
        style: a `PlotStyle`.

    Example:
        >>> figure = history_figure({"loss": ([100, 200, 300], [0.2, 0.12, 0.1])})
    """
    if not history:
        raise ValueError("history: received no curve. Expected one or more, by their names.")
    style = style or PlotStyle()
    figure, axes = _figure(style)
    for number, (name, (steps, values)) in enumerate(history.items()):
        color = style.series[number % len(style.series)]
        dash = "solid" if not number else (0, (5, 1 + number))
        marker = "o" if len(values) < 12 else None
        axes.plot(steps, values, color=color, linewidth=1.8, linestyle=dash, marker=marker, markersize=4, label=name)
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_ylim(top=axes.get_ylim()[1] * 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("training steps")
    _legend(axes, style, loc="best")
    return figure


def map_figure(
    places: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    named: int = 12,
    style: PlotStyle | None = None,
) -> Figure:
    """The map of an embedding: a dot for each item, coloured by class, with the names of the largest classes at their middle.

    Args:
        places: `[N, 2]`, of `tfdml.evaluation.embedding_map`.
        labels: `[N]`, class numbers.
        class_names: by class number; None names no class.
        named: how many classes get their name.
        style: a `PlotStyle`.

    Example:
        >>> import numpy as np
        >>> figure = map_figure(np.random.default_rng(0).normal(size=(9, 2)), np.arange(9) % 3, ["cup", "lamp", "shoe"])
    """
    style = style or PlotStyle()
    spots, classes = np.asarray(places, float), np.asarray(labels)
    if spots.ndim != 2 or spots.shape[1] != 2 or classes.shape != spots.shape[:1] or not np.isfinite(spots).all():
        raise ValueError(f"places, labels: expected finite [N, 2] and [N], received {spots.shape} and {classes.shape}.")
    figure, axes = _figure(style, height=style.width)
    for number, label in enumerate(np.unique(classes)):
        mine = spots[classes == label]
        axes.scatter(mine[:, 0], mine[:, 1], s=9, color=class_color(number), linewidths=0, alpha=0.8)
    if class_names is not None:
        sizes = np.bincount(classes, minlength=len(class_names))
        for label in np.argsort(-sizes, kind="stable")[:named]:
            if sizes[label]:
                middle = np.median(spots[classes == label], axis=0)
                name = str(class_names[label])
                axes.annotate(name, middle, size=7.5, color=style.ink, ha="center", va="center", parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    axes.grid(False)
    return figure


def class_sizes_figure(counts: Numbers, *, style: PlotStyle | None = None) -> Figure:
    """Images of each class, the largest class first: how long the tail is.

    Args:
        counts: for each class the number of its images.
        style: a `PlotStyle`.

    Example:
        >>> figure = class_sizes_figure([120, 40, 12, 3, 1])
    """
    style = style or PlotStyle()
    sizes = np.sort(_finite("counts", counts))[::-1]
    figure, axes = _figure(style, height=style.height * 0.8)
    axes.stairs(sizes, np.arange(len(sizes) + 1), fill=True, color=style.series[0], alpha=0.75)
    if sizes[0] > 30 * max(sizes[-1], 1):
        axes.set_yscale("log")
    axes.set_xlim(0, len(sizes))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("classes, the largest first")
    axes.set_ylabel("images")
    axes.set_title(
        f"{len(sizes):,} classes: {sizes[0]:,.0f} to {sizes[-1]:,.0f} images, median {np.median(sizes):g}",
        size=9.5,
        color=style.ink,
        loc="left",
    )
    return figure


def sizes_figure(widths: Numbers, heights: Numbers, *, style: PlotStyle | None = None) -> Figure:
    """Widths and heights of images, one dot for each size that occurs, larger the more there are.

    Args:
        widths: in pixels, one for each image.
        heights: likewise.
        style: a `PlotStyle`.

    Example:
        >>> figure = sizes_figure([640, 640, 480], [480, 480, 640])
    """
    style = style or PlotStyle()
    pairs = np.stack([_finite("widths", widths), _finite("heights", heights)], axis=1)
    sizes, counts = np.unique(pairs, axis=0, return_counts=True)
    figure, axes = _figure(style)
    axes.scatter(sizes[:, 0], sizes[:, 1], s=14 + 220 * counts / counts.max(), color=style.series[0], alpha=0.5, linewidths=0)
    end = float(sizes.max()) * 1.12
    axes.plot([0, end], [0, end], color=style.faint, linewidth=1, linestyle=(0, (2, 3)))
    axes.set_xlim(0, end)
    axes.set_ylim(0, end)
    axes.set_xlabel("width in pixels")
    axes.set_ylabel("height")
    return figure


def class_color(number: int) -> str:
    """The colour of class `number`: neighbours in number are far apart in hue, for any number of classes."""
    from matplotlib.colors import hsv_to_rgb, to_hex

    turn = (number * 0.61803398875) % 1.0
    return str(to_hex(hsv_to_rgb((turn, 0.62 + 0.2 * (number % 2), 0.82 - 0.14 * (number % 3 == 1)))))


def _figure(style: PlotStyle, height: float | None = None) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(style.width, height or style.height), dpi=150, facecolor=style.paper, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(style.faint)
    axes.tick_params(colors=style.faint, labelcolor=style.ink, labelsize=8.5)
    axes.xaxis.label.set(color=style.faint, size=9)
    axes.yaxis.label.set(color=style.faint, size=9)
    axes.grid(True, color=style.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Axes, style: PlotStyle, loc: str, **options: Any) -> None:
    legend = axes.legend(frameon=False, fontsize=8.5, labelcolor=style.ink, loc=loc, handlelength=2.2, **options)
    for text in legend.get_texts():  # names are no formulas
        text.set_parse_math(False)


def _finite(argument: str, values: Numbers) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if not array.size or not np.isfinite(array).all():
        received = f"{array.size}, with NaN or infinity among them" if array.size else "none"
        raise ValueError(f"{argument}: expected one or more finite numbers, received {received}.")
    return array


def _share(value: float) -> str:
    return f"{value:.1%}" if value >= 0.0005 or value == 0 else "<0.1%"
