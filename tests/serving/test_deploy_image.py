"""What the Dockerfile makes, without Docker: its own RUN lines, run here, and the service started from what they leave."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import encoded, pack_fake_model
from dependency_tree import NOT_FOR_SERVING, pins
from deploy_files import ROOT, dockerfile
from PIL import Image
from stand_in import StandIn
from stand_in_models import FakeModel
from tfdml_serving.client import Client, Retry
from tfdml_serving.embedding.remote import PROBE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.metadata.version("tensorflow").startswith("2.15"), reason="needs no second stack"),
]

MOST_MEGABYTES = 250
USER = 10001
GALLERY = np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def image():
    """The folder that stands for the root of the image's file system."""
    root = Path(tempfile.mkdtemp(prefix="tfdml-image-"))
    root.chmod(0o755)  # the service's user has to get in
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    places = {"/opt/": f"{root}/opt/", "/src": f"{root}/src"}
    env = {"PATH": f"{root}/bin:{os.environ['PATH']}", "HOME": str(root / "home"), "LC_ALL": "C.UTF-8"}
    env.update({name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "http", "HTTP"))})
    try:
        for word, rest in dockerfile()[0]:
            if word == "ARG":
                name, _, value = rest.partition("=")
                env[name] = value
            elif word == "ENV":
                env.update(item.split("=", 1) for item in rest.split())
            elif word == "COPY":
                *sources, target = rest.split()
                for source in sources:
                    copy(ROOT / source, Path(moved(target, places)), into=target.endswith("/"))
            elif word == "RUN" and not rest.startswith("apt-get"):
                done = subprocess.run(["sh", "-c", moved(rest, places)], env=env, capture_output=True, text=True)
                assert done.returncode == 0, f"{rest}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        yield root
    finally:
        shutil.rmtree(root)


def picture(number: int) -> bytes:
    return encoded(np.full([8, 8, 3], number, np.uint8))


def load(path: Path) -> FakeModel:
    """A model that sees the number in a picture."""

    def embed(data: bytes) -> np.ndarray:
        return GALLERY[0 if data == PROBE else np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0]]

    return FakeModel(embed, GALLERY.shape[1])


def moved(text: str, places: dict[str, str]) -> str:
    for place, instead in places.items():
        text = re.sub(
            rf"(?<![\w.]){re.escape(place)}(?!\w)" if place == "/src" else rf"(?<![\w.]){re.escape(place)}", instead, text
        )
    return text


def copy(source: Path, target: Path, into: bool) -> None:
    place = target / source.name if into else target
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, place)


def packages(image: Path) -> Path:
    [found] = (image / "opt" / "tfdml" / "lib").glob("python*/site-packages")
    return found


def test_it_holds_what_is_pinned_and_is_small(image, record_property):
    found = {d.name.lower(): d for d in importlib.metadata.distributions(path=[str(packages(image))])}
    expected = {**pins(ROOT / "constraints" / "serving.txt"), "tfdml": importlib.metadata.version("tfdml")}
    assert {name.replace("_", "-"): d.version for name, d in found.items()} == expected
    assert not set(found) & {*NOT_FOR_SERVING, "keras", "pip", "setuptools"}
    size = sum(path.lstat().st_size for path in packages(image).rglob("*")) / 1e6
    record_property("megabytes", round(size))
    print(f"\nthe installed packages: {size:.0f} MB")
    assert size < MOST_MEGABYTES
    assert not (image / "home" / ".cache").exists()


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not on the PATH")
def test_annoy_is_compiled_for_other_machines_too(image):
    [library] = packages(image).glob("annoy/annoylib*.so")
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True).stdout
    assert "%ymm" in code  # AVX2, which every server has
    assert "%zmm" not in code  # AVX-512, which some do not have; this machine may


def test_everything_that_is_installed_has_what_it_asks_for(image):
    code = """
import importlib.metadata as m, re, sys
from packaging.requirements import Requirement
for d in m.distributions(path=[sys.argv[1]]):
    for line in d.requires or []:
        r = Requirement(line)
        if r.marker is None or r.marker.evaluate({"extra": ""}):
            try:
                good = r.specifier.contains(next(iter(m.distributions(name=r.name, path=[sys.argv[1]]))).version)
            except StopIteration:
                good = False
            if not good:
                print(re.sub("[-_.]+", "-", r.name).lower())
"""
    python = image / "opt" / "build" / "bin" / "python"
    lacks = subprocess.run([python, "-c", code, packages(image)], capture_output=True, text=True, check=True).stdout.split()
    assert set(lacks) == NOT_FOR_SERVING


READ_ONLY = ["unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"]


def can_be_read_only() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*READ_ONLY, "true"], capture_output=True).returncode == 0


def others_can_run(program: Path) -> bool:
    """Whether another user gets to the interpreter behind a program: not where it is in somebody's home."""
    real = (program.parent / "python").resolve()
    return os.geteuid() == 0 and all(place.stat().st_mode & 0o001 for place in (real, *real.parents))


def test_the_service_starts_in_it_on_a_root_file_system_that_cannot_be_written(image):
    bundles = image / "models"
    version = bundles / "products" / "1"
    version.mkdir(parents=True)
    pack_fake_model(version, GALLERY)
    program = image / "opt" / "tfdml" / "bin" / "tfdml"
    as_user = {"user": USER, "group": USER, "extra_groups": []} if others_can_run(program) else {}
    before = READ_ONLY if can_be_read_only() and not as_user else []  # only root can change a mount
    env = {"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
    env |= dict(
        item.split("=", 1) for word, rest in dockerfile()[1] if word == "ENV" for item in rest.split() if "PATH" not in item
    )
    with StandIn(bundles / "products", load) as tf_serving:
        command = [*before, program, "serve", bundles / "products", "--port", "0", "--tf-serving", tf_serving.url]
        with subprocess.Popen(
            command, cwd="/", env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **as_user
        ) as process:
            stop = threading.Timer(120, process.kill)
            stop.start()
            try:
                said = ""
                while (url := re.search(r"http://127\.0\.0\.1:\d+", said)) is None:
                    line = process.stdout.readline()
                    assert line, f"it did not start:\n{said}"
                    said += line
                with Client(url[0], retry=Retry(attempts=20, first=0.1, longest=0.5)) as client:
                    found = client.search_image(picture(7), k=3)
                    assert client.ready()
                maps = Path(f"/proc/{process.pid}/maps").read_text()
                libraries = {line.rpartition("/")[2] for line in maps.splitlines() if ".so" in line}
            finally:
                process.terminate()
                process.wait(30)
                stop.cancel()
    assert process.returncode in (0, -15, 143)
    assert found[0].id == "item/7"
    truth = np.argsort(np.linalg.norm(GALLERY - GALLERY[7], axis=1))[:3]
    assert [hit.id for hit in found] == [f"item/{number}" for number in truth]
    assert not [name for name in libraries if "tensorflow" in name]
    if as_user:
        for place in ("/tmp", "/var/tmp", "/dev/shm", str(image)):
            written = subprocess.run(["find", place, "-xdev", "-uid", str(USER)], capture_output=True, text=True).stdout
            assert not written, written


def test_the_check_of_health_is_the_images_own(image):
    [check] = [rest for word, rest in dockerfile()[1] if word == "HEALTHCHECK"]
    command = json.loads(check.partition("CMD ")[2])
    assert command[0] == "python"
    assert (image / "opt" / "tfdml" / "bin" / "python").exists()
