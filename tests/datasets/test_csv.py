from __future__ import annotations

from pathlib import Path

import pytest
from image_files import encoded, picture

from tfdml.datasets import Dataset, UnreadableImageError, csv

PNG = encoded(picture(), "PNG")


def listing(folder: Path, text: str | bytes, images: tuple[str, ...] = ("a.png", "b.png", "c.png", "d, e.png")) -> Path:
    for name in images:
        (folder / name).write_bytes(PNG)
    path = folder / "products.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def read(folder: Path, text: str | bytes, **options: object) -> Dataset:
    return csv(listing(folder, text), **options)  # type: ignore[arg-type]


def test_columns(tmp_path: Path) -> None:
    text = (
        "path,label,id,category,split,price\n"
        "a.png,mug,m1,kitchen,train,9.50\n"
        "b.png,mug,m2,kitchen,test,007\n"
        "c.png,shoe,s1,wear,test,\n"
    )
    data = read(tmp_path, text, image_size=16)
    assert data.class_names == ("mug", "shoe")
    assert data.labels.tolist() == [0, 0, 1]
    assert data.ids.tolist() == ["m1", "m2", "s1"]
    assert data.fields == {
        "path": ["a.png", "b.png", "c.png"],
        "category": ["kitchen", "kitchen", "wear"],
        "split": ["train", "test", "test"],
        "price": ["9.50", "007", ""],
    }
    assert data.load(2).shape == (16, 16, 3)
    assert data.where(split="test").ids.tolist() == ["m2", "s1"]


def test_the_path_is_the_id_by_default(tmp_path: Path) -> None:
    assert read(tmp_path, "label,path\nmug,a.png\nmug,b.png\n").ids.tolist() == ["a.png", "b.png"]


FLAVOUR = 'path,label\na.png,"a ""big"" mug, red"\n"d, e.png",cup\n'


@pytest.mark.parametrize(
    "text",
    [
        FLAVOUR,
        "\ufeff" + FLAVOUR,
        FLAVOUR.replace("\n", "\r\n"),
        FLAVOUR.replace("\n", "\n\n").rstrip(),
        FLAVOUR.replace("path,label", " path , label ").replace("cup", " cup "),
    ],
    ids=["plain", "byte-order-mark", "crlf", "blank-lines", "spaces"],
)
def test_flavours_of_csv(tmp_path: Path, text: str) -> None:
    data = read(tmp_path, text)
    assert data.ids.tolist() == ["a.png", "d, e.png"]
    assert data.class_names == ('a "big" mug, red', "cup")
    assert data.labels.tolist() == [0, 1]


def test_another_delimiter(tmp_path: Path) -> None:
    assert read(tmp_path, "path;label\na.png;mug\n", delimiter=";").class_names == ("mug",)
    with pytest.raises(ValueError, match=r"no column 'path'.*delimiter"):
        read(tmp_path, "path;label\na.png;mug\n")


def test_labels_are_text(tmp_path: Path) -> None:
    assert read(tmp_path, "path,label\na.png,10\nb.png,9\nc.png,-1\n").class_names == ("-1", "10", "9")


def test_image_root_and_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.png").write_bytes(PNG)
    path = listing(tmp_path, f"path,label\nx.png,mug\n{tmp_path / 'a.png'},mug\n")
    assert csv(path, image_root=tmp_path / "photos").load(1).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("path,name\na.png,mug\n", r"line 1: no column 'label' among \['path', 'name'\]"),
        ("path,label\n", "no rows below"),
        ("path,label\n\n\n", "no rows below"),
        ("path,label,path\na.png,mug,b.png\n", "line 1: every column needs a name of its own"),
        ("path,label,\na.png,mug,x\n", "line 1: every column needs a name of its own"),
        ("path,label\na.png,mug\nb.png\n", "line 3: 1 cells, but the first row names 2 columns"),
        ("path,label\na.png,mug\n\nb.png,mug,red\n", "line 4: 3 cells"),
        ("path,label\na.png,mug\n,\n", "line 3: the column 'path' is empty"),
        ("path,label\na.png,\n", "line 2: the column 'label' is empty"),
        ("path,label,id\na.png,mug, \n", "line 2: the column 'id' is empty"),
        ("path,label\na.png,mug\nb.png,mug\na.png,mug\n", r"line 4: path 'a.png' is on line 2 too.*Add a column 'id'"),
        ("path,label,id\na.png,mug,1\nb.png,mug,1\n", "line 3: id '1' is on line 2 too"),
        ('path,label\n"a.png,mug\n', "line 2: unexpected end of data"),
        ('path,label,note\na.png,mug,"two\nlines"\nb.png,\n', "line 4: 2 cells"),
        ("path,label\na.png,caf\u00e9\n".encode("latin-1"), "not UTF-8"),
        (b"path,label\na\x00.png,mug\n", "line 2"),
    ],
)
def test_mistakes_name_the_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert "products.csv" in str(caught.value)


def test_one_image_for_two_items(tmp_path: Path) -> None:
    assert read(tmp_path, "path,label,id\na.png,mug,1\na.png,cup,2\n").ids.tolist() == ["1", "2"]


def test_missing_and_broken_images(tmp_path: Path) -> None:
    path = listing(tmp_path, "path,label\na.png,mug\ngone.png,mug\nb.png,mug\nbad.png,shoe\n")
    (tmp_path / "bad.png").write_bytes(PNG[:40])
    with pytest.raises(UnreadableImageError, match=r"2 of 4 .*\n  products.csv, line 3: gone.png: No such file"):
        csv(path)
    with pytest.warns(UserWarning, match="products.csv, line 5: bad.png: cannot be decoded"):
        data = csv(path, on_unreadable="skip")
    assert data.ids.tolist() == ["a.png", "b.png"]
    assert len(data.skipped) == 2


def test_min_images(tmp_path: Path) -> None:
    text = "path,label\na.png,mug\nb.png,mug\nc.png,shoe\n"
    assert read(tmp_path, text, small_classes="drop").class_names == ("mug",)
    with pytest.raises(ValueError, match=r"'shoe' \(1\)"):
        read(tmp_path, text, small_classes="error")


def test_no_such_file_or_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        csv(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="image_root"):
        csv(listing(tmp_path, "path,label\na.png,mug\n"), image_root=tmp_path / "none")


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["12", "-3", "0"], [12, -3, 0]),
        (["12", "", "0.5"], [12.0, None, 0.5]),
        (["007", "12", "13"], ["007", "12", "13"]),
        (["1e5", "2", "3"], ["1e5", "2", "3"]),
        (["nan", "2", "3"], ["nan", "2", "3"]),
        (["12345678901234567890", "1", "2"], ["12345678901234567890", "1", "2"]),
        (["", "", ""], ["", "", ""]),
    ],
)
def test_columns_of_numbers_become_numbers_and_codes_stay_text(tmp_path: Path, cells: list[str], values: list[object]) -> None:
    lines = [f"{name},mug,{cell}" for name, cell in zip(("a.png", "b.png", "c.png"), cells, strict=True)]
    column = read(tmp_path, "path,label,amount\n" + "\n".join(lines)).fields["amount"]
    assert column == values
    assert [type(value) for value in column] == [type(value) for value in values]
