"""What the command line says: mistakes in a sentence, names as they are, help at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import tfdml
from tfdml.cli import app, main
from tfdml.cli.console import plain_table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "no/such/folder"], "is not known"),
        (["train", "rendered_catalogue", "--loss", "quadruplet"], "Known: 'triplet', 'contrastive'"),
        (["demo", "--data", "imagenet"], "Known: 'auto'"),
        (["evaluate", "no/such/run", "rendered_catalogue"], "there is no such model"),
        (["verify", "no/such/bundle"], "no/such/bundle"),
        (["search", "no/such/bundle", __file__], "no/such/bundle"),
    ],
)
def test_mistakes_get_a_sentence_and_exit_code_1(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tfdml", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert "error:" in error
    assert message in error
    assert "Traceback" not in error


@pytest.mark.one_stack
def test_an_extra_that_is_missing_gets_a_sentence(monkeypatch, capsys):
    def app():
        raise ImportError("FAISS is missing. Install it: pip install 'tfdml[faiss]'")

    monkeypatch.setattr("tfdml.cli.app", app)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.strip() == "error: FAISS is missing. Install it: pip install 'tfdml[faiss]'"


@pytest.mark.one_stack
def test_names_are_printed_as_they_are(capsys):
    plain_table("a :key:", ["id", "size [cm]"], [[":dress:7", "[red]"]])
    printed = capsys.readouterr().out
    assert [name for name in ("a :key:", "size [cm]", ":dress:7", "[red]") if name not in printed] == []


def test_help_loads_no_tensorflow():
    code = (
        "import sys; from typer.testing import CliRunner; from tfdml.cli import app;"
        "result = CliRunner().invoke(app, ['search', '--help']); assert result.exit_code == 0, result.output;"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"tfdml {tfdml.__version__}"
