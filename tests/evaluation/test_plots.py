"""The plots: what is drawn is what was given, nothing overlaps, no window is opened."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tfdml.evaluation import (
    class_sizes_figure,
    cmc_figure,
    confused_classes,
    confusions_figure,
    distances_figure,
    history_figure,
    map_figure,
    retrieval,
    roc_figure,
    sizes_figure,
    verification,
)
from tfdml.evaluation.plots import class_color

pytestmark = pytest.mark.one_stack

RANDOM = np.random.default_rng(0)
NEAR, FAR = RANDOM.normal(0.3, 0.1, 500).clip(0), RANDOM.normal(0.8, 0.1, 700)
RESULT = verification(RANDOM.normal(size=(40, 3)), np.arange(40) % 4)

FIGURES = {
    "distances": lambda: distances_figure(NEAR, FAR, 0.5),
    "no threshold": lambda: distances_figure(NEAR, FAR),
    "roc": lambda: roc_figure(RESULT),
    "cmc": lambda: cmc_figure({"model": [0.5, 0.8, 0.9], "chance": [0.1, 0.2, 0.3]}),
    "history": lambda: history_figure({"loss": ([10, 20, 30], [0.3, 0.2, 0.1]), r"more $\frac$": ([10, 30], [0.2, 0.4])}),
    "map": lambda: map_figure(RANDOM.normal(size=(30, 2)), np.arange(30) % 3, [r"cup $\frac$", "lamp", "shoe"]),
    "class sizes": lambda: class_sizes_figure([500, 20, 3, 3, 1]),
    "sizes": lambda: sizes_figure([640, 640, 480], [480, 480, 640]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_plot_draws_itself_inside_its_page(name) -> None:
    figure = FIGURES[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page, (axes,) = figure.bbox, figure.axes
    legend = axes.get_legend().get_texts() if axes.get_legend() else []
    written = [text for text in (*axes.texts, *legend, axes.xaxis.label, axes.yaxis.label) if text.get_text()]
    for text in written:
        box = text.get_window_extent(canvas.get_renderer())
        assert box.x0 >= page.x0 - 1, text.get_text()
        assert box.x1 <= page.x1 + 1, text.get_text()
        assert box.y0 >= page.y0 - 1, text.get_text()
        assert box.y1 <= page.y1 + 1, text.get_text()
    assert len(np.unique(np.asarray(canvas.buffer_rgba()).reshape(-1, 4), axis=0)) > 10


def test_the_histogram_holds_every_pair_and_says_what_is_on_the_wrong_side() -> None:
    axes = distances_figure(NEAR, FAR, 0.5).axes[0]
    shares = [patch.get_data().values.sum() for patch in axes.patches]
    assert shares == pytest.approx([1, 1, 1, 1])
    (note,) = [text.get_text() for text in axes.texts]
    assert "threshold 0.5" in note
    assert f"{(FAR <= 0.5).mean():.1%} of two classes are nearer" in note
    assert f"{(NEAR > 0.5).mean():.1%} of one class are farther" in note


def test_the_curves_are_the_figures() -> None:
    line, chance = roc_figure(RESULT).axes[0].lines[:2]
    far, tar = line.get_data()
    assert tar == pytest.approx(np.interp(far, RESULT.curve.far, RESULT.curve.tar))
    assert chance.get_xdata() == pytest.approx(chance.get_ydata())
    k, values = cmc_figure({"model": [0.5, 0.8, 0.9]}).axes[0].lines[0].get_data()
    assert k.tolist() == [1, 2, 3]
    assert values == pytest.approx([0.5, 0.8, 0.9])
    steps, losses = history_figure({"loss": ([10, 20], [0.3, 0.2])}).axes[0].lines[0].get_data()
    assert list(steps) == [10, 20]
    assert list(losses) == [0.3, 0.2]


def test_confusions_are_drawn_with_their_names_shares_and_pixels() -> None:
    labels = np.repeat(np.arange(4), 6)
    names = np.array(["cup", "mug $1", "lamp", "shoe"])[labels]
    embeddings = np.eye(4)[np.array([0, 0, 2, 3])[labels]] + 0.1 * RANDOM.normal(size=(24, 4))
    pairs = confused_classes(retrieval(embeddings, names).per_query, names, 3)
    figure = confusions_figure(pairs, names, lambda number: np.full((9, 7, 3), 10 * number, np.uint8), examples=3)
    FigureCanvasAgg(figure).draw()
    assert [text.get_text() for text in figure.texts] == [
        f"{names[pair.first]} and {names[pair.second]}: {pair.mistakes} of {pair.queries} ({pair.share:.0%})".replace(
            "$", r"\$"
        )
        for pair in pairs
    ]
    drawn = [int(axes.images[0].get_array()[0, 0, 0]) // 10 for axes in figure.axes]
    assert drawn == [item for pair in pairs for items in pair.examples[:3].tolist() for item in items]
    assert len({axes.patches[0].get_linestyle() for axes in figure.axes}) == 2  # not told by the colour alone
    with pytest.raises(ValueError, match="pairs: received none"):
        confusions_figure([], names, lambda number: None)


def test_classes_next_to_each_other_have_colours_far_apart() -> None:
    from matplotlib.colors import to_rgb

    colors = np.array([to_rgb(class_color(number)) for number in range(40)])
    assert (np.abs(np.diff(colors, axis=0)).max(axis=1) > 0.25).all()
    assert len({tuple(color) for color in colors}) == 40


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: distances_figure([], FAR), "positives: .* received none"),
        (lambda: distances_figure(NEAR, [np.nan]), "negatives: .* NaN"),
        (lambda: cmc_figure({}), "curves: received none"),
        (lambda: history_figure({}), "history: received no curve"),
        (lambda: map_figure(np.zeros((3, 3)), [0, 1, 2]), "places, labels: expected"),
        (lambda: map_figure(np.zeros((3, 2)), [0, 1]), "places, labels: expected"),
        (lambda: class_sizes_figure([]), "counts: .* received none"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_no_window_and_no_tensorflow() -> None:
    program = (
        "import sys; from tfdml.evaluation import cmc_figure, embedding_map, label_doubts; cmc_figure({'a': [1]});"
        "print([m for m in ('matplotlib.pyplot', 'tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
