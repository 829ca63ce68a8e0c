"""/docs: the OpenAPI document as a page that needs no script and nothing from elsewhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import HTMLResponse, Response

_STYLE = """\
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
pre,code{font:14px/1.5 ui-monospace,monospace}
pre{overflow-x:auto;padding:.75rem 1rem;border:1px solid color-mix(in srgb,currentColor 20%,transparent);border-radius:.5rem}
section{border-top:1px solid color-mix(in srgb,currentColor 20%,transparent);padding:1rem 0}
h2{font-size:1.1rem;margin:.25rem 0}h3{font-size:1rem;margin:1rem 0 .25rem}
table{border-collapse:collapse;width:100%}
td{padding:.15rem .75rem .15rem 0;vertical-align:top}td:first-child{width:11rem;overflow-wrap:anywhere}
h2 code{font-size:1.05rem;font-weight:700}
"""

# What people come for comes first.
_ORDER = ("search", "items", "versions", "info", "health")
# Any request can end in these.
_ALWAYS = ("408", "431", "500")


def reference_routes(app: FastAPI) -> APIRouter:
    """The router."""
    router = APIRouter(include_in_schema=False)
    made: dict[str, bytes] = {}

    @router.get("/docs")
    async def docs() -> Response:
        if not made:
            made["page"] = reference_page(app.openapi()).encode()
        return HTMLResponse(made["page"])

    @router.get("/static/reference.css")
    async def style() -> Response:
        return Response(_STYLE, media_type="text/css")

    return router


def reference_page(document: dict[str, Any]) -> str:
    """An OpenAPI document as HTML."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(document['info']['title'])}</title>",
        # Without one a browser asks for /favicon.ico.
        '<link rel="icon" href="static/icon.svg" type="image/svg+xml">',
        '<link rel="stylesheet" href="static/reference.css"></head><body>',
        f"<h1>{escape(document['info']['title'])}</h1>",
        *(f"<p>{_words(text)}</p>" for text in document["info"]["description"].split("\n\n")),
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    found = [(path, *pair) for path, operations in document["paths"].items() for pair in operations.items()]
    for path, method, operation in sorted(found, key=lambda one: _ORDER.index(one[2]["tags"][0])):
        parts.append(_operation(document, path, method, operation))
    return "\n".join([*parts, "</body></html>"])


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [
        f'<section id="{escape(operation["operationId"])}"><h2><code>{method.upper()} {escape(path)}</code></h2>',
        f"<p>{_words(operation.get('description') or operation['summary'])}</p>",
    ]
    if parameters := [parameter for parameter in operation.get("parameters", ()) if parameter["in"] != "header"]:
        rows = [
            (parameter["name"], _described(parameter["schema"], parameter.get("description", ""))) for parameter in parameters
        ]
        parts.append(_table("Parameters", rows))
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h3>Body: <code>{escape(kind)}</code></h3>{_schema(document, content['schema'])}")
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            for kind, content in response.get("content", {}).items():
                parts.append(f"<h3>{status}: <code>{escape(kind)}</code></h3>{_schema(document, content.get('schema', {}))}")
    others = sorted((status, response["description"]) for status, response in operation["responses"].items() if status >= "300")
    parts.append(_table("Instead of an answer", [row for row in others if row[0] not in _ALWAYS]))
    return "\n".join([*parts, "</section>"])


def _schema(document: dict[str, Any], schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    if not name:
        return ""
    model = document["components"]["schemas"][name]
    rows = [(field, _described(value, value.get("description", ""))) for field, value in model.get("properties", {}).items()]
    examples = "".join(f"<pre>{escape(json.dumps(example, indent=2))}</pre>" for example in model.get("examples", ()))
    return _table("", rows) + examples


def _described(schema: dict[str, Any], text: str) -> str:
    kinds = [part.get("type", part.get("$ref", "").rpartition("/")[2]) for part in schema.get("anyOf", [schema])]
    kind = " or ".join(str(kind) for kind in kinds if kind)
    bounds = [
        f"{word} {_number(schema[key])}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("default", "by default"))
        if schema.get(key) is not None
    ]
    return "; ".join(part for part in (", ".join([kind, *bounds]), text) if part)


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{_words(text)}</td></tr>" for name, text in rows)
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f"{head}<table>{body}</table>" if rows else ""


def _words(text: str) -> str:
    """Text with `code` in it."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


def _number(value: Any) -> str:
    """As JSON, whole numbers without a point.

    >>> _number(1.0), _number(False)
    ('1', 'false')
    """
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)
