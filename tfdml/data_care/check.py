"""`check`: what is wrong with labelled images before a model is trained on them. No TensorFlow of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfdml._checks import check_choice, check_positive
from tfdml.data_care.data_report import DataReport, DuplicateGroup
from tfdml.data_care.near_duplicates import groups, near_duplicates
from tfdml.data_care.reading import ImageFacts, colour_layout, read_images
from tfdml.evaluation.label_doubts import label_doubts

if TYPE_CHECKING:
    from tfdml.datasets import Dataset

Embed = Callable[["Dataset"], npt.ArrayLike]


def check(
    data: Dataset | Mapping[str, Dataset],
    split: str | None = None,
    *,
    embed: Embed | None = None,
    metric: str = "cosine",
    near: bool = True,
    similarity: float = 0.95,
    tiny: int = 32,
    few: int = 5,
) -> DataReport:
    """Looks for what makes figures wrong or training worse: duplicates, leaks, doubtful labels, rare classes, bad images.

    - Files that could not be read are those that the loader left out (`on_unreadable="skip"`), and those that Pillow refuses.
    - Duplicates are of three kinds: the same file, the same pixels, and (with `near`) the same picture, cropped, compressed
      again or brighter; see `tfdml.data_care.near_duplicates`. Where a group of them is of two classes, a label is wrong; where
      it is of two sides of a split, the test knows what was trained on.
    - Labels are doubted by the neighbours in `embed`'s embedding, or, without a model, by colours and where they are.

    Args:
        data: a `tfdml.datasets.Dataset`, or for each side of a split one, by name: `{"train": ..., "test": ...}`.
        split: a field of the dataset that holds each image's side, such as `"split"`; None: one side.
        embed: makes the embeddings `[N, D]` of a dataset; of a model that was not trained on these labels, if there is one.
        metric: of those embeddings.
        near: also look for near-duplicates, which takes longest.
        similarity: of near-duplicates.
        tiny: an image with a side shorter than this is reported.
        few: a class with fewer images is reported.

    Returns:
        A `DataReport`.

    Example:
        >>> import numpy as np, tfdml
        >>> images = np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)
        >>> images[4] = images[0]
        >>> report = check(tfdml.datasets.Dataset.from_arrays(images, ["mug", "mug", "mug", "shoe", "shoe", "shoe"]))
        >>> [(group.kind, group.items, group.labels) for group in report.duplicates]
        [('same file', (0, 4), ('mug', 'shoe'))]
    """
    check_positive("tiny", tiny, allow_zero=True)
    check_positive("few", few, allow_zero=True)
    sides = dict(data) if isinstance(data, Mapping) else {"": data}
    if not sides:
        raise ValueError("data: received no dataset. Expected one, or one for each side of a split, by name.")
    if split is not None and isinstance(data, Mapping):
        raise ValueError(f"split={split!r}: expected None beside datasets that are given by side.")
    facts: list[ImageFacts] = []
    ids: list[str] = []
    labels: list[str] = []
    where: list[str] = []
    vectors: list[npt.NDArray[np.float32]] = []
    unreadable: list[tuple[str, str]] = []
    sources: list[Callable[[], bytes]] = []
    for side, dataset in sides.items():
        prefix = f"{side}/" if side else ""
        unreadable += [(prefix + file, reason) for file, reason in dataset.skipped]
        read = read_images(range(len(dataset)), dataset.image_bytes)
        good = [number for number, fact in enumerate(read) if not isinstance(fact, str)]
        unreadable += [(prefix + str(dataset.ids[i]), fact) for i, fact in enumerate(read) if isinstance(fact, str)]
        facts += [fact for fact in read if not isinstance(fact, str)]
        ids += [prefix + str(dataset.ids[number]) for number in good]
        labels += [str(dataset.class_names[dataset.labels[number]]) for number in good]
        where += [side] * len(good) if split is None else _field(dataset, split, good)
        sources += [_later(dataset, number) for number in good]
        if embed is not None:
            vectors.append(np.asarray(embed(dataset), np.float32)[good])
    if not facts:
        raise ValueError("data: none of the images can be read.")
    duplicates = _duplicates(facts, labels, where, similarity if near else None)
    doubts = None
    if len(set(labels)) > 1:
        embeddings = np.concatenate(vectors) if vectors else colour_layout(facts)
        doubts = label_doubts(embeddings, labels, metric=metric if vectors else "cosine")
    return DataReport(
        ids=tuple(ids),
        labels=tuple(labels),
        sides=tuple(where) if any(where) else None,
        unreadable=tuple(unreadable),
        duplicates=tuple(duplicates),
        doubts=doubts,
        doubted_by="the neighbours in the model's embedding" if vectors else "the neighbours by colours and their places",
        widths=np.array([fact.width for fact in facts]),
        heights=np.array([fact.height for fact in facts]),
        blank=tuple(number for number, fact in enumerate(facts) if fact.blank),
        tiny_side=int(tiny),
        few_images=int(few),
        image_bytes=lambda number: sources[number](),
    )


def _later(dataset: Dataset, number: int) -> Callable[[], bytes]:
    return lambda: dataset.image_bytes(number)


def _field(dataset: Dataset, split: str, numbers: Sequence[int]) -> list[str]:
    values: list[Any] = dataset.fields[check_choice("split", split, dataset.fields)]
    return [str(values[number]) for number in numbers]


def _duplicates(facts: list[ImageFacts], labels: list[str], sides: list[str], similarity: float | None) -> list[DuplicateGroup]:
    """Groups of images that are one picture; leaks first, then those of two classes, then the surest."""
    pairs: dict[tuple[int, int], float] = {}
    for kind in ("file_hash", "pixel_hash"):
        first: dict[str, int] = {}
        for number, fact in enumerate(facts):
            before = first.setdefault(getattr(fact, kind), number)
            if before != number:
                pairs[before, number] = 1.0
    if similarity is not None:
        # Of pictures with the same pixels one is enough; a blank one is like every other.
        once = list({fact.pixel_hash: number for number, fact in reversed(list(enumerate(facts)))}.values())[::-1]
        for pair in near_duplicates(np.stack([facts[number].grey for number in once]), similarity):
            ends = sorted((once[pair.first], once[pair.second]))
            pairs[ends[0], ends[1]] = pair.similarity
    connected = groups(list(pairs), len(facts))
    place_of = {number: place for place, members in enumerate(connected) for number in members}
    lowest = [1.0] * len(connected)
    for (member, _), value in pairs.items():
        place = place_of[member]
        lowest[place] = min(lowest[place], value)
    found = []
    for place, members in enumerate(connected):
        hashes = {facts[number].file_hash for number in members}, {facts[number].pixel_hash for number in members}
        kind = "same file" if len(hashes[0]) == 1 else "same pixels" if len(hashes[1]) == 1 else "same picture"
        found.append(
            DuplicateGroup(
                kind=kind,
                items=tuple(members),
                similarity=lowest[place],
                labels=tuple(sorted({labels[number] for number in members})),
                sides=tuple(sorted({sides[number] for number in members})),
            )
        )
    return sorted(found, key=lambda group: (not group.leaks, not group.across_classes, -group.similarity, group.items))
