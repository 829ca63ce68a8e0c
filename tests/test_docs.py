"""Every Python block of the documentation runs as written, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PAPERS = sorted((DOCS / "papers").glob("*.md"))

# README.md's blocks, which train, publish and search, run on both stacks (test_readme.py).
pytestmark = pytest.mark.one_stack


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize("page", PAGES, ids=name)
@pytest.mark.filterwarnings("ignore:.*shuffle=True.*")
def test_the_python_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    if not blocks:
        pytest.skip("no Python block")
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    names: dict = {"__name__": "__docs__"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    keras.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_and_pictures_of_a_page_exist(page):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert link.startswith(("http://", "https://")) or (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_paper_has_a_recipe_a_page_and_a_picture():
    papers = {page.stem for page in PAPERS} - {"README"}
    recipes = {path.stem for path in (DOCS.parent / "recipes").glob("*.py")} - {"product_retrieval", "shallow_baselines"}
    assert papers == recipes
    for page in PAPERS:
        if page.stem != "README":
            assert list(page.parent.glob(f"{page.stem}*.[sjp][vpn]*g")), f"{page.stem}: no picture"
            assert (page.parent / "pictures" / f"{page.stem}.py").is_file()
