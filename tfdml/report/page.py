"""From a template and what it shows to one HTML file."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from tfdml import __version__

_FOLDER = Path(__file__).parent


class Section(NamedTuple):
    """A part of a page that its head leads to."""

    id: str
    name: str


class Column(NamedTuple):
    """A column of a table, and whether it holds numbers."""

    name: str
    number: bool = True


class Cell(NamedTuple):
    """A cell of a table: what is written, and the number that it is sorted by."""

    text: str
    value: float | None = None


def share(value: float) -> Cell:
    """A share between 0 and 1, in percent; a dash where there is none."""
    return Cell("-", -1.0) if value != value else Cell(f"{value:.1%}", round(float(value), 6))


def count(value: int) -> Cell:
    """A whole number."""
    return Cell(f"{value:,}", float(value))


def render(template: str, out: str | os.PathLike[str], content: dict[str, Any]) -> Path:
    """Writes a page that needs no other file: style, script and pictures are in it, and its policy forbids to load anything.

    Class names, ids and whatever else comes from data are escaped by the template.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError("the report needs jinja2: pip install 'tfdml[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    from markupsafe import Markup

    script = (_FOLDER / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        css=Markup((_FOLDER / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        version=__version__,
        made=datetime.datetime.now(datetime.timezone.utc).strftime("%d %B %Y, %H:%M UTC"),
        **content,
    )
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
