"""What serving/README.md tells people to type exists: commands and their options, addresses, names in Python, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "serving" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
SHELL = "\n".join(block for language, block in BLOCKS if not language).replace("\\\n", " ")


def test_the_commands_have_the_options_that_are_named():
    from tfdml.cli import app

    commands = typer.main.get_command(app).commands
    lines = re.findall(r"^(?:\.venv/bin/)?tfdml ([a-z]+)(.*)$", SHELL, re.MULTILINE)
    assert {"serve", "key", "train", "export"} <= {name for name, _ in lines}
    for name, rest in lines:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", rest.partition("#")[0])) <= known, name
    inline = set(re.findall(r"`tfdml ([a-z]+)", README))
    assert inline <= set(commands)
    options = set(re.findall(r"`(--[a-z-]+)`", README))
    assert options <= {option for parameter in commands["serve"].params for option in parameter.opts}


def test_the_addresses_exist(tmp_path):
    from tfdml_serving.api.app import create_app
    from tfdml_serving.settings import Settings

    app = create_app(Settings(tmp_path), object(), object())  # type: ignore[arg-type]
    there = {
        (method.upper(), re.compile(re.sub(r"\{[^}]*\}", ".+", path)))
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }
    asked = re.findall(r"^curl (.*?localhost:8000(/[^\s'\"?]*).*)$", SHELL, re.MULTILINE)
    assert len(asked) >= 8
    for line, path in asked:
        named = re.search(r"-X ([A-Z]+)", line)
        method = named[1] if named else "POST" if re.search(r" -d | -F |^-F |--data-binary", line) else "GET"
        assert any(verb == method and address.fullmatch(path) for verb, address in there), (method, path)
    for path in set(re.findall(r"`(/[a-z0-9/]+)`", README)) - {"/docs", "/openapi.json", "/monitoring/prometheus/metrics"}:
        assert any(address.fullmatch(path) for _, address in there), path


def test_the_links_lead_somewhere():
    headings = {
        re.sub(r"[^a-z -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)\s]+)\)", README):
        path, _, anchor = link.partition("#")
        assert (ROOT / "serving" / path).exists(), link
        assert path or anchor in headings, link


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "python"], ids=["client", "by-hand"])
def test_the_python_is_python(block):
    imports = [line for line in block.splitlines() if line.startswith(("import ", "from "))]
    exec("\n".join(imports), {})
    compile(block, "serving/README.md", "exec")
