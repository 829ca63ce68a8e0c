"""What serving/deploy holds, read for the tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "serving" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
TF_SERVING = ROOT / "serving" / "tf_serving"


def yaml_documents(path: Path) -> list[dict]:
    import yaml

    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def interpolated(text: str) -> str:
    """As Compose fills in variables that are not set; one that must be set becomes /set."""
    return re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", lambda found: found[1] or "/set", text)


def compose(name: str = "compose.yaml") -> dict:
    import yaml

    return yaml.safe_load(interpolated((DEPLOY / name).read_text(encoding="utf-8")))


def kubernetes(folder: str = "base") -> list[dict]:
    """The objects of a kustomization's own files."""
    import yaml

    listed = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    return [object for name in listed if name.endswith(".yaml") for object in yaml_documents(KUBERNETES / folder / name)]


def of_kind(objects: list[dict], kind: str, name: str = "retrieval") -> dict:
    [found] = [object for object in objects if object["kind"] == kind and object["metadata"]["name"] == name]
    return found


def dockerfile() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, (word, rest), with lines joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: list[list[tuple[str, str]]] = [[]]
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest))
    return stages[1:]


def config_value(name: str, key: str) -> str:
    """A string in one of TF-Serving's text-format files."""
    found = re.search(rf'^\s*{key}: "([^"]*)"', (TF_SERVING / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{name} has no {key}"
    return found[1]
