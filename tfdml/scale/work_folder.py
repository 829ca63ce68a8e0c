"""A folder of work in units, each of which is there completely or not at all. Standard library only."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

PLAN, RECORD, LOCK = "plan.json", "record.json", ".lock"
_TEMPORARY = ".tmp-"


class WorkFolderError(ValueError):
    """A folder of work that cannot be gone on with: of another plan, damaged, or in use."""


@dataclasses.dataclass(frozen=True)
class UnitRecord:
    """What is known of a finished unit.

    Attributes:
        number: which unit.
        plan: fingerprint of the plan that it belongs to.
        files: size and SHA-256 of each of its files, by name.
        facts: what the work found, as JSON holds it.
    """

    number: int
    plan: str
    files: Mapping[str, tuple[int, str]]
    facts: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "files": {name: list(known) for name, known in self.files.items()}}

    @classmethod
    def from_dict(cls, record: Any) -> UnitRecord:
        """Reads what `as_dict` wrote; a `WorkFolderError` for anything else."""
        try:
            files = {str(name): (int(size), str(digest)) for name, (size, digest) in record["files"].items()}
            return cls(int(record["number"]), str(record["plan"]), files, dict(record["facts"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WorkFolderError(f"the record of a unit is damaged: {type(error).__name__}: {error}") from error

    def digest(self) -> str:
        """SHA-256 of the names and contents of its files."""
        return fingerprint({name: list(known) for name, known in self.files.items()})


class WorkFolder:
    """A plan, and its units in folders of their own.

    A unit's folder is written under a temporary name and takes its own in one step, so that a process that is killed leaves
    nothing that looks finished. A folder cannot be renamed over one that holds files: of two workers that do the same unit, as
    when a lost one turns out to be alive, the first one's stays and the other's is dropped.

    Args:
        path: the folder.
        unit: what a unit is called, such as "part".
    """

    def __init__(self, path: str | os.PathLike[str], unit: str) -> None:
        self.path, self.unit = Path(path), unit

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder, which is made if it does not exist; the lock ends with the process, however it ends.

        Raises:
            WorkFolderError: if another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise WorkFolderError(f"{str(self.path)!r} is a file. Expected a folder to write to.") from error
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                raise WorkFolderError(
                    f"{str(self.path)!r} is in use by {owner}. Wait until it is done, stop it, or take another folder."
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def plan(self) -> dict[str, Any] | None:
        """The plan, or None if there is none yet."""
        path = self.path / PLAN
        try:
            plan = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise WorkFolderError(f"{path}: not JSON: {error}. Delete the folder and begin anew.") from error
        if not isinstance(plan, dict):
            raise WorkFolderError(f"{path}: expected an object, received {type(plan).__name__}. Delete the folder.")
        return plan

    def refuse_strangers(self, own: Collection[str] = ()) -> None:
        """Raises a `WorkFolderError` if the folder has no plan and holds more than `own`: it is somebody else's."""
        visible = (entry.name for entry in os.scandir(self.path) if not entry.name.startswith("."))
        strangers = sorted(name for name in visible if name not in own)
        if strangers:
            raise WorkFolderError(
                f"{str(self.path)!r} holds {strangers[0]!r} and no {PLAN}: it is no folder of this kind. Take an empty one."
            )

    def remove_temporary(self) -> int:
        """Removes what workers left that were killed; only for who holds the lock. Returns how many units that were."""
        left = [entry for entry in self._entries() if entry.startswith(_TEMPORARY)]
        for name in left:
            shutil.rmtree(self.path / f"{self.unit}s" / name, ignore_errors=True)
        return len(left)

    def finished(self) -> list[int]:
        """The numbers of the units that are there, in order; nothing of them is checked."""
        names = (name.removeprefix(f"{self.unit}-") for name in self._entries() if name.startswith(f"{self.unit}-"))
        return sorted(int(name) for name in names if name.isdigit())

    def unfinished(self) -> dict[int, int]:
        """How often each unit was begun and not finished since the last `remove_temporary`."""
        begun: dict[int, int] = {}
        for name in self._entries():
            number = name.removeprefix(_TEMPORARY).split("-")[0]
            if name.startswith(_TEMPORARY) and number.isdigit():
                begun[int(number)] = begun.get(int(number), 0) + 1
        return begun

    def folder(self, number: int) -> Path:
        return self.path / f"{self.unit}s" / f"{self.unit}-{number:06d}"

    def read(self, number: int, plan: str, *, checksum: bool = True) -> UnitRecord:
        """The record of a finished unit, after its files were checked.

        Raises:
            FileNotFoundError: if the unit is not there.
            WorkFolderError: if it belongs to another plan, or a file is damaged; it says which.
        """
        folder = self.folder(number)
        try:
            record = UnitRecord.from_dict(json.loads((folder / RECORD).read_bytes()))
        except FileNotFoundError:
            if folder.exists():
                raise WorkFolderError(f"{folder}: has no {RECORD}.") from None
            raise
        except ValueError as error:
            raise WorkFolderError(f"{folder / RECORD}: {error}") from error
        if record.number != number or record.plan != plan:
            raise WorkFolderError(f"{folder}: belongs to another plan.")
        for name, (size, digest) in record.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size or (checksum and sha256(path) != digest):
                raise WorkFolderError(f"{path}: is damaged: not the file whose size and SHA-256 were recorded.")
        return record

    def remove(self, number: int) -> None:
        """Removes a unit that is damaged."""
        # Under another name first: what is half removed must not look finished.
        doomed = self.folder(number).with_name(f"{_TEMPORARY}{number}-removed")
        os.rename(self.folder(number), doomed)
        shutil.rmtree(doomed)

    def commit(self, number: int, plan: str, write: Callable[[Path], Mapping[str, Any]]) -> tuple[UnitRecord, bool]:
        """Does a unit: `write` fills a folder and returns facts. Returns the record, and whether it is this call's own.

        What a power cut leaves of files that were not flushed is found by their checksums, and done again.
        """
        target = self.folder(number)
        target.parent.mkdir(exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{number}-{os.getpid()}-", dir=target.parent))
        try:
            facts = write(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        temporary.chmod(0o755)
        files = {path.name: (path.stat().st_size, sha256(path)) for path in sorted(temporary.iterdir())}
        record = UnitRecord(number, plan, files, facts)
        write_json(temporary / RECORD, record.as_dict())
        try:
            os.rename(temporary, target)
        except OSError:
            # Somebody else was first; what is there must be whole, or this is an error of its own.
            found = self.read(number, plan)
            shutil.rmtree(temporary, ignore_errors=True)
            return found, False
        return record, True

    def _entries(self) -> list[str]:
        try:
            return os.listdir(self.path / f"{self.unit}s")
        except FileNotFoundError:
            return []


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file: all of it is there, or what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def fingerprint(content: Any) -> str:
    """SHA-256 of what JSON holds."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
