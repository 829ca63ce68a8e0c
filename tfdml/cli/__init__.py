"""The command line: `tfdml train | evaluate | compare | report | export | verify | search | serve | versions | ...`."""

from __future__ import annotations

import os

import typer

from tfdml import __version__
from tfdml.cli import bundles, compact, comparing, data, demo, embedding, indexing, reporting, rollout, serving, training
from tfdml.cli.console import errors, fail

app = typer.Typer(
    name="tfdml",
    help=(
        "Deep metric learning for TensorFlow and Keras: from labelled images to a served visual search.\n\n"
        "The usual way: [bold]train[/bold] on a folder of images, [bold]evaluate[/bold] on classes that were not trained on, "
        "[bold]export[/bold] a bundle, [bold]search[/bold] or [bold]serve[/bold] it. [bold]demo[/bold] does most of that in a "
        "few minutes."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("train")(training.train)
app.command("evaluate")(training.evaluate)
app.command("compare")(comparing.compare)
app.command("report")(reporting.report)
app.command("export")(bundles.export)
app.command("verify")(bundles.verify)
app.command("search")(bundles.search)
app.command("inspect")(bundles.inspect)
app.command("embed")(embedding.embed)
app.command("compact")(compact.compact)
app.command("serve")(serving.serve)
app.command("key")(serving.key)
app.command("versions")(rollout.versions)
app.command("rollback")(rollout.rollback)
app.add_typer(data.app, name="data")
app.add_typer(indexing.app, name="index")


def _version(asked: bool) -> None:
    if asked:
        print(f"tfdml {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and stop."),
) -> None:
    """Options of all commands."""


def main() -> None:
    """The console script. What the user can mend is told in a sentence; TFDML_DEBUG=1 shows the whole traceback."""
    try:
        app()
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except errors() as error:
        if os.environ.get("TFDML_DEBUG"):
            raise
        fail(str(error))


if __name__ == "__main__":
    main()
