"""Labels as numbers, and the checks that every figure shares. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.index.base import Integers


def class_numbers(labels: npt.ArrayLike, count: int, argument: str) -> Integers:
    """Numbers 0, 1, ... for `count` labels, equal where the labels are equal."""
    return np.unique(check_labels(labels, count, argument), return_inverse=True)[1].reshape(-1)


def shared_class_numbers(
    labels: npt.ArrayLike,
    count: int,
    gallery_labels: npt.ArrayLike,
    gallery_count: int,
    arguments: tuple[str, str] = ("labels", "gallery_labels"),
) -> tuple[Integers, Integers]:
    """The same for two arrays, equal numbers meaning equal labels across both."""
    first = check_labels(labels, count, arguments[0])
    second = check_labels(gallery_labels, gallery_count, arguments[1])
    if (first.dtype.kind in "iu") != (second.dtype.kind in "iu") or {first.dtype.kind, second.dtype.kind} == {"U", "S"}:
        raise ValueError(
            f"{arguments[1]}: dtype {second.dtype}, but {arguments[0]} have {first.dtype}, so none could be equal. "
            "Use one kind."
        )
    if {first.dtype.kind, second.dtype.kind} == {"i", "u"}:
        # NumPy would take both to float64, where large labels become equal.
        first, second = first.astype(object), second.astype(object)
    numbers = np.unique(np.concatenate([first, second]), return_inverse=True)[1].reshape(-1)
    return numbers[:count], numbers[count:]


def with_label(labels: npt.ArrayLike, label: Any, argument: str) -> npt.NDArray[np.bool_]:
    """Which labels are this one."""
    array = np.asarray(labels).reshape(-1)
    numeric = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    if numeric != (array.dtype.kind in "iu") or not (numeric or isinstance(label, (str, bytes))):
        raise ValueError(f"{argument}={label!r}: expected a label like the others, whose dtype is {array.dtype}.")
    return np.asarray(array == label)


def check_labels(labels: npt.ArrayLike, count: int, argument: str) -> npt.NDArray[Any]:
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        raise ValueError(f"{argument}: expected {count} labels, one for each embedding, received shape {array.shape}.")
    if array.dtype == object and all(isinstance(label, str) for label in array):
        array = array.astype(str)
    if not (np.issubdtype(array.dtype, np.integer) or array.dtype.kind in "US"):
        raise ValueError(f"{argument}: expected integers or strings, received dtype {array.dtype}.")
    return array


def check_one_class(classes: Integers, gallery_classes: Integers) -> None:
    """An error if every answer would be right."""
    if np.unique(gallery_classes).size == 1 and np.unique(classes).size == 1 and classes[0] == gallery_classes[0]:
        raise ValueError(
            f"labels: all {len(gallery_classes)} items are of one class, so every answer would be right. "
            "Evaluate on at least two classes."
        )


def check_some_answer(answers: Integers) -> None:
    """An error if no query can be answered."""
    if not answers.any():
        raise ValueError(
            f"labels: none of the {len(answers)} queries has an answer: no class has another item in the gallery. "
            "Evaluate on classes with two images or more."
        )


def check_answers(classes: Integers, gallery_classes: Integers, exclude: Integers) -> Integers:
    """How many right answers each query has, itself not counted; an error if the figures could not mean anything."""
    check_one_class(classes, gallery_classes)
    sizes = np.bincount(gallery_classes, minlength=int(classes.max()) + 1)
    itself = (exclude >= 0) & (gallery_classes[exclude] == classes)
    answers = sizes[classes] - itself
    check_some_answer(answers)
    return answers


def check_ks(ks: int | Iterable[int], available: int, argument: str = "ks") -> list[int]:
    """The ks as a list; one alone is a list of one."""
    numbers = list(ks) if isinstance(ks, Iterable) else [ks]
    if not numbers or any(isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1 for k in numbers):
        raise ValueError(f"{argument}={ks!r}: expected whole numbers >= 1, such as (1, 5, 10).")
    if max(numbers) > available:
        raise ValueError(f"{argument}={ks!r}: a query can find only {available} items. Leave out the larger ones.")
    return [int(k) for k in numbers]
