"""The language in which a search is narrowed to some items: `category = milk and in_stock = 1`.

    filter     = disjunction
    disjunction = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation   = "not" negation | "(" disjunction ")" | condition
    condition  = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | field [ "not" ] "in" "(" value { "," value } ")"
               | field [ "not" ] "like" value
               | field "is" [ "not" ] "null"

A field is a bare word or "quoted"; a value is a number, a 'quoted' or "quoted" text, or a bare word; a quote inside quotes
is written twice. Keywords are in any case. What a filter means is what SQLite says it means, for items in a catalogue
(`Filter.sql`) as for items in memory (`Filter.matches`): a comparison with a missing value is neither true nor false, and
`like` ignores the case of ASCII letters only.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from tfdml.bundle.catalogue import Value
from tfdml_serving.engine.conditions import And, Comparison, Condition, In, IsNull, Like, Not, Or
from tfdml_serving.engine.filter_tokens import Token, found, tokens
from tfdml_serving.errors import FilterError

LONGEST = 4000
MOST_CONDITIONS = 200
DEEPEST = 32

_COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
_SAME = {"==": "=", "<>": "!="}
_KEYWORDS = ("and", "or", "not", "in", "is", "null", "like")


@dataclasses.dataclass(frozen=True)
class Filter:
    """A condition on items, in SQL and in Python.

    Equal filters select the same items, however they were written.

    Args:
        sql: a condition for the WHERE of a query on the catalogue's table of items. It holds names of fields, quoted, and no
            value: those are `parameters`, in the order of the question marks.
        parameters: the values.
        condition: the same as a tree.
    """

    sql: str
    parameters: tuple[str | int | float, ...]
    condition: Condition = dataclasses.field(compare=False, repr=False)

    def matches(self, item: Mapping[str, Value]) -> bool:
        """Whether an item, `id` and fields by name, is selected; a field that it has not counts as missing."""
        return self.condition.holds(item) is True


def parse_filter(text: str, fields: Mapping[str, str]) -> Filter:
    """Reads a filter.

    Args:
        text: see the module.
        fields: the catalogue's fields and their types, "text", "integer" or "real". `id` is always one.

    Raises:
        FilterError: if it cannot be read, names an unknown field, compares a number with text, or is too long or too deep; it
            says where, and what was expected.

    Example:
        >>> fields = {"category": "text", "price": "real", "in_stock": "integer"}
        >>> chosen = parse_filter("category in (milk, 'oat milk') and not price > 3", fields)
        >>> chosen.sql
        '("category" IN (?, ?) AND NOT "price" > ?)'
        >>> chosen.parameters
        ('milk', 'oat milk', 3.0)
        >>> chosen.matches({"id": "m-1", "category": "milk", "price": 2.5})
        True
        >>> parse_filter("categry = milk", fields)
        Traceback (most recent call last):
        tfdml_serving.errors.FilterError: filter, character 1: there is no field 'categry'; did you mean 'category'? Known
            fields: id (text), category (text), price (real), in_stock (integer).
    """
    if not isinstance(text, str):
        raise FilterError(f"filter: expected a text, not {type(text).__name__}.")
    if len(text) > LONGEST:
        raise FilterError(f"filter: {len(text):,} characters; at most {LONGEST:,} are read. Ask for less at a time.", LONGEST)
    condition = _Parser(text, fields).read()
    parameters: list[str | int | float] = []
    sql = condition.sql(parameters)
    return Filter(sql, tuple(parameters), condition)


class _Parser:
    """Reads the tokens from left to right; each method takes what its name says."""

    def __init__(self, text: str, fields: Mapping[str, str]) -> None:
        self._tokens = tokens(text)
        self._place = 0
        self._fields = {"id": "text", **fields}
        self._conditions = 0

    def read(self) -> Condition:
        if self._next.kind == "end":
            raise FilterError("filter: it is empty. Write a condition such as category = milk, or leave the filter out.", 0)
        condition = self._disjunction(0)
        if self._next.kind != "end":
            raise self._wrong("'and', 'or' or the end")
        return condition

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def _take(self) -> Token:
        token = self._tokens[self._place]
        self._place += token.kind != "end"
        return token

    def _keyword(self, *words: str) -> bool:
        """Takes the words if they come next."""
        coming = self._tokens[self._place : self._place + len(words)]
        there = [token.text.lower() if token.kind == "word" else None for token in coming] == list(words)
        self._place += len(words) * there
        return there

    def _symbol(self, symbol: str, expected: str) -> None:
        if self._next.kind != "symbol" or self._next.text != symbol:
            raise self._wrong(expected)
        self._take()

    def _disjunction(self, depth: int) -> Condition:
        parts = [self._conjunction(depth)]
        while self._keyword("or"):
            parts.append(self._conjunction(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _conjunction(self, depth: int) -> Condition:
        parts = [self._negation(depth)]
        while self._keyword("and"):
            parts.append(self._negation(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _negation(self, depth: int) -> Condition:
        if depth > DEEPEST:
            raise FilterError(
                f"filter, character {self._next.position + 1}: more than {DEEPEST} 'not's and parentheses inside each other.",
                self._next.position,
            )
        if self._keyword("not"):
            return Not(self._negation(depth + 1))
        if self._next.kind == "symbol" and self._next.text == "(":
            self._take()
            inner = self._disjunction(depth + 1)
            self._symbol(")", "'and', 'or' or ')'")
            return inner
        return self._condition()

    def _condition(self) -> Condition:
        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            raise FilterError(
                f"filter, character {self._next.position + 1}: more than {MOST_CONDITIONS} conditions. For many values of one "
                "field write: field in (a, b, ...).",
                self._next.position,
            )
        field, kind = self._field()
        if self._keyword("is", "not", "null"):
            return Not(IsNull(field))
        if self._keyword("is", "null"):
            return IsNull(field)
        if self._keyword("is"):
            raise self._wrong("'null' or 'not null'")
        negated = self._keyword("not")
        if self._keyword("in"):
            inside: Condition = In(field, tuple(self._values(field, kind)))
        elif self._next.kind == "word" and self._next.text.lower() == "like":
            inside = self._like(field, kind)
        elif negated:
            raise self._wrong("'in' or 'like'")
        else:
            return self._comparison(field, kind)
        return Not(inside) if negated else inside

    def _field(self) -> tuple[str, str]:
        token = self._next
        if token.kind not in ("word", "double") or (token.kind == "word" and token.text.lower() in _KEYWORDS):
            raise self._wrong("the name of a field, 'not' or '('")
        if token.text not in self._fields:
            raise FilterError(
                f"filter, character {token.position + 1}: there is no field {token.text!r}{_meant(token.text, self._fields)} "
                f"{_known(self._fields)}",
                token.position,
            )
        self._take()
        return token.text, self._fields[token.text]

    def _comparison(self, field: str, kind: str) -> Condition:
        token = self._next
        operator = _SAME.get(token.text, token.text)
        if token.kind != "symbol" or operator not in _COMPARISONS:
            raise self._wrong(f"one of {' '.join(_COMPARISONS)} in like is not, after {field!r}")
        self._take()
        return Comparison(field, operator, self._value(field, kind))

    def _like(self, field: str, kind: str) -> Condition:
        place = self._take().position
        if kind != "text":
            raise FilterError(
                f"filter, character {place + 1}: 'like' compares texts, and {field!r} is {kind}. Use =, < or >.", place
            )
        return Like(field, str(self._value(field, kind)))

    def _values(self, field: str, kind: str) -> list[str | int | float]:
        self._symbol("(", "'(' after 'in'")
        values = [self._value(field, kind)]
        while self._next.kind == "symbol" and self._next.text == ",":
            self._take()
            values.append(self._value(field, kind))
        self._symbol(")", "',' or ')'")
        return values

    def _value(self, field: str, kind: str) -> str | int | float:
        token = self._next
        if token.kind in ("symbol", "end"):
            raise self._wrong(f"a value for {field!r}")
        if token.kind == "word" and token.text.lower() in _KEYWORDS:
            hint = f"write: {field} is null" if token.text.lower() == "null" else f"for the word itself write '{token.text}'"
            raise FilterError(
                f"filter, character {token.position + 1}: expected a value for {field!r}, found the keyword {token.text!r}; "
                f"{hint}.",
                token.position,
            )
        self._take()
        if kind == "text":
            return token.text
        number = token.number() if token.kind == "word" else None
        if number is None:
            raise FilterError(
                f"filter, character {token.position + 1}: {field!r} is {kind}; expected a finite number of at most 64 bits, "
                f"found {found(token)}.",
                token.position,
            )
        # A column of real numbers holds no others; SQLite's IN would round the value, its = would not.
        return float(number) if kind == "real" else number

    def _wrong(self, expected: str) -> FilterError:
        token = self._next
        return FilterError(
            f"filter, character {token.position + 1}: expected {expected}; found {found(token)}.", token.position
        )


def _meant(name: str, fields: Mapping[str, str]) -> str:
    by_fold = {known.lower(): known for known in fields}
    close = difflib.get_close_matches(name.lower(), by_fold, 1)
    return f"; did you mean {by_fold[close[0]]!r}?" if close else "."


def _known(fields: Mapping[str, str]) -> str:
    names = [f"{name} ({kind})" for name, kind in fields.items()]
    more = f" and {len(names) - 30} more" if len(names) > 30 else ""
    return f"Known fields: {', '.join(names[:30])}{more}."
