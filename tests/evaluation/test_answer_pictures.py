"""The picture of answers: what is right is green, what is wrong is red, and everything is on the page."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from tfdml.evaluation import Answer, AnswerRow, answers_figure
from tfdml.evaluation.pictures import QUERY, RIGHT, UNKNOWN, WRONG


def picture(value=200, shape=(20, 20, 3)):
    return np.full(shape, value, np.uint8)


def rows():
    answers = [
        Answer(picture(), "cup", 0.021, True),
        Answer(picture(), "lamp", 0.3, False),
        Answer(picture(), "?", None, None),
    ]
    return [AnswerRow(picture(), "query cup", answers, "a note"), AnswerRow(picture(90), "query shoe", answers[:1])]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_frames_are_green_red_and_grey() -> None:
    figure = answers_figure(rows())
    frames = [axes.patches[0].get_edgecolor()[:3] for axes in figure.axes]
    assert frames == [to_rgb(color) for color in (QUERY, RIGHT, WRONG, UNKNOWN, QUERY, RIGHT)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["same class", "another class", "not known"]


def test_titles_distances_and_notes_are_written() -> None:
    written = texts(answers_figure(rows(), title="A headline", subtitle="and more"))
    for expected in ("A headline", "and more", "query cup", "a note", "cup", "lamp", "0.021", "0.300", "?", "query shoe"):
        assert expected in written


def test_the_drawing_shows_the_pixels_and_the_frames() -> None:
    figure = answers_figure(rows(), title=r"Drawn $\frac$", subtitle=r"$\frac$")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    height, width = pixels.shape[:2]
    for axes, expected in zip(figure.axes, (200, 200, 200, 200, 90, 200), strict=True):
        box = axes.get_position()
        assert 0 <= box.x0 < box.x1 <= 1
        assert 0 <= box.y0 < box.y1 <= 1
        middle = pixels[int(height * (1 - (box.y0 + box.y1) / 2)), int(width * (box.x0 + box.x1) / 2)]
        assert middle.tolist() == [expected] * 3
    for color in (RIGHT, WRONG):
        assert (pixels == np.round(np.array(to_rgb(color)) * 255)).all(axis=2).sum() > 200


def test_no_text_leaves_the_page_or_meets_another() -> None:
    long = "an extraordinarily long product name that nobody could possibly read in one go $5"
    answers = [Answer(picture(), long, 0.5, True)] * 4
    figure = answers_figure([AnswerRow(picture(), long, answers, long)] * 2, "A title", "A subtitle")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts if text.get_text()]
    page = figure.bbox
    assert all(box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1 for box in boxes)
    overlapping = [
        (a, b)
        for number, a in enumerate(boxes)
        for b in boxes[:number]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 3
    ]
    assert overlapping == []


@pytest.mark.parametrize("shape", [(20, 20), (20, 20, 1), (10, 40, 3), (40, 10, 3), (1, 1, 3)])
def test_shapes_of_images(shape) -> None:
    figure = answers_figure([AnswerRow(picture(shape=shape), "q")])
    FigureCanvasAgg(figure).draw()
    limits = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    # A square window on the picture: it keeps its shape.
    assert abs(limits[0][1] - limits[0][0]) == abs(limits[1][1] - limits[1][0]) == max(shape[:2])


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros(4, np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_image(image) -> None:
    with pytest.raises(ValueError, match="image: expected uint8"):
        answers_figure([AnswerRow(image)])


def test_no_rows() -> None:
    with pytest.raises(ValueError, match="rows: received none"):
        answers_figure([])


def test_no_window_and_no_tensorflow() -> None:
    program = (
        "import sys; from tfdml.evaluation import answers_figure, raw_pixels, retrieval; "
        "print([m for m in ('matplotlib.pyplot', 'tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
