"""What `check` found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdml.evaluation.label_doubts import LabelDoubts

DOUBTFUL = 0.5
"""Labels whose doubt is larger are counted in the summary."""


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are one picture.

    Attributes:
        kind: `"same file"`, `"same pixels"` or `"same picture"`: what holds for all of the group.
        items: their numbers.
        similarity: the lowest of the pairs that were found; 1 for the same pixels.
        labels: the classes that they are in.
        sides: the sides of the split that they are on; `("",)` without a split.
    """

    kind: str
    items: tuple[int, ...]
    similarity: float
    labels: tuple[str, ...]
    sides: tuple[str, ...]

    @property
    def across_classes(self) -> bool:
        """Whether it has two labels, of which one must be wrong."""
        return len(self.labels) > 1

    @property
    def leaks(self) -> bool:
        """Whether it is on two sides of the split."""
        return len(self.sides) > 1


@dataclass(frozen=True)
class DataReport:
    """What `tfdml.data_care.check` found. Images are called by their number: the place in `ids`.

    Attributes:
        ids: of the images that could be read; with the side in front where there was a dataset for each.
        labels: the class of each.
        sides: the side of the split of each; None without a split.
        unreadable: `(file, reason)`.
        duplicates: groups of images that are one picture: leaks first, then those of two classes, then the surest.
        doubts: see `tfdml.evaluation.label_doubts`; None for one class.
        doubted_by: what the doubts come from, in words.
        widths: in pixels.
        heights: in pixels.
        blank: images that show nothing.
        tiny_side: an image with a shorter side is tiny.
        few_images: a class with fewer images is rare.
        image_bytes: the file of an image.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    sides: tuple[str, ...] | None
    unreadable: tuple[tuple[str, str], ...]
    duplicates: tuple[DuplicateGroup, ...]
    doubts: LabelDoubts | None
    doubted_by: str
    widths: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64]
    blank: tuple[int, ...]
    tiny_side: int
    few_images: int
    image_bytes: Callable[[int], bytes] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def class_counts(self) -> dict[str, int]:
        """Images of each class, the largest first."""
        return dict(sorted(Counter(self.labels).items(), key=lambda item: (-item[1], item[0])))

    @property
    def rare(self) -> dict[str, int]:
        """Classes with fewer images than `few_images`."""
        return {name: count for name, count in self.class_counts.items() if count < self.few_images}

    @property
    def tiny(self) -> tuple[int, ...]:
        """Images with a side shorter than `tiny_side`."""
        return tuple(np.flatnonzero(np.minimum(self.widths, self.heights) < self.tiny_side).tolist())

    @property
    def leaks(self) -> tuple[DuplicateGroup, ...]:
        """Pictures that are on two sides of the split."""
        return tuple(group for group in self.duplicates if group.leaks)

    @property
    def across_classes(self) -> tuple[DuplicateGroup, ...]:
        """Pictures that are in two classes."""
        return tuple(group for group in self.duplicates if group.across_classes)

    def doubtful(self, above: float = DOUBTFUL) -> list[int]:
        """Images whose label is in doubt, the most doubtful first."""
        if self.doubts is None:
            return []
        return [int(number) for number in self.doubts.worst() if self.doubts.doubt[number] > above]

    @property
    def in_order(self) -> bool:
        """Whether nothing was found that is certainly wrong: no unreadable or blank image, leak, or picture in two classes."""
        return not (self.unreadable or self.blank or self.leaks or self.across_classes)

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain values, ready for JSON; images by their ids."""

        def names(numbers: Any) -> list[str]:
            return [self.ids[number] for number in numbers]

        doubts = [
            {
                "id": self.ids[number],
                "label": self.labels[number],
                "suggested": self.labels[self.doubts.suggested[number]],
                "doubt": round(float(self.doubts.doubt[number]), 4),
            }
            for number in self.doubtful()
            if self.doubts is not None
        ]
        return {
            "images": len(self),
            "in_order": self.in_order,
            "classes": self.class_counts,
            "sides": dict(Counter(self.sides)) if self.sides else {},
            "unreadable": [{"file": file, "reason": reason} for file, reason in self.unreadable],
            "duplicates": [
                {
                    "kind": group.kind,
                    "ids": names(group.items),
                    "similarity": round(group.similarity, 4),
                    "labels": list(group.labels),
                    "across_classes": group.across_classes,
                    "leak": group.leaks,
                }
                for group in self.duplicates
            ],
            "doubtful_labels": doubts,
            "doubted_by": self.doubted_by,
            "rare_classes": self.rare,
            "tiny": names(self.tiny),
            "blank": names(self.blank),
            "sizes": {"width": _range(self.widths), "height": _range(self.heights)},
        }

    def __str__(self) -> str:
        counts = np.array(list(self.class_counts.values()))
        copies = sum(len(group.items) - 1 for group in self.duplicates)
        kinds = Counter(group.kind for group in self.duplicates)
        aspects = self.widths / self.heights
        largest = counts[: max(1, len(counts) // 5)].sum() / counts.sum()
        rows = [
            ("images", f"{len(self):,} of {len(counts):,} classes" + (f", {self._sides()}" if self.sides else "")),
            ("unreadable", f"{len(self.unreadable):,} files"),
            ("duplicates", f"{copies:,} images more than pictures" + "".join(f"; {n} x {kind}" for kind, n in kinds.items())),
            ("two classes", f"{len(self.across_classes):,} pictures are in more than one class"),
        ]
        if self.sides:
            rows.append(("leaks", f"{len(self.leaks):,} pictures are on more than one side of the split"))
        if self.doubts is not None:
            rows.append(("labels", f"{len(self.doubtful()):,} in doubt, by {self.doubted_by}"))
        rows += [
            (
                "class sizes",
                f"{counts.min():,} to {counts.max():,}, median {np.median(counts):g}; a fifth of the classes has "
                f"{largest:.0%} of the images; {len(self.rare):,} classes have fewer than {self.few_images}",
            ),
            ("image sizes", f"{_span(self.widths)} wide, {_span(self.heights)} high, width / height {_span(aspects)}"),
            ("tiny, blank", f"{len(self.tiny):,} with a side below {self.tiny_side} pixels; {len(self.blank):,} show nothing"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)

    def _sides(self) -> str:
        return ", ".join(f"{count:,} {side or 'without a side'}" for side, count in Counter(self.sides).items())


def _range(values: npt.NDArray[Any]) -> dict[str, float]:
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}


def _span(values: npt.NDArray[Any]) -> str:
    low, high = values.min(), values.max()
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.4g}" if high < 10 else f"{low:.0f} to {high:.0f}"
