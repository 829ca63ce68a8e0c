"""The log: one JSON object a line. It names requests, never what is in them: no image, no embedding, no key, no filter."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

log = logging.getLogger("tfdml_serving")


class JsonLines(logging.Formatter):
    """Time, level, message, and what was given as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_log(level: str = "info", stream: TextIO | None = None) -> None:
    """Sends the service's log, and uvicorn's warnings, to `stream` (standard error if left out)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    # The parser of forms warns of what is in them.
    for name, least in (("tfdml_serving", level), ("uvicorn", "warning"), ("python_multipart", "critical")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(least.upper())
