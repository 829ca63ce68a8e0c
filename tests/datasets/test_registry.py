from __future__ import annotations

from pathlib import Path

import pytest
from image_files import encoded, picture

import tfdml.datasets
from tfdml.datasets import DownloadError, first_available


def test_by_name() -> None:
    assert len(tfdml.datasets.load("rendered_catalogue", classes=3, views=2)) == 6


def test_by_path(tmp_path: Path) -> None:
    (tmp_path / "mug").mkdir()
    (tmp_path / "mug" / "a.png").write_bytes(encoded(picture(), "PNG"))
    (tmp_path / "list.csv").write_text("path,label\nmug/a.png,cup\n")
    assert tfdml.datasets.load(str(tmp_path), image_size=8).class_names == ("mug",)
    assert tfdml.datasets.load(tmp_path / "list.csv", image_size=8).class_names == ("cup",)


@pytest.mark.parametrize("name", ["groceries", "no/such/folder", "list.tsv", ""])
def test_unknown_name_lists_the_known(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.tsv").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="Known: 'grocery_store', 'mnist', 'omniglot', 'rendered_catalogue'"):
        tfdml.datasets.load(name)


def test_everything_public_is_exported() -> None:
    for name in tfdml.datasets.__all__:
        assert getattr(tfdml.datasets, name).__doc__
    for name in tfdml.datasets.names():
        assert callable(getattr(tfdml.datasets, name))


def test_first_available_goes_on_to_the_next_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDML_DATA", str(tmp_path))
    with pytest.warns(UserWarning, match="grocery_store: TFDML_DATA.*Taking 'rendered_catalogue' instead"):
        data = first_available("grocery_store", "rendered_catalogue", image_size=32)
    assert data.name == "rendered_catalogue"
    with pytest.raises(DownloadError):
        first_available("grocery_store")
