"""An image that a form sends."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tfdml_serving.errors import BadRequest

FIELD = b"image"
_MOST_PARTS = 16


class _Parts:
    """Collects the parts of a form whose body is in memory already."""

    def __init__(self) -> None:
        self.parts: list[tuple[dict[bytes, bytes], list[bytes]]] = []
        self.whole = False
        self._name = self._value = b""

    def end(self) -> None:
        self.whole = True

    def begin(self) -> None:
        if len(self.parts) >= _MOST_PARTS:
            raise BadRequest(f"form: more than {_MOST_PARTS} parts.")
        self.parts.append(({}, []))

    def data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1][1].append(data[start:end])

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self.parts[-1][0][self._name.lower()] = self._value
        self._name = self._value = b""


def image_of_form(body: bytes, parameters: str) -> tuple[bytes, str | None]:
    """The file in the form's field `image`, and the media type that its part says, if it does.

    Args:
        body: of the request.
        parameters: of its content type, which name the boundary.

    Raises:
        BadRequest: if it is no such form, or does not have exactly one such field.
    """
    _, options = parse_options_header(f"multipart/form-data;{parameters}")
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadRequest("Content-Type: multipart/form-data without a boundary. Let your HTTP library set this header.")
    parts = _Parts()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_part_data": parts.data,
                "on_header_field": parts.header_name,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_end": parts.end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        parts.whole = False
    if not parts.whole:
        raise BadRequest("form: damaged, or cut short. Send it as multipart/form-data with a field named image.")
    found = []
    for headers, pieces in parts.parts:
        _, disposition = parse_options_header(headers.get(b"content-disposition", b""))
        if disposition.get(b"name") == FIELD:
            kind, _ = parse_options_header(headers.get(b"content-type", b""))
            found.append((b"".join(pieces), kind.decode("latin-1").lower() or None))
    if len(found) != 1:
        raise BadRequest(f"form: {len(found)} fields named image; expected exactly one.")
    return found[0]
