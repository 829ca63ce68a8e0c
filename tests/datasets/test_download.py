from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest
from image_files import encoded, picture
from PIL import Image

from tfdml.datasets import DownloadError, download, grocery_data, grocery_store, mnist, omniglot, omniglot_data


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no TFDML_DATA."""
    monkeypatch.delenv("TFDML_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "datasets" / "tfdml"


def served(folder: Path, name: str, data: bytes) -> str:
    """The URL of a file with these bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return (folder / name).as_uri()


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestFetchFolder:
    CONTENTS: ClassVar = {"repo-1/data/a.txt": b"alpha", "repo-1/data/deep/b.txt": b"beta", "repo-1/README": b"outside"}

    def archive(self, tmp_path: Path, data: bytes | None = None, sha256: str | None = None) -> download.Archive:
        url = served(tmp_path / "host", "thing.zip", zipped(self.CONTENTS) if data is None else data)
        expected = download.digest_of([("a.txt", b"alpha"), ("deep/b.txt", b"beta")])
        return download.Archive(url, "thing.zip", "repo-1/data", sha256 or expected)

    def test_unpacks_the_subfolder_once(self, tmp_path: Path, cache: Path) -> None:
        archive = self.archive(tmp_path)
        folder = download.fetch_folder("thing", archive)
        assert files_in(folder) == ["a.txt", "deep/b.txt"]
        (tmp_path / "host" / "thing.zip").unlink()
        assert download.fetch_folder("thing", archive) == folder
        assert files_in(cache) == ["thing/a.txt", "thing/deep/b.txt"]

    def test_the_digest_is_that_of_sha256sum(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"alpha")
        line = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8  a.txt\n"
        assert download.contents_digest(tmp_path) == hashlib.sha256(line.encode()).hexdigest()

    def test_other_contents_are_refused_and_removed(self, tmp_path: Path, cache: Path) -> None:
        with pytest.raises(DownloadError, match=r"thing: the archive .* is not usable: the contents' SHA-256 is .*try again"):
            download.fetch_folder("thing", self.archive(tmp_path, sha256="0" * 64))
        assert files_in(cache) == []

    @pytest.mark.parametrize("cut", [1, 10, 200])
    def test_a_truncated_archive_is_refused_and_removed(self, tmp_path: Path, cache: Path, cut: int) -> None:
        with pytest.raises(DownloadError, match="is not usable"):
            download.fetch_folder("thing", self.archive(tmp_path, data=zipped(self.CONTENTS)[:cut]))
        assert files_in(cache) == []

    def test_a_flipped_bit_is_refused(self, tmp_path: Path, cache: Path) -> None:
        data = bytearray(zipped(self.CONTENTS))
        data[data.index(b"repo-1/data/a.txt") + len("repo-1/data/a.txt") + 1] ^= 4
        with pytest.raises(DownloadError, match="is not usable"):
            download.fetch_folder("thing", self.archive(tmp_path, data=bytes(data)))
        assert files_in(cache) == []

    def test_after_a_refusal_the_next_try_can_succeed(self, tmp_path: Path, cache: Path) -> None:
        with pytest.raises(DownloadError):
            download.fetch_folder("thing", self.archive(tmp_path, data=b"<html>rate limit</html>"))
        assert files_in(download.fetch_folder("thing", self.archive(tmp_path))) == ["a.txt", "deep/b.txt"]

    @pytest.mark.parametrize("name", ["../evil.txt", "repo-1/data/../../evil.txt", "/evil.txt", "C:/evil.txt", "..\\evil.txt"])
    def test_names_that_lead_out_are_refused(self, tmp_path: Path, cache: Path, name: str) -> None:
        with pytest.raises(DownloadError, match="unsafe name"):
            download.fetch_folder("thing", self.archive(tmp_path, data=zipped({**self.CONTENTS, name: b"evil"})))
        assert not list(tmp_path.rglob("*evil*"))

    def test_links_are_refused(self, tmp_path: Path, cache: Path) -> None:
        buffer = io.BytesIO(zipped(self.CONTENTS))
        with zipfile.ZipFile(buffer, "a") as archive:
            link = zipfile.ZipInfo("repo-1/data/link")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
        with pytest.raises(DownloadError, match="unsafe name: 'repo-1/data/link'"):
            download.fetch_folder("thing", self.archive(tmp_path, data=buffer.getvalue()))

    def test_no_network_says_both_ways_out(self, tmp_path: Path, cache: Path) -> None:
        archive = self.archive(tmp_path)
        (tmp_path / "host" / "thing.zip").unlink()
        with pytest.raises(DownloadError, match=r"connect to the network .* set TFDML_DATA to a folder that holds thing/"):
            download.fetch_folder("thing", archive)


def grocery_files() -> dict[str, bytes]:
    """Two products in the layout of the published archive."""
    columns = ("Class Name (str)", "Class ID (int)", "Coarse Class Name (str)", "Coarse Class ID (int)")
    header = ",".join([*columns, "Iconic Image Path (str)", "Product Description Path (str)"])
    rows = [
        "Oat-Milk,1,Oat-Milk,1,/iconic/Oat-Milk_Iconic.jpg,/x.txt",
        "Pink-Lady,0,Apple,0,/iconic/Pink-Lady_Iconic.jpg,/x.txt",
    ]
    files = {
        "classes.csv": "\n".join([header, *rows]).encode(),
        "train.txt": b"train/Pink-Lady_1.jpg, 0, 0\ntrain/Oat-Milk_1.jpg, 1, 1\n",
        "val.txt": b"val/Pink-Lady_2.jpg, 0, 0\n",
        "test.txt": b"test/Oat-Milk_2.jpg, 1, 1\n",
    }
    for i, name in enumerate(
        [
            "train/Pink-Lady_1",
            "train/Oat-Milk_1",
            "val/Pink-Lady_2",
            "test/Oat-Milk_2",
            "iconic/Oat-Milk_Iconic",
            "iconic/Pink-Lady_Iconic",
        ]
    ):
        files[f"{name}.jpg"] = encoded(picture(seed=i), "JPEG")
    return files


class TestGroceryStore:
    def check(self) -> None:
        data = grocery_store(image_size=16)
        assert data.ids.tolist() == [
            "train/Pink-Lady_1.jpg",
            "train/Oat-Milk_1.jpg",
            "val/Pink-Lady_2.jpg",
            "test/Oat-Milk_2.jpg",
        ]
        assert data.class_names == ("Pink-Lady", "Oat-Milk")
        assert data.labels.tolist() == [0, 1, 0, 1]
        assert data.fields["category"] == ["Apple", "Oat Milk", "Apple", "Oat Milk"]
        assert data.fields["split"] == ["train", "train", "val", "test"]
        assert data.fields["title"] == ["Pink Lady", "Oat Milk", "Pink Lady", "Oat Milk"]
        assert [batch.shape for batch in data.batches(4)] == [(4, 16, 16, 3)]
        iconic = grocery_store(iconic=True).where(split="iconic")
        assert iconic.fields["title"] == ["Pink Lady", "Oat Milk"]
        assert iconic.fields["path"] == ["iconic/Pink-Lady_Iconic.jpg", "iconic/Oat-Milk_Iconic.jpg"]

    def test_from_tfdml_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, data in grocery_files().items():
            (tmp_path / "grocery_store" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "grocery_store" / name).write_bytes(data)
        monkeypatch.setenv("TFDML_DATA", str(tmp_path))
        self.check()
        (tmp_path / "grocery_store" / "val" / "Pink-Lady_2.jpg").unlink()
        with pytest.raises(DownloadError, match=r"1 of 4 images are missing .*'val/Pink-Lady_2.jpg'"):
            grocery_store()

    def test_downloaded(self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = grocery_files()
        real = grocery_data.ARCHIVE
        url = served(tmp_path / "host", "g.zip", zipped({f"{real.subfolder}/{name}": data for name, data in files.items()}))
        archive = download.Archive(url, real.file_name, real.subfolder, download.digest_of(files.items()))
        monkeypatch.setattr(grocery_data, "ARCHIVE", archive)
        self.check()

    def test_the_archive_is_pinned(self) -> None:
        assert grocery_data.COMMIT in grocery_data.ARCHIVE.url
        assert len(grocery_data.ARCHIVE.contents_sha256) == 64

    def test_tfdml_data_without_the_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TFDML_DATA", str(tmp_path))
        with pytest.raises(DownloadError, match=r"TFDML_DATA=.* is not there\. Put the data there, or unset TFDML_DATA"):
            grocery_store()


def omniglot_archives(folder: Path) -> tuple[dict[str, str], np.ndarray]:
    """Two archives in the published layout: their URLs, and the drawings (True = ink) in order."""
    rng = np.random.default_rng(0)
    drawings, urls = [], {}
    for split, alphabets in (("background", ["Greek", "Latin"]), ("evaluation", ["Angelic"])):
        files = {}
        for alphabet in alphabets:
            for character in (1, 2):
                for drawer in (1, 2, 10):
                    ink = rng.random((105, 105)) < 0.3
                    drawings.append(ink)
                    name = f"images_{split}/{alphabet}/character{character:02d}/{len(drawings):04d}_{drawer:02d}.png"
                    files[name] = encoded(Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert("1"), "PNG")
        shuffled = dict(sorted(files.items(), reverse=True))
        urls[f"images_{split}.zip"] = served(folder, f"images_{split}.zip", zipped(shuffled))
    return urls, np.stack(drawings)


class TestOmniglot:
    @pytest.fixture
    def ink(self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
        _, ink = omniglot_archives(tmp_path / "host")
        files = {name: (tmp_path / "host" / name).read_bytes() for name in omniglot_data.ARCHIVES}
        monkeypatch.setattr(omniglot_data, "URL", (tmp_path / "host").as_uri() + "/")
        monkeypatch.setattr(omniglot_data, "ARCHIVES", {name: hashlib.md5(data).hexdigest() for name, data in files.items()})
        packed = np.packbits(ink, axis=2)
        monkeypatch.setattr(omniglot_data, "PIXELS_SHA256", hashlib.sha256(packed.tobytes()).hexdigest())
        return ink

    def test_downloaded(self, ink: np.ndarray, cache: Path) -> None:
        data = omniglot(image_size=105)
        np.testing.assert_array_equal(data.load(7).numpy()[..., 0], ink[7] * 255)
        assert data.class_names == tuple(f"{a}/character0{c}" for a in ("Greek", "Latin", "Angelic") for c in (1, 2))
        assert data.labels.tolist() == [number for number in range(6) for _ in range(3)]
        assert data.ids[2] == "Greek/character01/drawer10"
        assert data.fields["drawer"][:3] == [1, 2, 10]
        assert data.where(split="evaluation").class_names == ("Angelic/character01", "Angelic/character02")
        assert files_in(cache) == [omniglot_data.FILE]
        assert len(omniglot()) == 18  # from the cache

    def test_scaled_with_an_area_average(self, ink: np.ndarray) -> None:
        small = omniglot(image_size=35).load(4).numpy()[..., 0].astype(int)
        exact = (ink[4] * 255.0).reshape(35, 3, 35, 3).mean(axis=(1, 3))
        assert abs(small - exact).max() <= 1

    def test_a_damaged_archive_is_refused(self, ink: np.ndarray, tmp_path: Path, cache: Path) -> None:
        name = next(iter(omniglot_data.ARCHIVES))
        data = (tmp_path / "host" / name).read_bytes()
        (tmp_path / "host" / name).write_bytes(data[:-1] + b"?")
        with pytest.raises(DownloadError, match=r"omniglot: could not be downloaded .* set TFDML_DATA"):
            omniglot()
        assert files_in(cache) == []

    def test_a_damaged_file_is_refused(self, ink: np.ndarray, tmp_path: Path, cache: Path) -> None:
        omniglot()
        file = cache / omniglot_data.FILE
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        with pytest.raises(DownloadError, match="cannot be read"):
            omniglot()
        with np.load(io.BytesIO(data)) as arrays:
            changed = {name: arrays[name].copy() for name in arrays.files}
        changed["images_packed"][0, 0, 0] ^= 1
        np.savez_compressed(file, **changed)
        with pytest.raises(DownloadError, match="have SHA-256"):
            omniglot()

    @pytest.mark.parametrize("size", [0, -1, 106, 28.0, (28, 28)])
    def test_bad_size(self, size: object) -> None:
        with pytest.raises(ValueError, match="image_size="):
            omniglot(image_size=size)  # type: ignore[arg-type]


class TestMnist:
    ARRAYS: ClassVar = {
        "x_train": np.arange(3 * 784, dtype=np.uint16).reshape(3, 28, 28).astype(np.uint8),
        "y_train": np.array([7, 2, 7], np.uint8),
        "x_test": np.zeros([2, 28, 28], np.uint8),
        "y_test": np.array([0, 2], np.uint8),
    }

    def test_from_tfdml_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mnist").mkdir()
        np.savez(tmp_path / "mnist" / "mnist.npz", **self.ARRAYS)
        monkeypatch.setenv("TFDML_DATA", str(tmp_path))
        data = mnist()
        assert data.class_names == ("0", "2", "7")
        assert data.ids.tolist() == ["train/00000", "train/00001", "train/00002", "test/00000", "test/00001"]
        assert data.where(split="test").class_names == ("0", "2")
        np.testing.assert_array_equal(data.load(1)[..., 0], self.ARRAYS["x_train"][1])
        (tmp_path / "mnist" / "mnist.npz").write_bytes(b"PK\x03\x04 not really")
        with pytest.raises(DownloadError, match="cannot be read"):
            mnist()

    def test_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TFDML_DATA", raising=False)
        parts = tuple((self.ARRAYS[f"x_{split}"], self.ARRAYS[f"y_{split}"]) for split in ("train", "test"))
        monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: parts)
        assert mnist().labels.tolist() == [2, 1, 2, 0, 1]

    def test_no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise Exception("URL fetch failure")

        monkeypatch.delenv("TFDML_DATA", raising=False)
        monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
        with pytest.raises(DownloadError, match=r"connect to the network .* mnist/mnist\.npz"):
            mnist()
