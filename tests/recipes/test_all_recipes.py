"""What holds for all recipes."""

from __future__ import annotations

from recipe_runs import RECIPES


def test_recipes_are_short():
    for path in RECIPES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 150, path.name
