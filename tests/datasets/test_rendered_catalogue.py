from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tfdml.datasets import Dataset, rendered_catalogue
from tfdml.datasets.catalogue.draws import Draws
from tfdml.datasets.catalogue.look import FAMILIES, MOTIFS, PATTERNS, draw_looks
from tfdml.datasets.catalogue.render import render_views

# Written down once; they must never change.
UNITS = [0.721386, 0.916054, 0.067128]
RAW = "5f82c2d9cf"
TITLE = "Olanso pink chair with diagonals"
MEANS = [[79, 76, 94], [105, 105, 93], [108, 103, 103], [104, 131, 114]]


def pixels(data: Dataset) -> np.ndarray:
    return np.concatenate(list(data.batches(64).as_numpy_iterator()))


@pytest.fixture(scope="module")
def small() -> Dataset:
    return rendered_catalogue(classes=30, views=4, image_size=32)


def recall_at_1(features: np.ndarray, labels: np.ndarray) -> float:
    features = features.reshape(len(features), -1).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T
    np.fill_diagonal(similarity, -2)
    return float((labels[similarity.argmax(axis=1)] == labels).mean())


def test_what_is_in_it(small: Dataset) -> None:
    assert (len(small), small.num_classes) == (120, 30)
    assert set(small.class_counts) == {4}
    assert set(small.fields) == {"category", "colour", "price", "title"}
    assert set(small.fields["category"]) <= set(FAMILIES)
    assert small.ids[5] == "product-0001/view-01"
    assert pixels(small).shape == (120, 32, 32, 3)


def test_fields_belong_to_the_class(small: Dataset) -> None:
    for values in small.fields.values():
        assert all(len(set(values[i : i + 4])) == 1 for i in range(0, 120, 4))
    assert all(1 < price < 61 and price == round(price, 2) for price in small.fields["price"])
    assert small.fields["colour"][0] in small.fields["title"][0]


def test_it_is_the_same_every_time(small: Dataset) -> None:
    np.testing.assert_array_equal(pixels(small), pixels(rendered_catalogue(classes=30, views=4, image_size=32)))


def test_a_smaller_one_is_part_of_a_larger_one(small: Dataset) -> None:
    part = rendered_catalogue(classes=5, views=2, image_size=32)
    np.testing.assert_array_equal(pixels(part), pixels(small).reshape(30, 4, 32, 32, 3)[:5, :2].reshape(10, 32, 32, 3))
    assert part.fields["title"] == [title for i, title in enumerate(small.fields["title"][:20]) if i % 4 < 2]


def test_another_seed_is_another_catalogue(small: Dataset) -> None:
    other = rendered_catalogue(classes=30, views=4, image_size=32, seed=1)
    assert other.fields["title"] != small.fields["title"]
    assert (pixels(other) != pixels(small)).mean() > 0.9


def test_no_two_images_are_alike(small: Dataset) -> None:
    assert len({image.tobytes() for image in pixels(small)}) == 120


def test_classes_differ() -> None:
    looks = draw_looks(2000, seed=0)
    assert len({look.key for look in looks}) == 2000
    assert {look.family for look in looks} == set(FAMILIES)
    assert {look.pattern for look in looks} == set(PATTERNS)
    assert {look.motif for look in looks} == set(MOTIFS)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_drawn(family: str) -> None:
    look = next(look for look in draw_looks(300, seed=0) if look.family == family)
    views = render_views(look, (48, 48), 3, (0, 0))
    assert views.dtype == np.uint8
    assert all(view.std() > 10 for view in views)


def test_rendering_waits_for_the_first_image(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(look: object, size: tuple[int, int], views: int, name: tuple[int, int]) -> np.ndarray:
        drawn.append(name)
        return np.zeros([views, size[1], size[0], 3], np.uint8)

    monkeypatch.setattr("tfdml.datasets.catalogue.render.render_views", draw)
    train, test = rendered_catalogue(classes=6, views=2).split_by_class(0.5)
    assert drawn == []
    train.load(0)
    test.load(0)
    test.image_bytes(1)
    assert sorted(drawn) == [(0, number) for number in range(6)]


def test_other_shapes() -> None:
    assert pixels(rendered_catalogue(classes=2, views=2, image_size=(24, 40))).shape == (4, 24, 40, 3)


def test_raw_pixels_do_badly(small: Dataset) -> None:
    """The floor that makes the catalogue worth training on; chance is 3 of 119."""
    images = pixels(small).astype(np.float64)
    assert recall_at_1(images, small.labels) < 0.2
    assert recall_at_1(images - images.mean(axis=0), small.labels) < 0.2
    thumbnails = images.reshape(120, 8, 4, 8, 4, 3).mean(axis=(2, 4))
    assert recall_at_1(thumbnails - thumbnails.mean(axis=0), small.labels) < 0.2


def test_random_choices_never_change() -> None:
    draws = Draws(3, 1, 4)
    assert [round(draws.unit(), 6) for _ in range(3)] == UNITS
    assert Draws(0).raw_bytes(5).hex() == RAW
    assert draw_looks(1, seed=0)[0].title == TITLE


def test_pictures_change_little_with_pillow(small: Dataset) -> None:
    """Drawn once and written down: the mean colours of the first images. Exact pixels may differ between Pillow releases."""
    means = pixels(small)[:4].mean(axis=(1, 2)).round().astype(int)
    assert abs(means - np.array(MEANS)).max() <= 3


def test_image_bytes_are_png(small: Dataset) -> None:
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(small.image_bytes(7)))), pixels(small)[7])


@pytest.mark.parametrize(
    "options",
    [{"classes": 0}, {"views": 0}, {"classes": 2.0}, {"views": True}, {"seed": -1}, {"image_size": 0}, {"image_size": (64, 7)}],
)
def test_bad_arguments(options: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options)).removeprefix('image_')}="):
        rendered_catalogue(**options)
