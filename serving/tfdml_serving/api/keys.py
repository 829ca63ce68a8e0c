"""API keys: who may ask, and how often."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import math
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from tfdml_serving.errors import RateLimited, Unauthorized

ROLES = ("read", "write")
_HASHED = "sha256:"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHORTEST = 16
_LOOK_AGAIN = 1.0


class TokenBucket:
    """A rate limit that lets short bursts pass.

    Args:
        rate: tokens that come back each second.
        size: the most that it holds.
        clock: seconds, never backwards.
    """

    def __init__(self, rate: float, size: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._size, self._clock = rate, size, clock
        self._tokens, self._filled = size, clock()

    def take(self, tokens: float = 1.0) -> float | None:
        """Takes `tokens`, more than there are if need be: a debt, which is waited for. Answers how many seconds to wait if
        there was none left to begin with, and then takes nothing; None otherwise.

        >>> bucket = TokenBucket(rate=2.0, size=3, clock=lambda: 0.0)
        >>> [bucket.take() for _ in range(5)]
        [None, None, None, 0.5, 0.5]
        """
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= tokens
        return None


@dataclasses.dataclass(frozen=True)
class Key:
    """A key that the service knows.

    Args:
        name: whose it is, for the log.
        role: "read" or "write"; who may write may read.
        digest: SHA-256 of the key. The key itself is not kept.
        bucket: its rate limit; None for none.
    """

    name: str
    role: str
    digest: bytes
    bucket: TokenBucket | None = None


class KeyFile:
    """The keys in a file, one a line: NAME ROLE KEY, or NAME ROLE sha256:HEX so that the file holds no secret.

    Empty lines and lines that begin with # do not count. A file that changes is read anew; one that has become unreadable is
    reported, and the keys that were known stay.

    Args:
        path: the file.
        rate: requests that each key may make a second; 0 for no limit.
        burst: how many at once.
        report: is told, in words, when a changed file cannot be used.

    Raises:
        ValueError: if a line cannot be read; it gives the line's number, never its content.
    """

    def __init__(
        self, path: Path, rate: float = 0.0, burst: int = 1, report: Callable[[str], None] = lambda text: None
    ) -> None:
        self._path, self._rate, self._burst, self._report = path, rate, burst, report
        self._state = _state(path)
        self._keys = self._read()
        self._looked = time.monotonic()

    def __len__(self) -> int:
        return len(self._keys)

    def admit(self, presented: str | None, cost: float = 1.0) -> Key:
        """The key that `presented` is, one of its tokens taken, or as many as the request costs.

        Raises:
            Unauthorized: if it is none.
            RateLimited: if its tokens are used up.
        """
        self._reread()
        if not presented:
            raise Unauthorized("Send your key in the header 'Authorization: Bearer KEY', or in 'X-API-Key'.")
        digest = _digest(presented)
        found = None
        for key in self._keys:  # all of them, whichever it is: the time says nothing about the keys
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise Unauthorized("This key is not known.")
        if found.bucket is not None and (wait := found.bucket.take(cost)) is not None:
            raise RateLimited(
                f"At most {self._rate:g} requests a second, {self._burst} at once. Wait and ask again.",
                retry_after=math.ceil(wait),
            )
        return found

    def _reread(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        try:
            state = _state(self._path)
            if state != self._state:
                self._state = state
                self._keys = self._read()
        except (OSError, ValueError) as error:
            self._report(f"the changed file of keys cannot be used, the old keys stay: {error}")

    def _read(self) -> tuple[Key, ...]:
        keys: dict[str, Key] = {}
        old = {key.digest: key for key in getattr(self, "_keys", ())}
        for number, line in enumerate(self._path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key = _parse(line, f"{self._path}, line {number}")
            if key.name in keys:
                raise ValueError(f"{self._path}, line {number}: a second key named {key.name!r}. Give each its own name.")
            # A key that stays keeps what is left of its tokens.
            bucket = old[key.digest].bucket if key.digest in old else None
            if bucket is None and self._rate > 0:
                bucket = TokenBucket(self._rate, self._burst)
            keys[key.name] = dataclasses.replace(key, bucket=bucket)
        if not keys:
            raise ValueError(f"{self._path}: holds no key. Make one with tfdml key, or start without --api-keys.")
        return tuple(keys.values())


def new_key(name: str, role: str = "read") -> tuple[str, str]:
    """A new key, and the line for the file, which holds only its hash.

    >>> key, line = new_key("shop", "read")
    >>> len(key), line.split()[:2]
    (43, ['shop', 'read'])
    """
    if role not in ROLES:
        raise ValueError(f"role={role!r}: expected read or write.")
    key = secrets.token_urlsafe(32)
    line = f"{name} {role} {_HASHED}{_digest(key).hex()}"
    _parse(line, "name or role")
    return key, line


def add_key(path: Path, line: str) -> None:
    """Adds a line to a file of keys, which only its owner may read if it is new.

    Raises:
        ValueError: if the file has a key of this name.
    """
    name = line.split()[0]
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if any(words and words[0] == name for words in map(str.split, old.splitlines())):
        raise ValueError(f"{path}: has a key named {name!r} already. Choose another name, or remove its line.")
    if old and not old.endswith("\n"):
        line = "\n" + line
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _parse(line: str, where: str) -> Key:
    parts = line.split()
    if len(parts) != 3:
        raise ValueError(f"{where}: {len(parts)} words; expected three: NAME ROLE KEY, or NAME ROLE sha256:HEX.")
    name, role, secret = parts
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: a name has 1 to 64 letters, digits, '.', '_' and '-'.")
    if role not in ROLES:
        raise ValueError(f"{where}: expected read or write as the role, between name and key.")
    if secret.startswith(_HASHED):
        try:
            digest = bytes.fromhex(secret.removeprefix(_HASHED))
        except ValueError:
            digest = b""
        if len(digest) != hashlib.sha256().digest_size:
            raise ValueError(f"{where}: expected 64 hexadecimal digits behind {_HASHED}.")
    elif len(secret) < _SHORTEST:
        raise ValueError(f"{where}: the key is shorter than {_SHORTEST} characters. Make one with tfdml key.")
    else:
        digest = _digest(secret)
    return Key(name, role, digest)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _state(path: Path) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
