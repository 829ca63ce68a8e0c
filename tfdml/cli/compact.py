"""`tfdml compact`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tfdml.cli.bundles import BundlePath, describe
from tfdml.cli.console import load_tensorflow, say, step_progress


def compact(
    path: BundlePath,
    living: Annotated[
        Path, typer.Option(help="The living catalogue: the file that the service was given.", show_default=False)
    ],
    version: Annotated[int | None, typer.Option(help="Of the new bundle; by default the one after the latest.")] = None,
    forget: Annotated[
        bool,
        typer.Option(
            help="Afterwards drop from the living catalogue what every published version has in it, images included. "
            "The service must be stopped."
        ),
    ] = False,
) -> None:
    """Publishes the next version of a bundle, with the items that were added, changed and removed while it was served.

    A running service goes on, and takes the new version up like any other. The living catalogue is only read: an older version
    can still be held, and shows everything that was acknowledged.
    """
    from tfdml_serving.living import LivingCatalogue
    from tfdml_serving.living.compaction import compact as fold
    from tfdml_serving.living.folding import forget_folded

    load_tensorflow()
    with LivingCatalogue.open(living, writable=forget) as opened:
        with step_progress() as progress:
            published = fold(path, opened, version, progress=progress)
        if published is None:
            say("Nothing to fold in: the latest version has every change of the living catalogue in it.")
        else:
            with published:
                say(describe(published))
                folded = published.manifest.folded
                if folded and folded.left_out:
                    say(
                        f"{len(folded.left_out)} items stay in the living catalogue only: they have no embedding in this "
                        f"model's space, and no image to make one of: {escape(', '.join(folded.left_out[:5]))}"
                    )
        if forget:
            root = path if published is None or path == published.path.parent else published.path.parent
            say(f"Forgotten: {forget_folded(opened, root)} items' entries that every published version has in it.")
