"""Everything that can be chosen about a running service."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LARGEST_K = 1000


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a service serves, to whom, and within which limits.

    Args:
        bundle: a model directory, whose versions are followed, or one version directory.
        host: the address to listen on.
        port: the port; 0 for any that is free.
        tf_serving: root of TF-Serving's REST interface, such as "http://localhost:8501". Without it and without `grpc` the
            SavedModel runs in this process (embedded mode).
        grpc: TF-Serving's gRPC address, such as "localhost:8500"; preferred to `tf_serving` where both are given.
        model_name: the model's name in TF-Serving; the name of the model directory if left out.
        living: the file of the living catalogue; None if items cannot change.
        writable: whether items may be added, changed and removed, and versions pinned, through the API.
        api_keys: a file of keys, one a line (see `tfdml_serving.api.keys`); None lets everybody ask.
        requests_per_second: how many requests a key may make each second, on average; 0 for no limit.
        burst: how many it may make at once.
        max_image_bytes: larger images are refused while they arrive.
        max_pixels: images with more pixels are refused unseen; the bundle's own limit holds as well.
        max_frames: GIFs with more frames are refused unseen.
        max_body_bytes: of a JSON body.
        max_bytes_in_flight: of all bodies that are held at a time; more are refused with a 503.
        max_pixels_in_flight: of all images that are decoded at a time; more wait.
        max_k: the most neighbours that a request may ask for, 1000 at most.
        max_queries: the most queries in a batch.
        deadline: seconds within which a request is answered or refused.
        concurrency: how many requests are worked on at once.
        queue: how many more may wait; the next is refused at once with a 503.
        threads: that search; 0 for one for each processor.
        connections: the most that are open at a time.
        header_seconds: within which a request's headers must have arrived.
        keep_alive: seconds after which an idle connection is closed.
        shutdown_seconds: that running requests are given when the service stops.
        embed_batch: the most images that are embedded together in embedded mode.
        embed_wait: seconds to wait for a batch to fill; 0 takes what is there.
        embed_threads: threads of TensorFlow in embedded mode; 0 for as many as it likes.
        poll_seconds: how often the model directory is looked at for new versions.
        keep_versions: how many other versions stay open beside the current one, for comparison and a quick roll-back.
        held_bytes: the most bytes that the files of those others may have together; 0 for no limit.
        load_seconds: for which TF-Serving may report a new version as not loaded, before the version is refused.
        keep_on_disk: remove versions but for so many of the latest, where nobody uses them; 0 removes none.
        state: the file that keeps which version is pinned; one in the model directory if left out.
        verify: compute the checksums of a version before it is served.
        page: serve the web page at "/".
        log_level: of the service's own log: "debug", "info", "warning" or "error".

    Raises:
        ValueError: for a value that makes no sense; it names the setting.

    Example:
        >>> Settings("exports/products", port=8080).embedded
        True
    """

    bundle: Path
    host: str = "127.0.0.1"
    port: int = 8000
    tf_serving: str | None = None
    grpc: str | None = None
    model_name: str | None = None
    living: Path | None = None
    writable: bool = False
    api_keys: Path | None = None
    requests_per_second: float = 50.0
    burst: int = 100
    max_image_bytes: int = 10 << 20
    max_pixels: int = 50_000_000
    max_frames: int = 200
    max_body_bytes: int = 32 << 20
    max_bytes_in_flight: int = 256 << 20
    max_pixels_in_flight: int = 200_000_000
    max_k: int = 100
    max_queries: int = 64
    deadline: float = 10.0
    concurrency: int = 32
    queue: int = 64
    threads: int = 0
    connections: int = 1000
    header_seconds: float = 10.0
    keep_alive: float = 30.0
    shutdown_seconds: float = 15.0
    embed_batch: int = 32
    embed_wait: float = 0.0
    embed_threads: int = 0
    poll_seconds: float = 1.0
    keep_versions: int = 1
    held_bytes: int = 0
    load_seconds: float = 300.0
    keep_on_disk: int = 0
    state: Path | None = None
    verify: bool = True
    page: bool = True
    log_level: str = "info"

    def __post_init__(self) -> None:
        for name in ("bundle", "living", "api_keys", "state"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, Path(os.fspath(value)))
        for name, least in _LEAST.items():
            _check_number(name, getattr(self, name), least)
        if self.max_k > LARGEST_K:
            raise ValueError(f"max_k={self.max_k}: expected at most {LARGEST_K:,}.")
        if self.port > 65535:
            raise ValueError(f"port={self.port}: expected 0 to 65535.")
        if self.tf_serving is not None and (urlsplit(self.tf_serving).scheme not in ("http", "https")):
            raise ValueError(f"tf_serving={self.tf_serving!r}: expected a URL such as 'http://localhost:8501'.")
        if self.grpc is not None and (":" not in self.grpc or "/" in self.grpc):
            raise ValueError(f"grpc={self.grpc!r}: expected host:port, such as 'localhost:8500'.")
        if self.log_level not in _LOG_LEVELS:
            raise ValueError(f"log_level={self.log_level!r}: expected one of {', '.join(_LOG_LEVELS)}.")

    @property
    def embedded(self) -> bool:
        """Whether the SavedModel runs in this process."""
        return self.tf_serving is None and self.grpc is None

    @property
    def served_name(self) -> str:
        """The model's name: as given, or the name of its directory."""
        if self.model_name:
            return self.model_name
        path = self.bundle.absolute()
        return path.parent.name if path.name.isdigit() else path.name

    def replace(self, **changes: Any) -> Settings:
        """The same with other values."""
        return dataclasses.replace(self, **changes)


_LOG_LEVELS = ("debug", "info", "warning", "error")
_LEAST: dict[str, float] = {
    "port": 0,
    "requests_per_second": 0.0,
    "burst": 1,
    "max_image_bytes": 1,
    "max_pixels": 1,
    "max_frames": 1,
    "max_body_bytes": 1,
    "max_bytes_in_flight": 1,
    "max_pixels_in_flight": 1,
    "max_k": 1,
    "max_queries": 1,
    "deadline": 0.001,
    "concurrency": 1,
    "queue": 0,
    "threads": 0,
    "connections": 1,
    "header_seconds": 0.01,
    "keep_alive": 0.0,
    "shutdown_seconds": 0.0,
    "embed_batch": 1,
    "embed_wait": 0.0,
    "embed_threads": 0,
    "poll_seconds": 0.01,
    "keep_versions": 0,
    "held_bytes": 0,
    "load_seconds": 0.0,
    "keep_on_disk": 0,
}


def _check_number(name: str, value: Any, least: float) -> None:
    whole = Settings.__dataclass_fields__[name].type == "int"
    good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value < least:
        kind = "an integer" if whole else "a number"
        raise ValueError(f"{name}={value!r}: expected {kind} of at least {least:g}.")
