"""The report of an embedding: its numbers by plain loops, its parts, and what cannot be reported."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest
from bundle_helpers import pack_fake_model
from report_subjects import subject

import tfdml
from tfdml.report import Subject, find, write


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = write(subject(), tmp_path_factory.mktemp("report") / "sub" / "report.html", map_method="pca")
    return path.read_text(encoding="utf-8")


def test_the_numbers_by_plain_loops() -> None:
    given = subject()
    found = find(given)
    x, labels = given.embeddings.astype(float), given.labels
    distances = 1 - x @ x.T
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1)
    ranks = [next((k for k, j in enumerate(order[i]) if labels[j] == labels[i]), 10**9) for i in range(len(x))]
    counted = [i for i in range(len(x)) if (labels == labels[i]).sum() > 1]
    depth = len(found.cmc)
    assert found.cmc == pytest.approx([np.mean([ranks[i] <= k for i in counted]) for k in range(depth)])
    chance = [np.mean([missed(len(x) - 1, (labels == labels[i]).sum() - 1, k + 1) for i in counted]) for k in range(depth)]
    assert found.cmc_by_chance == pytest.approx([1 - value for value in chance])
    same = labels[:, None] == labels
    upper = np.triu(np.ones_like(same), 1)
    assert np.sort(found.positives) == pytest.approx(np.sort(distances[same & upper]), abs=1e-6)
    assert np.sort(found.negatives) == pytest.approx(np.sort(distances[~same & upper]), abs=1e-6)
    for row in found.classes:
        mine = [i for i in counted if labels[i] == row.label]
        assert row.images == (labels == row.label).sum()
        assert row.recall_at_1 == pytest.approx(np.mean([ranks[i] == 0 for i in mine])) if mine else np.isnan(row.recall_at_1)


def missed(others: int, answers: int, k: int) -> float:
    """The chance that none of k items drawn from `others` is one of the answers."""
    return float(np.prod([(others - answers - j) / (others - j) for j in range(k)]))


def test_it_shows_the_figures_floors_and_remarks(page) -> None:
    text = html.unescape(page)
    figures = find(subject()).retrieval
    for expected in (f"{figures.recall_at[1]:.1%}", f"{figures.map_at_r:.1%}", "raw pixels", "12.0%", "A remark.", "a fact"):
        assert expected in text
    assert "1 images are the only one of their class" in text


def test_every_part_is_there_and_every_link_in_it_leads_somewhere(page) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "an id occurs twice"
    for name in ("figures", "answers", "curves", "map", "confusions", "labels", "duplicates", "classes", "training", "about"):
        assert name in ids
    for link in re.findall(r'href="#([^"]+)"', page):
        assert link in ids
    assert {"right", "wrong"} <= set(re.findall(r'<figure class="(\w+)">', page))
    # Right and wrong are told by a mark and a word too, not by a colour alone.
    assert page.count(">✓<span") + page.count(">✗<span") == (5 + 3 + 3) * 8


def test_it_loads_nothing(page) -> None:
    assert "default-src 'none'" in page
    for source in re.findall(r'(?:src|href)="([^"]+)"', page) + re.findall(r"url\(([^)]+)\)", page):
        assert source.startswith(("data:", "#")) or source == "${data.sprite}", source[:60]


def test_names_from_data_are_escaped(page) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_planted_label_error_comes_first(tmp_path) -> None:
    given = subject()
    labels = given.labels.copy()
    labels[7] = (labels[7] + 1) % 3
    doubts = find(Subject(given.embeddings, labels, given.class_names, given.ids, given.image_bytes)).doubts
    assert doubts.worst(1).tolist() == [7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0]}, "labels: expected 25 class numbers"),
        ({"labels": [9] * 25}, "labels: from 9 to 9, but there are 4 class_names"),
        ({"embeddings": np.full((25, 4), np.nan)}, "NaN"),
        ({"ids": ["a"] * 25}, "ids"),
        ({"metric": "manhattan"}, "metric='manhattan'"),
    ],
)
def test_bad_input(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        subject(**changes)


def test_one_class_is_refused_and_so_is_an_unknown_map(tmp_path) -> None:
    with pytest.raises(ValueError, match="of one class"):
        write(subject(labels=np.zeros(25, int)), tmp_path / "report.html")
    with pytest.raises(ValueError, match="map_method='som'"):
        write(subject(), tmp_path / "report.html", map_method="som")


def test_a_subject_of_a_dataset_takes_its_pictures() -> None:
    data = tfdml.datasets.rendered_catalogue(classes=3, views=3)
    made = Subject.of_embeddings(np.eye(9), data, title="Nine")
    assert made.image_bytes(4) == data.image_bytes(4)
    assert made.title == "Nine"
    assert len(made) == 9


def test_items_of_a_bundle_without_a_label_are_left_out(tmp_path) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 4))
    pictures = [bytes([number]) for number in range(5)]
    pack_fake_model(tmp_path, vectors, fields={"label": ["b", None, "a", "b", None]}, thumbnails=pictures)
    found = Subject.of_bundle(tmp_path)
    assert list(found.ids) == ["item/0", "item/2", "item/3"]
    assert [found.class_names[label] for label in found.labels] == ["b", "a", "b"]
    np.testing.assert_allclose(found.embeddings, vectors[[0, 2, 3]], rtol=1e-6)
    assert [found.image_bytes(number) for number in range(3)] == [pictures[0], pictures[2], pictures[3]]
    assert list(found.remarks) == ["2 of 5 items have no label and are left out."]
