"""Whether what came back are the embeddings that were asked for. Nothing from outside is trusted before it was here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfdml_serving.embedding.base import Booleans, Floats, WrongAnswer
from tfdml_serving.errors import EmbedderUnavailable


def checked_answer(embeddings: Any, valid: Any, rows: int, dimension: int | None) -> tuple[Floats, Booleans]:
    """Embeddings float32 `[rows, dimension]`, zero where not valid, and valid bool `[rows]`.

    Args:
        embeddings: nested lists or an array.
        valid: a list or an array.
        rows: how many files were sent.
        dimension: as the bundle says; None takes any.

    Raises:
        WrongAnswer: for anything else.

    Example:
        >>> checked_answer([[0.6, 0.8], [9.0, 9.0]], [True, False], rows=2, dimension=2)[0].tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    try:
        given, flags = np.asarray(embeddings), np.asarray(valid)
    except (ValueError, OverflowError):
        raise WrongAnswer("its embeddings are of different lengths") from None
    if flags.dtype != np.bool_ or flags.shape != (rows,):
        raise WrongAnswer(f"its 'valid' is {flags.dtype} {list(flags.shape)}; expected bool [{rows}]")
    if given.dtype.kind not in "fi" or given.ndim != 2 or len(given) != rows or dimension not in (None, given.shape[1]):
        expected = f"[{rows}, {'D' if dimension is None else dimension}]"
        raise WrongAnswer(f"its embeddings are {given.dtype} {list(given.shape)}; the bundle says float {expected}")
    with np.errstate(over="ignore"):
        result = np.where(flags[:, None], given, 0).astype(np.float32)
    if not np.isfinite(result).all():
        raise WrongAnswer("its embeddings hold NaN or infinity")
    return result, flags


def parse_predictions(body: bytes, rows: int, dimension: int | None) -> tuple[Floats, Booleans]:
    """The embeddings in TF-Serving's answer in row form, `{"predictions": [{"embedding": [...], "valid": true}, ...]}`.

    Raises:
        EmbedderUnavailable: if this is not such an answer; `WrongAnswer` if it is JSON at all.
    """
    content = parse_json(body)
    predictions = content.get("predictions")
    if not isinstance(predictions, list):
        raise WrongAnswer(f"its answer has no list 'predictions', but {_keys(content)}")
    if len(predictions) != rows:
        raise WrongAnswer(f"it answered {len(predictions)} rows to {rows} files")
    for row in predictions:
        if not isinstance(row, dict) or not {"embedding", "valid"} <= row.keys():
            raise WrongAnswer("its predictions have no 'embedding' and 'valid': not the model of a bundle")
    return checked_answer([row["embedding"] for row in predictions], [row["valid"] for row in predictions], rows, dimension)


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        EmbedderUnavailable: for anything else.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise EmbedderUnavailable(f"its answer is not JSON: {shortened(body)}") from None
    if not isinstance(content, dict):
        raise EmbedderUnavailable(f"its answer is a JSON {type(content).__name__}; expected an object")
    return content


def shortened(text: bytes | str, most: int = 120) -> str:
    """The beginning of a text from outside, fit for a message: printable, and without what may be part of an image.

    >>> shortened(b"<html>bad gateway</html>")
    "'<html>bad gateway</html>'"
    >>> shortened("JSON Value: " + "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ")
    "'JSON Value: [...]'"
    """
    shown = text[: 20 * most].decode("utf-8", "replace") if isinstance(text, bytes) else text
    shown = re.sub(r"[A-Za-z0-9+/=_-]{40,}", "[...]", shown)
    return repr(shown[:most] + ("..." if len(shown) > most else ""))


def _keys(content: dict[str, Any]) -> str:
    return shortened(", ".join(map(str, content))) if content else "nothing"


def zeros(rows: int, dimension: int) -> tuple[Floats, Booleans]:
    """The answer to files none of which can be decoded."""
    return np.zeros([rows, dimension], np.float32), np.zeros([rows], np.bool_)


def joined(parts: Sequence[tuple[Floats, Booleans]]) -> tuple[Floats, Booleans]:
    """Several answers as one."""
    if len(parts) == 1:
        return parts[0]
    embeddings, valid = zip(*parts, strict=True)
    return np.concatenate(embeddings), np.concatenate(valid)
