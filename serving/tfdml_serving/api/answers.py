"""Answers as bytes, without a second look by a validator: endpoints build what the models describe; tests hold them to it."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def json_answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON. NaN and infinity are not JSON: they raise a ValueError here rather than in the caller's parser."""
    return Response(_encode(content).encode("utf-8", "backslashreplace"), status, headers, "application/json")
