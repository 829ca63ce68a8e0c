"""The command line, in one process: a small shop is trained, judged, published, searched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from bundle_helpers import pack_fake_model
from PIL import Image
from typer.testing import CliRunner

import tfdml
from tfdml.cli import app, main
from tfdml.cli.data import embed_by

SIZE = 32


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A folder of drawn products, one folder for each."""
    folder = tmp_path_factory.mktemp("shop")
    data = tfdml.datasets.rendered_catalogue(classes=8, views=5, image_size=SIZE)
    for number, item in enumerate(data.ids):
        path = folder / f"{item}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data.image_bytes(number))
    return folder


@pytest.fixture(scope="module")
def run(shop, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    options = ["--image-size", str(SIZE), "--steps", "4", "--classes", "4", "--examples", "3", "--test", "0.5"]
    result = call("train", shop, "--out", folder, *options)
    assert "4 classes kept out" in result
    assert "raw pixels" in result
    assert "untrained network" in result
    return folder


@pytest.fixture(scope="module")
def bundle(shop, run, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("exports") / "products"
    output = call("export", run, shop, "--to", to, "--search-field", "label", "--max-k", 20)
    assert "40, with label" in output
    assert "also in the model: exact, up to 20 neighbours, with label; finds 100.0% of the 10 true neighbours" in output
    return to


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_train_keeps_what_is_known_of_the_run(run):
    record = json.loads((run / "run.json").read_text())
    assert len(record["unseen_classes"]) == 4
    assert set(record["figures"]) == {"raw pixels", "untrained network", "trained"}


def test_evaluate_takes_the_unseen_classes_unless_asked_for_all(shop, run, tmp_path):
    figures = tmp_path / "figures.json"
    assert "20 images of 4 unseen classes" in call("evaluate", run, shop, "--json", figures)
    trained = json.loads((run / "run.json").read_text())["figures"]["trained"]
    assert json.loads(figures.read_text()) == pytest.approx(trained)
    assert "40 images of 8 all classes" in call("evaluate", run / "model.keras", shop)


def test_verify_says_what_it_checked(bundle):
    output = call("verify", bundle, "--deep")
    assert "SHA-256" in output
    assert "in order" in output


def test_search_finds_an_item_of_the_gallery_first(shop, bundle, tmp_path):
    images = sorted(shop.glob("*/*.png"))[:2]
    answers = json.loads(call("search", bundle, *images, "-k", "3", "--json"))
    for image in images:
        first = answers[str(image)][0]
        assert first["id"] == image.relative_to(shop).as_posix()
        assert first["distance"] == pytest.approx(0, abs=1e-4)
        assert first["fields"]["label"] == image.parent.name
    picture = tmp_path / "answers" / "answer.png"
    output = call("search", bundle, images[0], "-k", "3", "--picture", picture, "--label", images[0].parent.name)
    assert images[0].parent.name in output
    assert Image.open(picture).size[0] > 500


def test_the_model_alone_finds_what_the_index_finds_or_nearer(shop, bundle):
    images = sorted(shop.glob("*/*.png"))[:3]
    answers = [json.loads(call("search", bundle, *images, "-k", 3, "--json", "--engine", each)) for each in ("index", "graph")]
    for image in map(str, images):
        by_index, by_graph = (found[image] for found in answers)
        assert by_graph[0]["id"] == by_index[0]["id"] == Path(image).relative_to(shop).as_posix()
        assert by_graph[0]["fields"] == by_index[0]["fields"]
        for exact, approximate in zip(by_graph, by_index, strict=True):
            assert exact["distance"] <= approximate["distance"] + 1e-5
    with pytest.raises(ValueError, match="Known: 'index', 'graph'"):
        call("search", bundle, images[0], "--engine", "annoy")
    with pytest.raises(ValueError, match="expected 1 to 20, the max_k"):
        call("search", bundle, images[0], "-k", 21, "--engine", "graph")


def test_inspect_describes_the_bundle(bundle):
    output = call("inspect", bundle)
    for text in ["40, with label", f"{SIZE} x {SIZE} x 3 to 64 dimensions", "serving_default", "annoy", "First items"]:
        assert text in output


def test_a_file_that_is_no_image_and_too_many_neighbours_are_refused(bundle, tmp_path):
    text = tmp_path / "photo.jpg"
    text.write_text("not an image")
    with pytest.raises(ValueError, match=r"photo.jpg.*Expected whole JPEG"):
        call("search", bundle, text)
    with pytest.raises(ValueError, match="the bundle has 40 items"):
        call("search", bundle, text, "-k", "41")


def test_a_damaged_bundle_is_refused(bundle, tmp_path, monkeypatch, capsys):
    import shutil

    copy = tmp_path / "products"
    shutil.copytree(bundle, copy)
    index = copy / "1" / "assets.extra" / "retrieval" / "index.ann"
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.write_bytes(data)
    monkeypatch.setattr(sys, "argv", ["tfdml", "verify", str(copy)])
    with pytest.raises(SystemExit):
        main()
    assert "index.ann" in capsys.readouterr().err


@pytest.mark.one_stack
def test_skipped_files_are_told_and_kept_in_the_record(shop, tmp_path):
    import shutil

    photos = tmp_path / "photos"
    shutil.copytree(shop, photos)
    bad = next(photos.glob("*/*.png"))
    bad.write_bytes(b"")
    options = ["--image-size", SIZE, "--steps", 2, "--classes", 2, "--examples", 2, "--test", 0]
    with pytest.raises(ValueError, match="--on-unreadable skip"):
        call("train", photos, "--out", tmp_path / "run", *options)
    output = call("train", photos, "--out", tmp_path / "run", "--on-unreadable", "skip", *options)
    name = bad.relative_to(photos).as_posix()
    assert "skipped" in output
    assert name in output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["skipped"][0][0].endswith(name)


def test_too_few_classes_to_judge_on_are_refused(shop, tmp_path):
    with pytest.raises(ValueError, match="--test 0 to train on all"):
        call("train", shop, "--out", tmp_path, "--image-size", SIZE, "--test", 0.1)
    with pytest.raises(ValueError, match="steps=0"):
        call("train", shop, "--out", tmp_path, "--image-size", SIZE, "--steps", 0)


def test_shards_and_an_index_of_shards_that_are_there(shop, tmp_path):
    written, found = tmp_path / "written", tmp_path / "found"
    counted = "40 images of 8 classes in"
    assert counted in call("data", "shard", shop, "--out", written, "--items-per-shard", 30, "--workers", 1)
    found.mkdir()
    for file in written.glob("*.tfrecord"):
        shutil.copy(file, found)
    assert counted in call("data", "index", found, "--workers", 1)
    shards, files = (tfdml.datasets.load(str(folder)) for folder in (found, shop))
    assert list(shards.ids) == list(files.ids)
    assert [shards.class_names[label] for label in shards.labels] == [files.class_names[label] for label in files.labels]
    assert shards.image_bytes(39) == files.image_bytes(39)


@pytest.mark.slow
@pytest.mark.one_stack
def test_each_command_works_in_a_process_of_its_own(shop, tmp_path):
    """Nothing is imported yet that another command imported: Keras finds only classes that are registered."""

    def run(*arguments: object) -> str:
        command = [sys.executable, "-m", "tfdml.cli", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    image = next(shop.glob("*/*.png"))
    picture = tmp_path / "[/odd] name.png"
    run("train", shop, "--out", tmp_path / "run", "--image-size", SIZE, "--steps", 2, "--classes", 2, "--test", 0.25)
    run("export", tmp_path / "run", shop, "--to", tmp_path / "products")
    assert "[/odd] name.png" in run("search", tmp_path / "products", image, "--picture", picture).replace("\n", "")
    assert picture.is_file()


@pytest.mark.slow
@pytest.mark.one_stack
def test_demo_on_the_rendered_catalogue(tmp_path, monkeypatch):
    few = tfdml.datasets.rendered_catalogue(classes=40, views=6)
    monkeypatch.setattr(tfdml.datasets, "load", {"rendered_catalogue": few}.__getitem__)
    output = call("demo", "--out", tmp_path, "--data", "rendered_catalogue", "--steps", "5")
    assert "Done in" in output
    assert Image.open(tmp_path / "answers.png").size[1] > 800
    tfdml.bundle.verify(tmp_path / "products")


@pytest.mark.one_stack
def test_report_of_a_run_and_of_a_bundle(shop, run, bundle, tmp_path):
    output = call("report", run, "--out", tmp_path / "run.html", "--map", "none", "--no-duplicates")
    assert "run.html" in output
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    for text in ("20 images of 4 classes that were never trained on", "raw pixels", "untrained network", 'id="training"'):
        assert text in page
    call("report", bundle, "--out", tmp_path / "bundle.html", "--map", "none", "--no-duplicates", "--title", "Our <shop>")
    assert "Our &lt;shop&gt;" in (tmp_path / "bundle.html").read_text(encoding="utf-8")
    call("report", bundle, shop, "--out", tmp_path / "other.html", "--map", "none", "--no-duplicates")
    with pytest.raises(ValueError, match="Known: 'auto', 'tsne'"):
        call("report", bundle, "--map", "som")


def test_data_check_tells_reports_and_ends_with_1_under_strict(shop, bundle, tmp_path):
    import shutil

    photos = tmp_path / "photos"
    shutil.copytree(shop, photos / "train")
    first, second = sorted((photos / "train").iterdir())[:2]
    (photos / "test" / first.name).mkdir(parents=True)
    (photos / "test" / second.name).mkdir()
    shutil.copy(next(first.iterdir()), photos / "test" / first.name / "leak.png")
    shutil.copy(next(first.iterdir()), photos / "test" / second.name / "wrong.png")
    (photos / "test" / second.name / "bad.png").write_bytes(b"")
    record = json.loads(call("data", "check", photos, "--split", "train,test", "--json"))
    (leak,) = [group for group in record["duplicates"] if group["leak"]]
    assert leak["across_classes"]
    assert record["unreadable"] == [{"file": f"test/{second.name}/bad.png", "reason": "the file is empty"}]
    options = ["--split", "train,test", "--model", bundle, "--report", tmp_path / "check.html", "--strict"]
    output = call("data", "check", photos, *options, code=1)
    assert "1 pictures are on more than one side of the split" in output
    assert "by the neighbours in the model's embedding" in output
    assert "Data check" in (tmp_path / "check.html").read_text(encoding="utf-8")
    call("data", "check", shop, "--strict", "--no-near")
    with pytest.raises(ValueError, match="has no folder 'val'"):
        call("data", "check", photos, "--split", "train,val")
    with pytest.raises(ValueError, match=r"expected a field of the data \(path\)"):
        call("data", "check", shop, "--split", "side")


@pytest.mark.one_stack
def test_a_bundles_model_is_judged_in_the_bundles_metric(tmp_path, monkeypatch):
    class Embedder:
        def __init__(self, path):
            self.manifest = SimpleNamespace(metric="euclidean")

    monkeypatch.setattr("tfdml.bundle.Embedder", Embedder)
    assert embed_by(tmp_path)[1] == "euclidean"


@pytest.fixture(scope="module")
def calibrated(shop, run, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("calibrated") / "products"
    output = call("export", run, shop, "--to", to, "--fir", 0.5, "--search", "none")
    assert "false identification rate 0.5: up to" in output
    assert "20 queries of 4 classes" in output
    assert "threshold   match: up to" in output
    return to


@pytest.mark.one_stack
def test_search_says_that_there_is_no_match(shop, calibrated):
    image = sorted(shop.glob("*/*.png"))[0]
    answers = json.loads(call("search", calibrated, image, "-k", 40, "--json"))[str(image)]
    with tfdml.bundle.Bundle.open(calibrated) as opened:
        threshold = opened.threshold("match")
    assert threshold.low <= threshold.distance <= threshold.high
    assert [hit["match"] for hit in answers] == [hit["distance"] <= threshold.distance for hit in answers]
    assert answers[0]["match"]
    assert all(0 <= hit["probability"] <= 1 for hit in answers)
    assert [hit["probability"] for hit in answers] == sorted((hit["probability"] for hit in answers), reverse=True)
    output = call("search", calibrated, image, "-k", 3)
    assert "no match" not in output
    assert "yes" in output
    strict = call("search", calibrated, image, "-k", 3, "--within", "none", "--json")
    assert "match" not in json.loads(strict)[str(image)][0]
    white = shop.parent / "white.png"
    Image.new("RGB", (SIZE, SIZE), "white").save(white)
    assert "no match: nothing lies within 0.0000 (as asked for)" in call("search", calibrated, white, "--within", "0")
    with pytest.raises(ValueError, match="--within nearly: expected a distance, or one of auto, none, match"):
        call("search", calibrated, image, "--within", "nearly")


def test_a_bundle_leaves_out_what_is_no_match(calibrated):
    with tfdml.bundle.Bundle.open(calibrated) as opened:
        query = opened.index.vectors([3])
        everything = opened.search(query, k=40)[0]
        matches = opened.search(query, k=40, within="match")[0]
        limit = opened.threshold().distance
        assert matches == [hit for hit in everything if hit.distance <= limit]
        assert 0 < len(matches) < 40
        assert opened.search(-query, k=2, within=1e-6) == [[]]
        with pytest.raises(ValueError, match="there is no threshold 'far'; known: 'match'"):
            opened.search(query, within="far")
        with pytest.raises(ValueError, match="received NaN"):
            opened.search(query, within=float("nan"))


def test_calibration_needs_classes_that_were_kept_out(shop, run, bundle, tmp_path):
    with pytest.raises(ValueError, match="--far: a match can be calibrated only on classes"):
        call("export", run / "model.keras", shop, "--to", tmp_path, "--far", 0.1)
    with pytest.raises(ValueError, match="--far, --precision: expected one of them"):
        call("export", run, shop, "--to", tmp_path, "--far", 0.1, "--precision", 0.9)
    with tfdml.bundle.Bundle.open(bundle) as opened, pytest.raises(ValueError, match="no threshold was calibrated"):
        opened.threshold()


def test_train_calibrates_and_export_takes_it_over(shop, tmp_path):
    options = ["--image-size", SIZE, "--steps", 1, "--classes", 4, "--examples", 2, "--test", 0.5, "--precision", 0.2]
    output = call("train", shop, "--out", tmp_path / "run", *options)
    assert "precision 0.2: up to" in output
    call("export", tmp_path / "run", shop, "--to", tmp_path / "products", "--search", "none")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    with tfdml.bundle.Bundle.open(tmp_path / "products") as opened:
        assert opened.threshold().distance == record["thresholds"]["match"]["distance"]
        assert opened.manifest.match_probability.answers == record["match_probability"]["answers"] == 200


def test_compare_bundles_and_runs(shop, run, bundle, calibrated, tmp_path):
    figures = tmp_path / "figures.json"
    output = call("compare", bundle, calibrated, "--json", figures)
    assert "40 items of 8 classes are in both" in output
    assert "100.0% of the 1 nearest" in output
    record = json.loads(figures.read_text())
    assert record["figures"]["map_at_r"]["difference"]["value"] == 0
    assert len(record["most_changed"]) == 10
    # The same model: the figures are those of evaluate.
    output = call("compare", run, run, shop, "--changed", 0)
    assert "20 images of 4 classes" in output
    assert "Queries that changed most" not in output
    for arguments, message in [
        ((run, bundle), "but .* is not. Compare two of a kind"),
        ((run, run), "DATA: missing"),
        ((bundle, bundle, shop), "bundles are compared on their own items"),
        ((bundle, bundle, "--label", "colour"), "has no such field. Known: label"),
    ]:
        with pytest.raises(ValueError, match=message):
            call("compare", *arguments)


@pytest.mark.one_stack
def test_compare_leaves_out_items_whose_class_is_not_known(tmp_path):
    labels = ["a", "b", "c"] * 3 + [None, None]
    pack_fake_model(tmp_path, np.random.default_rng(0).normal(size=(11, 4)), fields={"label": labels})
    output = call("compare", tmp_path, tmp_path)
    assert "9 items of 3 classes are in both" in output
    assert "2 more have no label and are left out" in output
    assert "9 queries" in output


def test_evaluate_by_class_and_with_intervals(shop, run):
    output = call("evaluate", run, shop, "--by", "label", "--intervals")
    assert "Recall@1" in output
    assert "% to " in output
    assert len([line for line in output.splitlines() if " 5 " in line]) == 4
    with pytest.raises(ValueError, match="--by='camera' is not known"):
        call("evaluate", run, shop, "--by", "camera")


def test_a_model_with_a_loss_of_ones_own_is_judged(shop, run, tmp_path):
    class Own(keras.losses.Loss):
        def call(self, labels, embeddings):
            return embeddings[:, 0]

    model = keras.models.load_model(run / "model.keras", compile=False)
    model.compile("sgd", loss=Own())
    model.save(tmp_path / "own.keras")
    assert "Recall@1" in call("evaluate", tmp_path / "own.keras", shop)
