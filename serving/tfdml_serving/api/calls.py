"""What is known of a request from its first moment on."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import MutableMapping
from typing import Any

from tfdml_serving.api.keys import Key

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PLACE = "tfdml.call"

Scope = MutableMapping[str, Any]


@dataclasses.dataclass
class Call:
    """One request.

    Args:
        request_id: the caller's own X-Request-ID if it is short and plain, a new one otherwise.
        started: by `time.perf_counter`.
        deadline: by the event loop's clock: until when it is answered.
        content_type: of the body, without parameters, in small letters; "" if there is none.
        content_type_parameters: what follows it, as it was sent.
        key: whose request it is; None if nobody needs a key.
        body: whole; empty for requests that have none.
        arrived: whether all of the body has been taken in.
    """

    request_id: str
    started: float
    deadline: float
    content_type: str = ""
    content_type_parameters: str = ""
    key: Key | None = None
    body: bytes = b""
    arrived: bool = False

    @property
    def may_write(self) -> bool:
        """Whether its key, if one is needed, has the role for it."""
        return self.key is None or self.key.role == "write"


def call_of(scope: Scope) -> Call:
    """The call that `keep_call` put there."""
    call: Call = scope[_PLACE]
    return call


def keep_call(scope: Scope, call: Call) -> None:
    scope[_PLACE] = call


def request_id(given: str | None) -> str:
    """A name for a request: the given one if it can stand in a log, a header and a URL, otherwise a new one.

    >>> request_id("order-17"), len(request_id("no\\nnewlines")), len(request_id(None))
    ('order-17', 16, 16)
    """
    return given if given is not None and _REQUEST_ID.fullmatch(given) else os.urandom(8).hex()
