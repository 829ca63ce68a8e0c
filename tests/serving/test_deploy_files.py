"""Dockerfile, compose files and Kubernetes manifests: fit for their tools, and in agreement with the service and each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deploy_files import (
    DEPLOY,
    KUBERNETES,
    ROOT,
    TF_SERVING,
    compose,
    config_value,
    dockerfile,
    interpolated,
    kubernetes,
    of_kind,
)
from misbehaving import Misbehaving, answers, cuts
from tfdml_serving.settings import Settings

import tfdml

# Their tools are in the `dev` extra, which the TF 2.15 stack is set up without.
kubernetes_validate = pytest.importorskip("kubernetes_validate")
compose_spec = pytest.importorskip("compose_spec")

ONLY_WRITABLE = {"writable", "living", "state", "api_keys"}
OVERLAY = ("service", "no-autoscaling", "no-disruption")


# ---- each file, as its tool reads it


def test_hadolint_finds_nothing_in_the_dockerfile():
    hadolint = shutil.which("hadolint") or Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, "--format", "json", DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert json.loads(found.stdout) == []


@pytest.mark.parametrize("name", ["compose.yaml", "compose.writable.yaml"])
def test_compose_files_are_such(name):
    options = compose_spec.PyOptions(apply_merge=True)
    options.from_yaml(interpolated((DEPLOY / name).read_text(encoding="utf-8"))).validate()


@pytest.mark.parametrize("version", ["1.29", "1.37"])  # the first with sidecars, and the newest that the checker knows
@pytest.mark.parametrize("folder", ["base", "writable"])
def test_kubernetes_objects_are_such(folder, version):
    objects = kubernetes(folder)
    assert objects
    for object in objects:
        kubernetes_validate.validate(object, version, strict=True)


def test_every_file_of_a_kustomization_is_listed_and_every_patch_has_its_object():
    for folder, patches in (("base", ()), ("writable", OVERLAY)):
        listed = read(KUBERNETES / folder / "kustomization.yaml")
        named = [name for name in listed["resources"] if name.endswith(".yaml")] + [
            p["path"] for p in listed.get("patches", ())
        ]
        assert sorted([*named, "kustomization.yaml"]) == sorted(path.name for path in (KUBERNETES / folder).iterdir())
        assert [patch["path"] for patch in listed.get("patches", ())] == [f"{name}.yaml" for name in patches]
    for name in OVERLAY:
        patch = read(KUBERNETES / "writable" / f"{name}.yaml")
        target = of_kind(kubernetes(), patch["kind"], patch["metadata"]["name"])
        assert patch["apiVersion"] == target["apiVersion"]
    [patched] = read(KUBERNETES / "writable" / "service.yaml")["spec"]["template"]["spec"]["containers"]
    assert patched["name"] == service()["name"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on the PATH")
@pytest.mark.parametrize("folder", ["base", "writable"])
def test_kustomize_builds_them(folder):
    built = subprocess.run(["kubectl", "kustomize", KUBERNETES / folder], capture_output=True, text=True, check=True).stdout
    assert ("HorizontalPodAutoscaler" in built) == (folder == "base")
    assert ("--writable" in built) == (folder == "writable")


# ---- agreement


def serve_commands() -> dict[str, list[str]]:
    """Every command line of the service that is written down somewhere, without `tfdml serve`."""
    instructions = dict(dockerfile()[-1])
    assert json.loads(instructions["ENTRYPOINT"]) == ["tfdml", "serve"]
    return {
        "Dockerfile": json.loads(instructions["CMD"]),
        "compose": compose()["services"]["service"]["command"],
        "compose, writable": compose("compose.writable.yaml")["services"]["service"]["command"],
        "kubernetes": service()["args"],
        "kubernetes, writable": service("writable")["args"],
    }


@pytest.mark.parametrize("where", ["Dockerfile", "compose", "compose, writable", "kubernetes", "kubernetes, writable"])
def test_the_service_understands_its_command_line(where):
    import typer.main

    from tfdml.cli import app

    command = typer.main.get_command(app).commands["serve"]
    given = serve_commands()[where]
    options, rest, _ = command.make_parser(__import__("click").Context(command)).parse_args(list(given))
    assert rest == []
    settings = {name: value for name, value in options.items() if name in Settings.__dataclass_fields__}
    assert str(options.get("path", options.get("bundle"))) == config_value("models.config", "base_path")
    assert settings["host"] == "0.0.0.0"
    assert settings["port"] == str(port()) == "8000"
    assert settings["tf_serving"].endswith(":8501")
    assert set(settings) & ONLY_WRITABLE == (ONLY_WRITABLE if "writable" in where else set())


def test_ports_paths_and_names_agree():
    instructions = dict(dockerfile()[-1])
    assert instructions["EXPOSE"] == str(port())
    assert f"127.0.0.1:{port()}/healthz" in instructions["HEALTHCHECK"]
    services = compose()["services"]
    assert services["service"]["ports"] == [f"127.0.0.1:8000:{port()}"]
    assert f"127.0.0.1:{port()}/readyz" in str(services["service"]["healthcheck"])
    pods = {container["name"]: container for container in (service(), sidecar())}
    assert [p["containerPort"] for p in pods["service"]["ports"]] == [port()]
    rest = {p["name"]: p["containerPort"] for p in pods["tf-serving"]["ports"]}["rest"]
    for command in serve_commands().values():
        assert any(argument.endswith(f":{rest}") for argument in command)
    model, base = config_value("models.config", "name"), config_value("models.config", "base_path")
    assert base == f"/models/{model}"  # what the service takes for the model's name is the name of its directory
    assert f"/v1/models/{model} " in str(services["tf-serving"]["healthcheck"])
    assert pods["tf-serving"]["startupProbe"]["httpGet"]["path"] == f"/v1/models/{model}/metadata"
    for volumes in (services["service"]["volumes"], services["tf-serving"]["volumes"]):
        assert "../../exports:/models:ro" in volumes
    for container in pods.values():
        assert {"name": "bundles", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]


def test_tf_serving_gets_its_files_everywhere():
    flags = [f"--{flag}=/config/{name}" for flag, name in CONFIG_FLAGS.items()]
    for command in (compose()["services"]["tf-serving"]["command"], sidecar()["args"]):
        assert sorted(command) == sorted([*flags, "--enable_batching"])
    assert "../tf_serving:/config:ro" in compose()["services"]["tf-serving"]["volumes"]
    files = {path.name: path.read_text(encoding="utf-8") for path in TF_SERVING.glob("*.config")}
    assert of_kind(kubernetes(), "ConfigMap", "tf-serving")["data"] == files


CONFIG_FLAGS = {
    "model_config_file": "models.config",
    "batching_parameters_file": "batching.config",
    "monitoring_config_file": "monitoring.config",
}


def test_metrics_are_looked_for_where_they_are():
    path = config_value("monitoring.config", "path")
    jobs = {job["job_name"]: job for job in read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]}
    assert jobs["tf-serving"]["metrics_path"] == path
    assert jobs["tf-serving"]["static_configs"] == [{"targets": ["tf-serving:8501"]}]
    assert jobs["retrieval"]["static_configs"] == [{"targets": [f"service:{port()}"]}]
    annotations = of_kind(kubernetes(), "Service", "retrieval-tf-serving")["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == path


def test_images_and_versions_agree():
    tag = compose()["services"]["tf-serving"]["image"]
    assert sidecar()["image"] == tag
    own = compose()["services"]["service"]["image"]
    assert own == f"{service()['image']}:{tfdml.__version__}"
    [image] = read(KUBERNETES / "base" / "kustomization.yaml")["images"]
    assert image == {"name": service()["image"], "newName": service()["image"], "newTag": tfdml.__version__}


def test_nobody_is_root_and_no_root_file_system_can_be_written():
    [user] = [rest for word, rest in dockerfile()[-1] if word == "USER"]
    pod = of_kind(kubernetes(), "Deployment")["spec"]["template"]["spec"]
    assert user == f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == "10001:10001"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in (service(), sidecar()):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]) == {"requests", "limits"}
    for name, one in compose()["services"].items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert one["deploy"]["resources"]["limits"], name
        assert not one["user"].startswith("0"), name


def test_the_service_is_given_the_time_that_it_takes_to_stop():
    takes = Settings("x").shutdown_seconds
    pod = of_kind(kubernetes(), "Deployment")["spec"]["template"]["spec"]
    before = int(service()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > before + takes
    assert int(compose()["services"]["service"]["stop_grace_period"].rstrip("s")) > takes


def test_the_living_catalogue_has_one_writer():
    spec = read(KUBERNETES / "writable" / "service.yaml")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    assert of_kind(kubernetes("writable"), "PersistentVolumeClaim", "living")["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_the_health_checks_of_the_containers_tell_health():
    """The commands themselves, against something that answers and something that does not."""
    commands = {
        8501: compose()["services"]["tf-serving"]["healthcheck"]["test"][1:],
        8000: compose()["services"]["service"]["healthcheck"]["test"][1:],
    }
    [image] = [rest for word, rest in dockerfile()[-1] if word == "HEALTHCHECK"]
    checks = [*commands.items(), (8000, json.loads(image.partition("CMD ")[2]))]
    # As TF-Serving answers.
    state = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    well, loading = ({"model_version_status": [{**state, "state": word}], "ready": True} for word in ("AVAILABLE", "LOADING"))
    for number, (default, command) in enumerate(checks):
        for answer, healthy in (
            (answers(200, well, Connection="close"), True),
            (answers(503 if default == 8000 else 200, loading), False),
            (cuts, False),
        ):
            with Misbehaving(lambda connection, answer=answer: answer(connection) and False) as server:
                there = server.url.rpartition(":")[2]
                run = [re.sub(rf"127\.0\.0\.1([:/]){default}", rf"127.0.0.1\g<1>{there}", argument) for argument in command]
                run[0] = sys.executable if run[0] == "python" else run[0]
                code = subprocess.run(run, capture_output=True, timeout=20, env={**os.environ, "LC_ALL": "C"}).returncode
            assert (code == 0) == healthy, (number, healthy)
    assert not any("curl" in str(command) for _, command in checks)


def test_what_the_dockerfile_copies_is_let_through_and_exists():
    copied = {
        path
        for stage in dockerfile()
        for word, rest in stage
        if word == "COPY" and "--from" not in rest
        for path in rest.split()[:-1]
    }
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    for path in copied:
        assert (ROOT / path).exists(), path


def port() -> int:
    return Settings("x").port


def service(folder: str = "base") -> dict:
    if folder != "base":
        return read(KUBERNETES / folder / "service.yaml")["spec"]["template"]["spec"]["containers"][0]
    [found] = of_kind(kubernetes(), "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def sidecar() -> dict:
    [found] = of_kind(kubernetes(), "Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert found["restartPolicy"] == "Always"
    return found


def read(path: Path) -> dict:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))
