"""The version that people decided to serve, in a small file: it outlives restarts, and several nodes can read one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from pathlib import Path

from tfdml.bundle.layout import LARGEST_VERSION
from tfdml.bundle.publish import flush

NAME = ".tfdml-pin.json"
"""In a model directory TF-Serving looks at names that are integers only."""


class Pin:
    """The file that holds the pinned version; no file says that the latest is served.

    Args:
        path: of the file.

    Example:
        >>> import tempfile
        >>> pin = Pin(Path(tempfile.mkdtemp()) / NAME)
        >>> pin.write(3)
        >>> pin.read()
        3
        >>> pin.write(None)
        >>> pin.read() is None
        True
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def read(self) -> int | None:
        """The pinned version, or None.

        Raises:
            ValueError: if the file is damaged; it says what to do.
        """
        try:
            content = json.loads(self.path.read_bytes())
            version = content["version"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}: cannot be read ({type(error).__name__}). Pin a version anew, or remove it."
            ) from error
        if type(version) is not int or not 0 <= version <= LARGEST_VERSION:
            raise ValueError(f"{self.path}: pins no version, but {str(version)[:40]!r}. Pin a version anew, or remove it.")
        return version

    def write(self, version: int | None) -> None:
        """Pins a version, or none; on the disk when it returns, and never half there.

        Raises:
            OSError: if that cannot be.
        """
        if version is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
                flush(self.path.parent)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        written = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}.tmp")
        try:
            written.write_text(json.dumps({"version": version, "since": since}) + "\n")
            flush(written)
            os.replace(written, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                written.unlink()
            raise
        flush(self.path.parent)
