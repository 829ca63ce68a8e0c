"""Checks of what a dataset is made of: images, labels, ids, columns, choices of classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def image_array(images: Any) -> np.ndarray:
    """`images` as `uint8 [N, height, width, channels]`, or a `ValueError` that says what is wrong with them."""
    array = np.asarray(images)
    if array.dtype == object or array.dtype.kind not in "uif":
        raise ValueError(
            f"images of type {array.dtype}: expected one array of numbers 0 to 255, [N, height, width, channels]. "
            "Images of different sizes: write them to files and use image_folder or csv, or resize them first."
        )
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or 0 in array.shape or array.shape[-1] not in (1, 3):
        raise ValueError(
            f"images of shape {tuple(np.shape(images))}: expected [N, height, width, channels] with 1 or 3 channels, or "
            "[N, height, width], and at least one image. Channels come last; an alpha channel has to be dropped."
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).all(axis=(1, 2, 3)))
        raise ValueError(f"images: {len(bad)} of {len(array)} contain NaN or infinity, first at index {bad[0]}.")
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise ValueError(
            f"images with values from {low} to {high}: expected 0 to 255. "
            "Undo any standardisation; scaling belongs into the encoder."
        )
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"images of {array.dtype} with values from {low} to {high} look scaled to 0..1: expected 0 to 255. Multiply by 255."
        )
    return np.ascontiguousarray(np.rint(array).astype(np.uint8))


def dense_labels(labels: Any, class_names: Sequence[str] | None, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Integer or string labels as dense class numbers `int64 [count]`, and the classes' names."""
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 1 and array.dtype.kind in "OST" and all(isinstance(value, (str, bytes)) for value in array):
        array = np.array([value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in array])
    if array.ndim != 1 or len(array) != count:
        raise ValueError(f"labels of shape {tuple(np.shape(labels))}: expected one label for each of {count} images.")
    if count == 0:
        raise ValueError("no images: a dataset has at least one.")
    if array.dtype.kind not in "iuU":
        raise ValueError(f"labels of type {array.dtype}: expected integers or strings.")
    present, numbers = np.unique(array, return_inverse=True)
    numbers = numbers.reshape(-1).astype(np.int64)
    if class_names is None:
        return numbers, tuple(str(value) for value in present)
    names = [str(name) for name in class_names]
    if array.dtype.kind == "U" or present[0] < 0 or present[-1] >= len(names):
        raise ValueError(
            f"labels from {present[0]!r} to {present[-1]!r} with {len(names)} class_names: expected numbers 0 to "
            f"{len(names) - 1}, or leave class_names out."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"class_names: {_first_duplicate(names)!r} occurs twice; every class needs its own name.")
    return numbers, tuple(names[number] for number in present)


def item_ids(ids: Any, count: int) -> np.ndarray:
    """Unique non-empty strings, `[count]`; the positions when `ids` is None."""
    if ids is None:
        return np.array([str(i) for i in range(count)])
    values = [str(i) for i in ids]
    if len(values) != count:
        raise ValueError(f"{len(values)} ids for {count} images: expected one id for each.")
    if "" in values:
        raise ValueError(f"ids: the id at index {values.index('')} is empty.")
    if len(set(values)) < count:
        raise ValueError(f"ids: {_first_duplicate(values)!r} occurs more than once; an item id must be unique.")
    return np.array(values)


def columns(fields: Mapping[str, Sequence[Any]], count: int) -> dict[str, list[Any]]:
    """Columns of `count` values each, as lists of plain Python values."""
    result = {}
    for name, values in fields.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"fields: {name!r} is not a column name; expected non-empty text.")
        column = values.tolist() if isinstance(values, np.ndarray) else list(values)
        column = [value.item() if isinstance(value, np.generic) else value for value in column]
        if isinstance(values, (str, bytes)) or len(column) != count:
            raise ValueError(f"fields[{name!r}] has {len(column)} values: expected one for each of {count} images.")
        result[name] = column
    return result


def chosen_indices(indices: Any, count: int) -> np.ndarray:
    """Distinct indices below `count`, from integers or a boolean mask."""
    array = np.asarray(indices)
    if array.dtype == bool:
        if array.shape != (count,):
            raise ValueError(f"indices: a mask of shape {array.shape}; expected [{count}], one boolean for each image.")
        array = np.flatnonzero(array)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"indices of shape {array.shape}: expected at least one index, [n].")
    if array.dtype.kind not in "iu":
        raise ValueError(f"indices of type {array.dtype}: expected integers or booleans.")
    if array.min() < 0 or array.max() >= count:
        raise ValueError(f"indices from {array.min()} to {array.max()}: expected 0 to {count - 1}.")
    if len(np.unique(array)) < len(array):
        raise ValueError(f"indices: {_first_duplicate(array.tolist())} occurs more than once; item ids must stay unique.")
    return array.astype(np.int64)


def class_numbers(argument: str, names: Iterable[str], class_names: Sequence[str]) -> np.ndarray:
    """The numbers of the classes called `names`."""
    number = {name: i for i, name in enumerate(class_names)}
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in number]
    if unknown:
        known = ", ".join(repr(name) for name in class_names[:10]) + (", ..." if len(class_names) > 10 else "")
        raise ValueError(f"{argument}: no class is called {unknown[0]!r}. The {len(class_names)} classes are {known}")
    return np.array([number[name] for name in wanted], np.int64)


def class_share(argument: str, share: Any, classes: int) -> int:
    """A share (float) or number (int) of classes as a number of classes that leaves at least one on either side."""
    if isinstance(share, (bool, np.bool_)) or not isinstance(share, (int, float, np.integer, np.floating)):
        raise ValueError(f"{argument}={share!r}: expected a share (0.5), a number of classes (20), or a list of class names.")
    if isinstance(share, (float, np.floating)):
        if not 0.0 < share < 1.0:
            raise ValueError(f"{argument}={share!r}: expected a share between 0 and 1, or an integer number of classes.")
        number = min(max(int(share * classes + 0.5), 1), classes - 1)
    else:
        number = int(share)
    leave_classes(argument, share, number, classes)
    return number


def leave_classes(argument: str, value: object, number: int, classes: int) -> None:
    """Refuses a split with an empty side."""
    if not 1 <= number < classes:
        raise ValueError(
            f"{argument}={value!r} takes {number} of {classes} classes: both sides of a split by class need at least one."
        )


def seed(argument: str, value: Any) -> None:
    """A seed is an integer from 0."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"{argument}={value!r}: expected an integer >= 0.")


def describe_column(values: Sequence[Any]) -> str:
    """A line about a column: its values when they are few, else an example."""
    try:
        distinct = sorted(set(values))
    except TypeError:
        return f"e.g. {values[0]!r}"
    if len(distinct) <= 4:
        return ", ".join(f"{value!r} ({sum(v == value for v in values)})" for value in distinct)
    return f"{len(distinct)} values, e.g. {values[0]!r}"


def _first_duplicate(values: Sequence[Any]) -> Any:
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
