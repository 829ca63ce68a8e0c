"""matplotlib figures as SVG inside a page, in the colours of the page: light or dark, as its reader has it."""

from __future__ import annotations

import io
import itertools
import re
from typing import NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from tfdml.evaluation.plots import PlotStyle

# A figure is drawn in these colours, and each of them becomes a variable of the page's style sheet.
_VARIABLES = {
    "#010101": "ink",
    "#020202": "faint",
    "#030303": "grid",
    "#040404": "right",
    "#050505": "wrong",
    "#060606": "accent",
    "#070707": "second",
    "#080808": "third",
    "#090909": "fourth",
    "#0a0a0a": "fifth",
}
PAGE_STYLE = PlotStyle(
    ink="#010101",
    faint="#020202",
    grid="#030303",
    paper="none",
    right="#040404",
    wrong="#050505",
    series=("#060606", "#070707", "#080808", "#090909", "#0a0a0a"),
    width=5.6,
    height=3.4,
)


class Chart(NamedTuple):
    """A figure of a page: its title, the drawing, and what one should see in it."""

    title: str
    svg: Markup
    caption: str


class ChartMaker:
    """Draws charts whose parts have names of their own, so that several fit on one page."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, title: str, figure: Figure, caption: str) -> Chart:
        return Chart(title, to_svg(figure, f"chart{next(self._numbers)}", f"{title}. {caption}"), caption)


def to_svg(figure: Figure, prefix: str, description: str) -> Markup:
    """The figure as an `<svg>` element that is as wide as its place; text stays text."""
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{_escaped(description)}">',
        text,
        count=1,
    )
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    for color, name in _VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    return Markup(text)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("\\", "")
