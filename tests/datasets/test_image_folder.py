from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from image_files import bad_files, encoded, good_files, picture
from PIL import Image

from tfdml.datasets import Dataset, UnreadableImageError, image_folder
from tfdml.preprocessing import ImagePreprocessing


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


PNG = encoded(picture(), "PNG")
TWO_CLASSES = {"mug/a.png": PNG, "mug/b.png": PNG, "shoe/a.png": PNG, "shoe/b.png": PNG}


def whole_epoch(data: Dataset) -> int:
    return sum(len(batch) for batch in data.batches(4).as_numpy_iterator())


class TestLayout:
    def test_class_is_the_folder(self, tmp_path: Path) -> None:
        data = image_folder(write(tmp_path, TWO_CLASSES), image_size=(16, 24))
        assert data.class_names == ("mug", "shoe")
        assert data.labels.tolist() == [0, 0, 1, 1]
        assert data.ids.tolist() == list(TWO_CLASSES)
        assert data.fields == {"path": list(TWO_CLASSES)}
        assert data.load(0).shape == (16, 24, 3)
        assert data.image_bytes(0) == PNG
        assert data.skipped == ()

    def test_nested_folders_belong_to_the_first_level(self, tmp_path: Path) -> None:
        write(tmp_path, {"mug/red/2024/a.png": PNG, "mug/b.png": PNG, "shoe/x/a.png": PNG})
        data = image_folder(tmp_path)
        assert data.class_names == ("mug", "shoe")
        assert data.ids.tolist() == ["mug/b.png", "mug/red/2024/a.png", "shoe/x/a.png"]

    def test_class_from_parent(self, tmp_path: Path) -> None:
        write(tmp_path, {"mug/red/a.png": PNG, "mug/blue/a.png": PNG, "shoe/red/a.png": PNG})
        assert image_folder(tmp_path, class_from="parent").class_names == ("mug/blue", "mug/red", "shoe/red")

    def test_order_does_not_depend_on_the_file_system(self, tmp_path: Path) -> None:
        names = ["b/2.png", "a-1/1.png", "a/z.png", "a/B.png", "a/b.png", "b/10.png"]
        write(tmp_path, dict.fromkeys(names, PNG))
        assert image_folder(tmp_path).ids.tolist() == sorted(names)

    def test_hidden_and_other_files_are_ignored(self, tmp_path: Path) -> None:
        others = {".git/a.png": PNG, "mug/._a.png": b"x", "mug/notes.txt": b"x", "README.md": b"x", "mug/.thumbs/a.png": PNG}
        assert image_folder(write(tmp_path, {**TWO_CLASSES, **others})).ids.tolist() == list(TWO_CLASSES)

    @pytest.mark.parametrize("name", ["mug/c.webp", "mug/c.HEIC", "mug/deep/c.tif"])
    def test_photographs_in_other_formats_are_not_left_out_in_silence(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, TWO_CLASSES | {name: b"x"})
        with pytest.raises(UnreadableImageError, match="convert it to JPEG or PNG") as error:
            image_folder(tmp_path)
        assert name in str(error.value)
        with pytest.warns(UserWarning, match="1 "):
            data = image_folder(tmp_path, on_unreadable="skip")
        assert data.ids.tolist() == list(TWO_CLASSES)
        assert [skipped[0] for skipped in data.skipped] == [name]
        assert image_folder(tmp_path, extensions=(".png",)).ids.tolist() == list(TWO_CLASSES)

    def test_extensions(self, tmp_path: Path) -> None:
        write(tmp_path, {"mug/a.PNG": PNG, "mug/b.img": PNG, "mug/c.jpg": PNG})
        assert image_folder(tmp_path, extensions=["img", ".PNG"]).ids.tolist() == ["mug/a.PNG", "mug/b.img"]

    def test_names_in_any_language(self, tmp_path: Path) -> None:
        data = image_folder(write(tmp_path, {"кружка/ä b.png": PNG, "靴/%20.png": PNG}))
        assert data.class_names == ("кружка", "靴")
        assert whole_epoch(data) == 2

    def test_relative_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, TWO_CLASSES)
        monkeypatch.chdir(tmp_path.parent)
        assert image_folder(tmp_path.name).ids.tolist() == list(TWO_CLASSES)

    def test_links_are_followed_and_loops_end(self, tmp_path: Path) -> None:
        write(tmp_path / "data", TWO_CLASSES)
        write(tmp_path / "elsewhere", {"c.png": PNG})
        (tmp_path / "data" / "hat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "data" / "mug" / "up").symlink_to(tmp_path / "data", target_is_directory=True)
        assert image_folder(tmp_path / "data").ids.tolist() == ["hat/c.png", *TWO_CLASSES]

    def test_unknown_choices(self, tmp_path: Path) -> None:
        write(tmp_path, TWO_CLASSES)
        with pytest.raises(ValueError, match="Known: 'top', 'parent'"):
            image_folder(tmp_path, class_from="grandparent")
        with pytest.raises(ValueError, match="Known: 'error', 'skip'"):
            image_folder(tmp_path, on_unreadable="ignore")
        with pytest.raises(ValueError, match="Known: 'keep', 'drop', 'error'"):
            image_folder(tmp_path, small_classes="repeat")


class TestNothingThere:
    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no such folder"):
            image_folder(tmp_path / "photos")

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "photo.png").write_bytes(PNG)
        with pytest.raises(NotADirectoryError, match="expected a folder with one folder of images for each class"):
            image_folder(tmp_path / "photo.png")

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no images found"):
            image_folder(tmp_path)

    def test_no_images_says_what_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"found only files that end in '.txt', '.webp'"):
            image_folder(write(tmp_path, {"mug/a.webp": b"x", "mug/a.txt": b"x"}))

    def test_images_without_class_folders(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableImageError, match="outside any class folder"):
            image_folder(write(tmp_path, {"a.png": PNG, "b.png": PNG}))

    def test_an_empty_class_folder(self, tmp_path: Path) -> None:
        (write(tmp_path, TWO_CLASSES) / "hat").mkdir()
        with pytest.raises(UnreadableImageError, match="hat/: class folder without images"):
            image_folder(tmp_path)
        with pytest.warns(UserWarning, match="hat/"):
            data = image_folder(tmp_path, on_unreadable="skip")
        assert data.skipped == (("hat/", "class folder without images"),)
        assert data.class_names == ("mug", "shoe")


class TestFiles:
    @pytest.mark.parametrize("name", list(good_files()))
    def test_good_file(self, name: str, tmp_path: Path) -> None:
        write(tmp_path, {f"mug/{name}": good_files()[name]})
        data = image_folder(tmp_path, preprocessing=ImagePreprocessing(size=(30, 40)))
        loaded = data.load(0).numpy().astype(int)
        expected = picture().convert("L").convert("RGB") if "grey" in name or "sixteen" in name else picture()
        if name != "one-bit.png":  # black and white only: nothing to compare with but the levels
            assert abs(loaded - np.asarray(expected).astype(int)).mean() < 12
        else:
            assert set(np.unique(loaded)) == {0, 255}

    @pytest.mark.parametrize("name", list(bad_files()))
    def test_bad_file(self, name: str, tmp_path: Path) -> None:
        data, reason = bad_files()[name]
        write(tmp_path, {**TWO_CLASSES, f"mug/{name}": data})
        with pytest.raises(UnreadableImageError, match=f"1 of 5 files cannot be used:\n  mug/{name}: .*{reason}") as caught:
            image_folder(tmp_path)
        assert [path for path, _ in caught.value.files] == [f"mug/{name}"]
        assert "on_unreadable='skip'" in str(caught.value)

    def test_skip_leaves_an_epoch_that_runs_through(self, tmp_path: Path) -> None:
        bad = {f"mug/{name}": data for name, (data, _) in bad_files().items()}
        write(tmp_path, {**TWO_CLASSES, **bad})
        with pytest.warns(UserWarning, match=f"left out {len(bad)} files"):
            data = image_folder(tmp_path, on_unreadable="skip")
        assert data.ids.tolist() == list(TWO_CLASSES)
        assert sorted(path for path, _ in data.skipped) == sorted(bad)
        assert whole_epoch(data) == 4

    def test_nothing_readable_is_an_error_even_when_skipping(self, tmp_path: Path) -> None:
        write(tmp_path, {"mug/a.png": b"", "shoe/a.png": b""})
        with pytest.raises(UnreadableImageError, match="None is left"):
            image_folder(tmp_path, on_unreadable="skip")

    def test_many_bad_files_make_a_short_message(self, tmp_path: Path) -> None:
        write(tmp_path, {**TWO_CLASSES, **{f"mug/{i:03d}.jpg": b"" for i in range(100)}})
        with pytest.raises(UnreadableImageError, match=r"100 of 104 files .*") as caught:
            image_folder(tmp_path)
        assert "... and 90 more" in str(caught.value)
        assert len(caught.value.files) == 100

    def test_unchecked_files_fail_when_they_are_loaded(self, tmp_path: Path) -> None:
        data = image_folder(write(tmp_path, {**TWO_CLASSES, "mug/c.png": b""}), check=False)
        assert len(data) == 5
        with pytest.raises(Exception, match="not a JPEG, PNG, BMP or GIF"):
            whole_epoch(data)

    def test_huge_images_are_refused_before_they_are_decoded(self, tmp_path: Path) -> None:
        bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")  # 900 million pixels in about 110 kB
        assert len(bomb) < 200_000
        write(tmp_path, {**TWO_CLASSES, "mug/bomb.png": bomb, "mug/large.png": encoded(picture(200, 100), "PNG")})
        with pytest.raises(UnreadableImageError, match=r"1 of 6 .*\n  mug/bomb.png: .*max_pixels"):
            image_folder(tmp_path)
        with pytest.raises(UnreadableImageError, match=r"2 of 6 .*\n.*\n  mug/large.png: 200 x 100 is more than 10,000 pixels"):
            image_folder(tmp_path, max_pixels=10_000)

    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        (write(tmp_path, TWO_CLASSES) / "mug" / "c.png").symlink_to(tmp_path / "nowhere.png")
        with pytest.raises(UnreadableImageError, match=r"mug/c.png: No such file"):
            image_folder(tmp_path)

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux file systems take such names")
    def test_names_that_are_not_utf8(self, tmp_path: Path) -> None:
        write(tmp_path, TWO_CLASSES)
        with open(os.path.join(os.fsencode(tmp_path), b"mug", b"caf\xe9.png"), "wb") as file:
            file.write(PNG)
        with pytest.raises(UnreadableImageError, match=r"mug/caf\\udce9.png: its name is not UTF-8"):
            image_folder(tmp_path)
        with pytest.warns(UserWarning, match="not UTF-8"):
            assert len(image_folder(tmp_path, on_unreadable="skip")) == 4

    def test_extreme_shapes_load(self, tmp_path: Path) -> None:
        write(tmp_path, {"thin/a.png": encoded(picture(1, 500), "PNG"), "dot/a.png": encoded(picture(1, 1), "PNG")})
        for fit in ("crop", "pad", "stretch"):
            assert whole_epoch(image_folder(tmp_path, preprocessing=ImagePreprocessing(size=8, fit=fit))) == 2


class TestSmallClasses:
    FILES: ClassVar = {**TWO_CLASSES, "hat/a.png": PNG}

    def test_kept_by_default(self, tmp_path: Path) -> None:
        assert image_folder(write(tmp_path, self.FILES)).class_names == ("hat", "mug", "shoe")

    def test_drop(self, tmp_path: Path) -> None:
        assert image_folder(write(tmp_path, self.FILES), small_classes="drop").class_names == ("mug", "shoe")

    def test_error(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"min_images=2: 1 of 3 classes .*'hat' \(1\)"):
            image_folder(write(tmp_path, self.FILES), small_classes="error")

    def test_skipped_files_do_not_count(self, tmp_path: Path) -> None:
        write(tmp_path, {**TWO_CLASSES, "hat/a.png": PNG, "hat/b.png": b""})
        with pytest.warns(UserWarning, match="hat/b.png"):
            data = image_folder(tmp_path, on_unreadable="skip", small_classes="drop")
        assert data.class_names == ("mug", "shoe")
        assert [path for path, _ in data.skipped] == ["hat/b.png"]
