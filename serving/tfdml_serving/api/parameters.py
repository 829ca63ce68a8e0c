"""What holds for the parameters of every query."""

from __future__ import annotations

from fastapi import Request

from tfdml_serving.errors import BadRequest


async def no_parameter_twice(request: Request) -> None:
    """Raises a BadRequest for a parameter with two values, of which one would be passed over."""
    pairs = request.query_params.multi_items()
    if len(pairs) > len(dict(pairs)):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"{twice[:40]}: given more than once in the query; expected one value.")
