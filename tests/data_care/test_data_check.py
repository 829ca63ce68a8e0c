"""Planted faults are found: duplicates, leaks, flipped labels, bad files; and what is in order is not reported."""

from __future__ import annotations

import json
import os

import numpy as np
import planted_faults
import pytest
from PIL import Image

import tfdml
from tfdml import data_care
from tfdml.data_care.near_duplicates import SIDE


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Rendered products with 12 near-duplicates, 8 leaks, 5% of the labels wrong and a few bad files."""
    folder = tmp_path_factory.mktemp("planted")
    data = tfdml.datasets.rendered_catalogue(classes=20, views=10, image_size=64)
    return folder, planted_faults.plant(data, folder, copies=12, leaked=8, bad=1)


@pytest.fixture(scope="module")
def report(planted):
    sides = {side: tfdml.datasets.image_folder(planted[0] / side, on_unreadable="skip") for side in ("train", "test")}

    def embed(dataset):
        """As a model would: images of one product near each other, whatever their label says."""
        numbers = [int(item.rsplit("/", 1)[-1][:5]) if item.rsplit("/", 1)[-1][0].isdigit() else 0 for item in dataset.ids]
        truth = planted[1].truth[numbers]
        return np.eye(20)[truth] + 0.3 * np.random.default_rng(0).normal(size=(len(dataset), 20))

    return data_care.check(sides, few=4, embed=embed)


@pytest.mark.filterwarnings("ignore:.*left out.*")
def test_copies_and_leaks_are_found(planted, report) -> None:
    assert planted_faults.found_share(report, planted[1].copies) >= 0.9
    assert planted_faults.found_share(report, planted[1].leaked) >= 0.9
    assert len(report.leaks) >= 0.9 * len(planted[1].leaked)
    exact = [pair for pair in planted[1].leaked if pair[2] == "none"]
    same = [{report.ids[number] for number in group.items} for group in report.duplicates if group.kind == "same file"]
    assert all({original, copy} in same for original, copy, _ in exact)


def test_flipped_labels_come_first(planted, report) -> None:
    precision, auc = planted_faults.ranking(report, planted[1].flipped)
    assert auc > 0.95
    assert precision >= 0.7


def test_bad_files_are_named(planted, report) -> None:
    assert [file for file, _ in report.unreadable] == planted[1].unreadable
    assert [report.ids[number] for number in report.blank] == planted[1].blank
    assert [report.ids[number] for number in report.tiny] == planted[1].tiny
    assert not report.in_order


def test_the_summary_and_the_json_say_the_same(report) -> None:
    text, record = str(report), json.loads(json.dumps(report.as_dict()))
    assert f"{len(report.leaks)} pictures are on more than one side" in text
    assert len([group for group in record["duplicates"] if group["leak"]]) == len(report.leaks)
    assert record["images"] == len(report) == sum(record["classes"].values()) == sum(record["sides"].values())
    assert [doubt["id"] for doubt in record["doubtful_labels"]] == [report.ids[number] for number in report.doubtful()]


def test_the_report_shows_them(planted, report, tmp_path) -> None:
    page = tfdml.report.write_data(report, tmp_path / "check.html", "Planted").read_text(encoding="utf-8")
    for text in ("On both sides of the split", "Labels to look at", "Files that cannot be used", planted[1].unreadable[0]):
        assert text in page
    assert 'src="http' not in page


def test_random_pictures_are_in_order() -> None:
    images = np.random.default_rng(0).integers(0, 255, (12, 40, 40, 3), dtype=np.uint8)
    report = data_care.check(tfdml.datasets.Dataset.from_arrays(images, np.arange(12) % 3))
    assert report.in_order
    assert report.duplicates == ()
    assert report.sides is None
    assert "leaks" not in str(report)


def test_one_picture_in_two_classes_and_in_two_formats(tmp_path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    other = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    for name, label, kept in (
        ("a.png", "mug", image),
        ("b.bmp", "shoe", image),
        ("c.png", "shoe", other),
        ("d.png", "mug", other),
    ):
        (tmp_path / label).mkdir(exist_ok=True)
        kept.save(tmp_path / label / name)
    data = tfdml.datasets.image_folder(tmp_path)
    first, second = data_care.check(data.with_fields(side=["train", "test", "train", "test"]), "side").duplicates
    assert {first.kind, second.kind} == {"same pixels", "same file"}
    assert first.labels == second.labels == ("mug", "shoe")
    assert data_care.check(data, near=False).across_classes


def test_an_embedding_decides_about_labels() -> None:
    images = np.random.default_rng(0).integers(0, 255, (12, 40, 40, 3), dtype=np.uint8)
    truth = np.arange(12) % 2
    labels = truth.copy()
    labels[3] = 0
    data = tfdml.datasets.Dataset.from_arrays(images, labels)
    report = data_care.check(data, embed=lambda dataset: np.eye(2)[truth] + 0.01)
    assert report.doubtful() == [3]
    assert "embedding" in report.doubted_by


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": {}}, "received no dataset"),
        ({"split": "nothing"}, "split='nothing'"),
        ({"similarity": 0.0}, "similarity=0.0"),
        ({"few": -1}, "few=-1"),
    ],
)
def test_bad_arguments(arguments, message) -> None:
    images = np.random.default_rng(0).integers(0, 255, (4, 40, 40, 3), dtype=np.uint8)
    given = {"data": tfdml.datasets.Dataset.from_arrays(images, [0, 0, 1, 1]), **arguments}
    with pytest.raises(ValueError, match=message):
        data_care.check(**given)


def test_near_duplicates_of_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        data_care.near_duplicates(np.zeros((2, 9, 9), np.uint8))
    assert data_care.near_duplicates(np.zeros((3, SIDE, SIDE), np.uint8)) == []


@pytest.mark.slow
@pytest.mark.one_stack
@pytest.mark.filterwarnings("ignore:.*left out.*")
def test_planted_faults_among_photographs(tmp_path) -> None:
    """5% flipped labels, 50 near-duplicates and 20 leaks among photographs of half of the groceries, or rendered products."""
    if os.environ.get("TFDML_DATA"):
        data, _ = tfdml.datasets.grocery_store().split_by_class(test=0.5, seed=0)
    else:
        data = tfdml.datasets.rendered_catalogue(classes=40, views=30, image_size=96)
    planted = planted_faults.plant(data, tmp_path)
    report = data_care.check({s: tfdml.datasets.image_folder(tmp_path / s, on_unreadable="skip") for s in ("train", "test")})
    assert planted_faults.found_share(report, planted.copies) >= 0.9
    assert planted_faults.found_share(report, planted.leaked) >= 0.9
    if data.name == "grocery_store":  # colours tell photographs of groceries apart, and the rendered products less
        precision, auc = planted_faults.ranking(report, planted.flipped)
        assert auc > 0.85
        assert precision > 0.25
