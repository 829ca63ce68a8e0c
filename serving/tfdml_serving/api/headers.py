"""Headers that keep browsers from doing with an answer what it is not meant for."""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]

# The page's scripts, styles and pictures are files of this service; blob: is the preview of a picture that was not sent yet.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_NOTHING = "default-src 'none'; frame-ancestors 'none'"

_EVERYWHERE: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
]
_PAGE: Headers = [
    *_EVERYWHERE,
    (b"content-security-policy", PAGE_POLICY.encode()),
    (b"permissions-policy", b"camera=(self), clipboard-read=(self), geolocation=(), microphone=(), payment=(), usb=()"),
]
_DATA: Headers = [*_EVERYWHERE, (b"content-security-policy", _NOTHING.encode())]


def security_headers(path: str) -> Headers:
    """The headers for the answer at a path: the page may run its own scripts, everything else nothing at all."""
    return _PAGE if path == "/" or path == "/docs" or path.startswith("/static/") else _DATA
