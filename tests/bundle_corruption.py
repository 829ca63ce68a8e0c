"""Random damage to a copy of a bundle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bundle_helpers import replace

MANIFEST = "assets.extra/retrieval/manifest.json"


def corrupt(root: Path, other: Path, rng: np.random.Generator) -> str:
    """Damages the bundle `root`, whose files are hard links, and says how. `other` is a bundle with other content."""
    kind = KINDS[rng.integers(len(KINDS))]
    return f"{kind.__name__}: {kind(root, other, rng)}"


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def some_file(root: Path, rng: np.random.Generator) -> str:
    found = files(root)
    return found[rng.integers(len(found))]


def flipped_bits(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = some_file(root, rng)
    data = bytearray((root / name).read_bytes())
    if not data:
        data = bytearray(b"x")
    for position in np.unique(rng.integers(0, len(data), rng.integers(1, 4))):
        data[position] ^= 1 << rng.integers(8)
    replace(root / name, bytes(data))
    return name


def truncated(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = some_file(root, rng)
    data = (root / name).read_bytes()
    replace(root / name, data[: rng.integers(len(data))] if data else b"x")
    return name


def lengthened(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = some_file(root, rng)
    replace(root / name, (root / name).read_bytes() + rng.bytes(rng.integers(1, 100)))
    return name


def zeroed(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = some_file(root, rng)
    data = bytearray((root / name).read_bytes())
    start = int(rng.integers(len(data))) if data else 0
    block = bytes(data[start : start + 512])
    data[start : start + 512] = bytes(len(block)) if any(block) else b"\1" * max(1, len(block))
    replace(root / name, bytes(data))
    return name


def deleted(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = some_file(root, rng)
    (root / name).unlink()
    return name


def deleted_directory(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = ["variables", "assets.extra", "assets.extra/retrieval"][rng.integers(3)]
    shutil.rmtree(root / name)
    return name


def added(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = ["note.txt", "variables/more", "assets.extra/retrieval/index.ann.bak", "assets/vocabulary", "a/b/c"][rng.integers(5)]
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(rng.bytes(rng.integers(0, 9)))
    return name


def swapped(root: Path, other: Path, rng: np.random.Generator) -> str:
    names = files(root)
    while True:
        first, second = (root / names[i] for i in rng.choice(len(names), 2, replace=False))
        a, b = first.read_bytes(), second.read_bytes()
        if a != b:
            replace(first, b)
            replace(second, a)
            return f"{first.name} and {second.name}"


def of_another_bundle(root: Path, other: Path, rng: np.random.Generator) -> str:
    names = [name for name in files(root) if (root / name).read_bytes() != (other / name).read_bytes()]
    chosen = rng.choice(names, rng.integers(1, len(names)), replace=False)
    for name in chosen:
        replace(root / name, (other / name).read_bytes())
    return ", ".join(chosen)


def linked_elsewhere(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = some_file(root, rng)
    aside = root.parent / f"{root.name}-aside"
    shutil.move(root / name, aside)
    os.symlink(aside, root / name)
    return name


def directory_for_file(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = some_file(root, rng)
    (root / name).unlink()
    (root / name).mkdir()
    return name


def file_for_directory(root: Path, other: Path, rng: np.random.Generator) -> str:
    name = ["variables", "assets.extra", "assets.extra/retrieval"][rng.integers(3)]
    shutil.rmtree(root / name)
    (root / name).write_bytes(b"")
    return name


def edited_manifest(root: Path, other: Path, rng: np.random.Generator) -> str:
    """A changed value, renamed, removed or added key, in the canonical form; half of the time with a checksum that fits."""
    content = json.loads((root / MANIFEST).read_bytes())
    checksum = content.pop("checksum")
    what = change_json(content, rng)
    if rng.integers(2):
        checksum, what = hashlib.sha256(canonical(content)).hexdigest(), f"{what}, signed anew"
    replace(root / MANIFEST, canonical({**content, "checksum": checksum}))
    return what


def reformatted_manifest(root: Path, other: Path, rng: np.random.Generator) -> str:
    content = json.loads((root / MANIFEST).read_bytes())
    styles: list[Callable[[], str]] = [
        lambda: json.dumps(content),
        lambda: json.dumps(content, indent=2, sort_keys=True),  # without the newline at the end
        lambda: json.dumps(content, indent=2, sort_keys=True) + "\n\n",
        lambda: json.dumps(content, indent=2) + " \n",
        lambda: "\ufeff" + json.dumps(content, indent=2, sort_keys=True) + "\n",
        lambda: json.dumps(content, indent=2, sort_keys=True).replace("\n", "\r\n") + "\n",
    ]
    style = int(rng.integers(len(styles)))
    replace(root / MANIFEST, styles[style]().encode())
    return f"style {style}"


KINDS = [
    flipped_bits,
    flipped_bits,
    truncated,
    truncated,
    lengthened,
    zeroed,
    deleted,
    deleted_directory,
    added,
    swapped,
    swapped,
    of_another_bundle,
    linked_elsewhere,
    directory_for_file,
    file_for_directory,
    edited_manifest,
    edited_manifest,
    edited_manifest,
    reformatted_manifest,
]


def canonical(content: object) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=2) + "\n").encode()


def change_json(content: dict, rng: np.random.Generator) -> str:
    """Changes one thing somewhere in `content`."""
    path, inner = [], content
    while True:
        key = list(inner)[rng.integers(len(inner))]
        path.append(key)
        if not isinstance(inner[key], dict) or not inner[key] or rng.random() < 0.15:
            break
        inner = inner[key]
    value, way = inner[key], rng.integers(4)
    if way == 0:
        del inner[key]
        return f"without {'.'.join(path)}"
    if way == 1:
        inner[f"{key}_"] = inner.pop(key)
        return f"renamed {'.'.join(path)}"
    if isinstance(value, bool):
        inner[key] = not value
    elif isinstance(value, (int, float)):
        inner[key] = [value + 1, -value - 1, value * 2 + 1, 0.5 + value, str(value)][rng.integers(5)]
    elif isinstance(value, str):
        inner[key] = [value + "x", value[:-1], value[::-1] + "!", None][rng.integers(4)]
    elif isinstance(value, list):
        inner[key] = [*value, 1]
    else:
        # What is null already is not damaged by null.
        inner[key] = [[] if value is None else None, [], {"x": 1}, 3][rng.integers(4)]
    return f"changed {'.'.join(path)}"
