"""The catalogue's fields that a search signature returns: as arrays, under names that TF-Serving can answer with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice
from tfdml.bundle.catalogue import Value
from tfdml.bundle.catalogue_writer import check_column

_TAKEN = ("ids", "distances", "count", "valid")


def field_columns(
    columns: Mapping[str, Sequence[Value]], names: Sequence[str], ids: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    """One array of N values for each of the named columns: strings (missing ones are ""), int64 or float64.

    Raises:
        ValueError: for a name that no column has, or that is an output of the search already, that comes twice, or that
            TF-Serving would take for binary data, and for a missing number, which an array of numbers cannot hold.
        BundleError: for values that the catalogue could not hold either.
    """
    if isinstance(names, str):
        raise ValueError(f"search_fields={names!r}: expected a sequence of names; for one field write [{names!r}].")
    result: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        check_choice("search_fields", name, columns)
        if name in _TAKEN or name in result:
            raise ValueError(f"search_fields={name!r}: the search returns something of this name already. Rename the field.")
        column, kind = list(columns[name]), check_column(name, list(columns[name]), list(ids))
        if kind == "text":
            if name.endswith("_bytes"):
                raise ValueError(
                    f"search_fields={name!r}: TF-Serving answers base64 where a name ends in _bytes. Rename the field."
                )
            result[name] = np.array(["" if value is None else str(value) for value in column], object)
            continue
        missing = next((number for number, value in enumerate(column) if value is None), None)
        if missing is not None:
            raise ValueError(
                f"search_fields={name!r}: item {ids[missing]!r} has no value, and a signature cannot answer a missing number. "
                "Fill it in, make it text, or leave the field to the catalogue."
            )
        result[name] = np.array(column, np.int64 if kind == "integer" else np.float64)
    return result
