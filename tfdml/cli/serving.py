"""`tfdml serve` and `tfdml key`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tfdml.cli.console import load_tensorflow, say

_NEEDS = ("fastapi", "uvicorn", "httptools", "httpx", "prometheus_client", "python_multipart")

BundlePath = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE",
        help="A model directory, whose new versions are followed, or one version directory.",
        show_default=False,
    ),
]


def serve(
    path: BundlePath,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.")] = 8000,
    tf_serving: Annotated[
        str | None, typer.Option(help="TF-Serving's REST root, such as http://localhost:8501. Without it the model runs here.")
    ] = None,
    grpc: Annotated[str | None, typer.Option(help="TF-Serving's gRPC address, such as localhost:8500.")] = None,
    model_name: Annotated[
        str | None, typer.Option(help="The model's name in TF-Serving; the directory's name if left out.")
    ] = None,
    living: Annotated[Path | None, typer.Option(help="The file in which added, changed and removed items are kept.")] = None,
    writable: Annotated[bool, typer.Option(help="Let items be changed, and versions pinned, through the API.")] = False,
    api_keys: Annotated[
        Path | None, typer.Option(help="A file of API keys (see tfdml key); without it anybody may ask.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Requests that each key may make a second; 0 for no limit.")] = 50.0,
    concurrency: Annotated[int, typer.Option(help="Requests that are worked on at once.")] = 32,
    queue: Annotated[int, typer.Option(help="Requests that may wait; more are refused with a 503.")] = 64,
    deadline: Annotated[float, typer.Option(help="Seconds within which a request is answered or refused.")] = 10.0,
    max_image_mb: Annotated[float, typer.Option(help="The largest image file that is taken, in megabytes.")] = 10.0,
    poll: Annotated[float, typer.Option(help="Seconds between looks for new versions.")] = 1.0,
    keep_versions: Annotated[int, typer.Option(help="Other versions that stay open, to compare with and to go back to.")] = 1,
    keep_on_disk: Annotated[
        int, typer.Option(help="Remove old versions but for so many of the latest; 0 removes none. On one node only.")
    ] = 0,
    state: Annotated[
        Path | None, typer.Option(help="The file that keeps which version is pinned; one in the model directory if left out.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Check every byte of a version before it is served.")] = True,
    page: Annotated[bool, typer.Option(help="Serve the web page at /.")] = True,
    log_level: Annotated[str, typer.Option(help="debug, info (a line for each request), warning or error.")] = "warning",
) -> None:
    """Answers searches over HTTP, with a web page: the model runs here, or in a TF-Serving that is named.

    [bold]Example:[/bold]  tfdml serve exports/products --port 8000
    """
    check_installed(embedded=tf_serving is None and grpc is None)
    from tfdml_serving.api.logs import set_up_log
    from tfdml_serving.api.server import check_address, run
    from tfdml_serving.settings import Settings

    from tfdml.bundle.layout import resolve

    resolve(path)
    settings = Settings(
        path,
        host=host,
        port=port,
        tf_serving=tf_serving,
        grpc=grpc,
        model_name=model_name,
        living=living,
        writable=writable,
        api_keys=api_keys,
        requests_per_second=rate,
        concurrency=concurrency,
        queue=queue,
        deadline=deadline,
        max_image_bytes=int(max_image_mb * (1 << 20)),
        poll_seconds=poll,
        keep_versions=keep_versions,
        keep_on_disk=keep_on_disk,
        state=state,
        verify=verify,
        page=page,
        log_level=log_level,
    )
    check_address(host, port)
    set_up_log(log_level)
    if settings.embedded:
        load_tensorflow()
    run(settings, listening=lambda url: say(_welcome(settings.page, url)))


def key(
    name: Annotated[str, typer.Argument(help="Whose key it is; the log shows this name.", show_default=False)],
    role: Annotated[str, typer.Option(help="read, or write: may also change items and versions.")] = "read",
    file: Annotated[Path | None, typer.Option(help="The file of keys to which its line is added.")] = None,
) -> None:
    """Makes an API key. It is shown once: the file gets its hash only.

    [bold]Example:[/bold]  tfdml key shop --file keys.txt
    """
    from tfdml_serving.api.keys import add_key, new_key

    made, line = new_key(name, role)
    if file is None:
        say(f"Line for the file of keys:\n{line}")
    else:
        add_key(file, line)
    say(f"The key, shown only now:\n{made}")


def check_installed(embedded: bool) -> None:
    """Raises a RuntimeError that says what to install, if anything that serving needs is missing."""
    if embedded and importlib.util.find_spec("tensorflow") is None:
        raise RuntimeError(
            "TensorFlow is not installed, so the model cannot run here. Install it, or name a TF-Serving: --tf-serving URL."
        )
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"serving needs {', '.join(missing)}. Install them: pip install 'tfdml[serving]'")


def _welcome(page: bool, url: str) -> str:
    what = "Page and API" if page else "API"
    return f"{what}: [bold]{escape(url)}[/bold]   its description: {escape(url)}/docs   stop with Ctrl-C"
