"""The README's snippets run as written, on less data and for fewer steps."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def smaller(code: str) -> str:
    for text, instead in {
        'tfdml.datasets.load("grocery_store")': "tfdml.datasets.rendered_catalogue(classes=12, views=4)",
        "classes=16, examples=4": "classes=4, examples=2",
        "steps_per_epoch=200": "steps_per_epoch=2",
        "epochs=5": "epochs=1",
    }.items():
        assert text in code, f"the README no longer says {text!r}"
        code = code.replace(text, instead)
    return code


@pytest.mark.filterwarnings("ignore:.*shuffle=True.*")
def test_the_main_snippet_trains_judges_and_publishes_and_the_other_reads_what_it_published(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main, reading = SNIPPETS
    names: dict = {}
    exec(compile(smaller(main), "README.md", "exec"), names)
    assert "recall_at_1" in capsys.readouterr().out
    assert (tmp_path / "exports/products/1/saved_model.pb").is_file()
    names["embedding"] = np.ones(names["model"].dimension, np.float32)
    exec(compile(reading, "README.md", "exec"), names)
    assert len(names["hits"]) == 5


def test_the_commands_it_names_exist():
    from tfdml.cli import app

    commands = {each.name for each in (*app.registered_commands, *app.registered_groups)}
    named = set(re.findall(r"^tfdml ([a-z]+)", README, re.MULTILINE))
    assert named
    assert named <= commands
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z0-9-]+)", README, re.MULTILINE)) <= targets


def test_the_files_it_links_to_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_the_rooms_it_names_are_there_after_import_tfdml():
    import tfdml

    rooms = set(re.findall(r"`tfdml\.([a-z_]+)[`.]", README))
    assert "scale" in rooms
    assert rooms <= set(tfdml.__all__)
