"""The words and signs of a filter, with their places."""

from __future__ import annotations

import dataclasses
import math
import re

from tfdml.bundle.catalogue_writer import INT64
from tfdml_serving.errors import FilterError

_SYMBOLS = ("<=", ">=", "!=", "<>", "==", "=", "<", ">", "(", ")", ",")
_QUOTES = {"'": "single", '"': "double"}
_WORD = re.compile(r"[^\s()=<>!,'\"]+")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Token:
    """A piece of a filter.

    Args:
        kind: "word", "single" or "double" (quoted, `text` is what is inside), "symbol", or "end".
        text: its text.
        position: where it begins, counted from 0.
    """

    kind: str
    text: str
    position: int

    def number(self) -> int | float | None:
        """The number that it is, if it is one that SQLite can hold."""
        if not _NUMBER.fullmatch(self.text):
            return None
        if _WHOLE.fullmatch(self.text):
            whole = int(self.text)
            return whole if whole in INT64 else None
        real = float(self.text)
        return real if math.isfinite(real) else None


def tokens(text: str) -> list[Token]:
    """All of a text's tokens, and one for its end."""
    result: list[Token] = []
    place = 0
    while place < len(text):
        character = text[place]
        if character.isspace():
            place += 1
            continue
        symbol = next((symbol for symbol in _SYMBOLS if text.startswith(symbol, place)), None)
        if symbol is not None:
            result.append(Token("symbol", symbol, place))
            place += len(symbol)
        elif character in _QUOTES:
            inside, end = _quoted(text, place)
            result.append(Token(_QUOTES[character], _storable(inside, place), place))
            place = end
        elif word := _WORD.match(text, place):
            result.append(Token("word", _storable(word.group(), place), place))
            place = word.end()
        else:
            raise FilterError(f"filter, character {place + 1}: {character!r} means nothing here; did you mean '!='?", place)
    return [*result, Token("end", "", len(text))]


def found(token: Token) -> str:
    """A token as an error names it."""
    if token.kind == "end":
        return "the end of the filter"
    shown = token.text if len(token.text) <= 40 else token.text[:40] + "..."
    return repr(shown) if token.kind in ("word", "symbol") else f"the text {shown!r}"


def _quoted(text: str, start: int) -> tuple[str, int]:
    """What is inside the quotes that open at `start`, and where the rest begins."""
    quote, place, parts = text[start], start + 1, []
    while True:
        end = text.find(quote, place)
        if end < 0:
            raise FilterError(f"filter, character {start + 1}: the quote {quote} is never closed.", start)
        parts.append(text[place:end])
        if text[end + 1 : end + 2] != quote:
            return quote.join(parts), end + 1
        place = end + 2


def _storable(text: str, position: int) -> str:
    """No catalogue can hold these, and SQLite would not compare them as they are."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise FilterError(
            f"filter, character {position + 1}: a NUL or half of a surrogate pair, which no item can have.", position
        )
    return text
