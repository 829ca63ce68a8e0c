"""Pictures of answers: a query and its neighbours in a row, right ones framed green, wrong ones red."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle

_TITLE_SIZE = 8.0
RIGHT, WRONG, UNKNOWN, QUERY = "#1a9850", "#d73027", "#9aa0a6", "#1f2933"
_INK, _FAINT, _PANEL = "#1f2933", "#6b7480", "#eef1f4"


@dataclass(frozen=True)
class Answer:
    """One neighbour of a query.

    Attributes:
        image: `[h, w, 3]`, `[h, w, 1]` or `[h, w]`, uint8.
        title: what the item is: its id, or its class.
        distance: to the query, written under the title; None to leave it out.
        correct: True for a green frame, False for a red one, None (unknown) for a grey one.
    """

    image: npt.NDArray[Any]
    title: str = ""
    distance: float | None = None
    correct: bool | None = None


@dataclass(frozen=True)
class AnswerRow:
    """A query and its neighbours, nearest first.

    Attributes:
        image: the query's, like an answer's.
        title: what the query is.
        answers: its neighbours.
        note: a few words under the title, such as a file name or a figure.
    """

    image: npt.NDArray[Any]
    title: str = ""
    answers: Sequence[Answer] = field(default_factory=tuple)
    note: str = ""


def answers_figure(
    rows: Sequence[AnswerRow], title: str = "", subtitle: str = "", *, cell: float = 1.45, dpi: int = 150
) -> Figure:
    """Draws queries (left) with their neighbours in a row, nearest first.

    The figure belongs to nobody: no window, no global state of matplotlib. Save it with `figure.savefig("answers.png")`.

    Args:
        rows: one for each query; they may have different numbers of answers.
        title: a headline, or nothing.
        subtitle: a line under it, or nothing.
        cell: width of a picture, in inches.
        dpi: dots per inch of the figure.

    Raises:
        ValueError: if there are no rows, or an image is no picture.

    Example:
        >>> import numpy as np
        >>> from tfdml.evaluation import Answer, AnswerRow, answers_figure
        >>> image = np.zeros((32, 32, 3), np.uint8)
        >>> row = AnswerRow(image, "cup", [Answer(image, "cup", 0.02, True), Answer(image, "lamp", 0.31, False)])
        >>> figure = answers_figure([row], title="Two answers")
        >>> len(figure.axes)
        3
    """
    rows = list(rows)
    if not rows:
        raise ValueError("rows: received none. Expected one AnswerRow for each query.")
    plan = _Plan(rows, bool(title), bool(subtitle), cell)
    figure = Figure(figsize=(plan.width, plan.height), dpi=dpi, facecolor="white")
    if title:
        at = plan.point(plan.margin, 0.24)
        figure.text(*at, title, size=15, weight="bold", color=_INK, va="center", parse_math=False)
    if subtitle:
        at = plan.point(plan.margin, 0.24 + 0.3 * bool(title))
        figure.text(*at, subtitle, size=9.5, color=_FAINT, va="center", parse_math=False)
    figure.text(*plan.point(plan.margin, plan.head - 0.14), "QUERY", size=7.5, weight="bold", color=_FAINT, va="center")
    if plan.columns:
        nearest = plan.point(plan.left(1), plan.head - 0.14)
        figure.text(*nearest, "NEAREST ITEMS", size=7.5, weight="bold", color=_FAINT, va="center")
    _legend(figure, plan, {answer.correct for row in rows for answer in row.answers})
    for number, row in enumerate(rows):
        # The query stands on a panel of its own.
        x, y = plan.point(plan.margin - 0.09, plan.top(number) + plan.cell + plan.caption - 0.07)
        size = (plan.cell + 0.18) / plan.width, (plan.cell + plan.caption + 0.02) / plan.height
        panel = FancyBboxPatch(
            (x, y),
            *size,
            boxstyle="round,pad=0,rounding_size=0.004",
            transform=figure.transFigure,
            fc=_PANEL,
            ec="none",
            zorder=-1,
        )
        figure.add_artist(panel)
        _picture(figure, plan, number, 0, row.image, QUERY, row.title, row.note, bold=True)
        for column, answer in enumerate(row.answers, 1):
            color = {True: RIGHT, False: WRONG, None: UNKNOWN}[None if answer.correct is None else bool(answer.correct)]
            distance = "" if answer.distance is None else f"{answer.distance:.3f}"
            _picture(figure, plan, number, column, answer.image, color, answer.title, distance)
    return figure


class _Plan:
    """Places in inches, from the top left corner."""

    margin, gap, line = 0.3, 0.16, 0.15

    def __init__(self, rows: Sequence[AnswerRow], title: bool, subtitle: bool, cell: float) -> None:
        self.cell = cell
        # DejaVu Sans is about 0.6 em wide.
        self.letters = int(cell * 72 / (0.6 * _TITLE_SIZE))
        texts = [text for row in rows for text in (row.title, *(answer.title for answer in row.answers))]
        self.title_lines = max(len(_wrapped(text, self.letters)) for text in texts)
        self.caption = 0.2 + self.line * (self.title_lines + 1)
        self.columns = max(len(row.answers) for row in rows)
        self.head = 0.42 + 0.3 * title + 0.28 * subtitle
        self.row_height = cell + self.caption + 0.12
        self.width = max(self.left(self.columns) + cell + self.margin, 5.4)
        self.height = self.head + len(rows) * self.row_height + 0.08

    def left(self, column: int) -> float:
        # A wider gap between a query and its answers.
        return self.margin + column * (self.cell + self.gap) + (0.18 if column else 0.0)

    def top(self, row: int) -> float:
        return self.head + row * self.row_height + 0.04

    def point(self, x: float, y: float) -> tuple[float, float]:
        return x / self.width, 1 - y / self.height


def _picture(
    figure: Figure,
    plan: _Plan,
    row: int,
    column: int,
    image: npt.NDArray[Any],
    color: str,
    title: str,
    note: str,
    bold: bool = False,
) -> None:
    x, y = plan.point(plan.left(column), plan.top(row) + plan.cell)
    axes = figure.add_axes((x, y, plan.cell / plan.width, plan.cell / plan.height))
    pixels = check_image(image)
    height, width = pixels.shape[:2]
    side = max(height, width)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="antialiased", aspect="auto")
    # Pictures keep their shape, centred on a square, so that all frames are equal.
    axes.set_xlim((width - side) / 2 - 0.5, (width + side) / 2 - 0.5)
    axes.set_ylim((height + side) / 2 - 0.5, (height - side) / 2 - 0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("white" if bold else _PANEL)
    for spine in axes.spines.values():
        spine.set_visible(False)
    frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec=color, lw=1.2 if bold else 3.2, clip_on=False)
    frame.set_joinstyle("round")
    axes.add_patch(frame)
    center = plan.left(column) + plan.cell / 2
    below = plan.top(row) + plan.cell
    lines = _wrapped(title, plan.letters)
    style: dict[str, Any] = {"ha": "center", "va": "center"}
    for number, line in enumerate(lines):
        at = plan.point(center, below + plan.line * (number + 1.05))
        figure.text(*at, line, size=_TITLE_SIZE, weight="bold" if bold else "normal", color=_INK, **style)
    at = plan.point(center, below + plan.line * (len(lines) + 1.1))
    figure.text(*at, _wrapped(note, plan.letters)[0], size=7.2, color=_FAINT if bold else color, **style)


def _legend(figure: Figure, plan: _Plan, kinds: set[bool | None]) -> None:
    entries = [(True, RIGHT, "same class"), (False, WRONG, "another class"), (None, UNKNOWN, "not known")]
    present = [(color, label) for kind, color, label in entries if kind in kinds]
    if not present or kinds == {None}:
        return
    handles = [Line2D([], [], marker="s", ls="", ms=6.5, mfc="white", mec=color, mew=1.8) for color, _ in present]
    x, y = plan.point(plan.width - plan.margin + 0.04, plan.head - 0.14)
    figure.legend(
        handles,
        [label for _, label in present],
        loc="center right",
        bbox_to_anchor=(x, y),
        ncols=len(present),
        frameon=False,
        fontsize=7.5,
        labelcolor=_FAINT,
        borderpad=0,
        borderaxespad=0,
        handletextpad=0.1,
        columnspacing=1.2,
    )


def check_image(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The pixels of a picture that can be drawn, or a `ValueError`."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or pixels.size == 0:
        raise ValueError(f"image: expected uint8 [h, w, 3], [h, w, 1] or [h, w], received {pixels.dtype} {pixels.shape}.")
    return pixels


def _wrapped(text: str, letters: int) -> list[str]:
    """One or two lines; what does not fit ends in an ellipsis."""
    lines = textwrap.wrap(" ".join(str(text).split()), letters) or [""]
    if len(lines) > 2:
        lines = [lines[0], lines[1][: letters - 1].rstrip() + "…"]
    # "$" would start a formula.
    return [line.replace("$", r"\$") for line in lines]
