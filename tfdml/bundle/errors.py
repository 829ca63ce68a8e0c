"""The one error that a damaged, foreign or impossible bundle ends in."""

from __future__ import annotations

import errno
import os
import sqlite3


class BundleError(ValueError):
    """A bundle cannot be written, published, verified or read; the message says what is wrong and the way out."""


class DiskFullError(BundleError):
    """The disk is full."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind `error`, whichever library reported it.

    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    True
    >>> is_disk_full(ValueError("x"))
    False
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, sqlite3.Error) and "disk is full" in str(error):
            return True
        # TensorFlow and Annoy hand on the system's message without its number.
        if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
