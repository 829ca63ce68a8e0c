"""The alert rules: they can be read, every metric and label in them exists, and the runbook says what each means."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess

import pytest
import tfdml_serving.errors
from deploy_files import DEPLOY, KUBERNETES, kubernetes, of_kind, yaml_documents
from tfdml_serving.api.metrics import Metrics

promql_parser = pytest.importorskip("promql_parser")  # of the `dev` extra, which the TF 2.15 stack is set up without

PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
# tensorflow/serving, tensorflow_serving/servables/tensorflow/util.cc, as its Prometheus exporter writes them. Microseconds.
OF_TF_SERVING = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency_bucket": {"model_name", "API", "entrypoint", "le"},
}
ADDED_BY_PROMETHEUS = {"job", "instance", "namespace", "pod"}
ROUTES = ("/v1/search/image", "/v1/search/item", "/v1/search/embedding", "/v1/search/batch")


def rules() -> list[dict]:
    [document] = yaml_documents(DEPLOY / "prometheus" / "alerts.yaml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def selectors(expression: str) -> list:
    """The vector selectors of an expression; the parser fails for what Prometheus could not read."""
    found: list = []
    promql_parser.walk(
        promql_parser.parse(expression),
        lambda node: found.append(node) if isinstance(node, promql_parser.VectorSelector) else None,
        lambda node: None,
    )
    assert found, expression
    return found


def known_metrics() -> dict[str, set[str]]:
    """What can be scraped: the name of each series, and its labels."""
    metrics = Metrics()
    metrics.answered("/v1/search/image", "POST", 200, 0.01)
    metrics.refused("overloaded")
    found: dict[str, set[str]] = {**OF_TF_SERVING, "up": set()}
    for name, labels in re.findall(r"^([a-z_]+)(?:\{(.*)\})? ", metrics.text().decode(), re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    assert "tfdml_request_seconds_bucket" in found
    return found


def test_every_metric_and_label_exists():
    known = known_metrics()
    recorded = {rule["record"]: {"job"} for rule in rules() if "record" in rule}
    for rule in rules():
        for selector in selectors(rule["expr"]):
            labels = {**known, **recorded}.get(selector.name)
            assert labels is not None, f"{rule}: there is no metric {selector.name!r}"
            for matcher in selector.matchers.matchers:
                assert matcher.name in labels | ADDED_BY_PROMETHEUS, f"{rule}: {selector.name} has no label {matcher.name!r}"


def test_every_value_of_a_label_can_occur():
    kinds = {each.kind for _, each in inspect.getmembers(tfdml_serving.errors, inspect.isclass) if hasattr(each, "kind")}
    for rule in rules():
        for selector in selectors(rule["expr"]):
            for matcher in selector.matchers.matchers:
                value = matcher.value
                if matcher.name == "reason":
                    assert value in kinds, f"{rule['alert']}: nothing is refused for {value!r}"
                elif matcher.name == "match":
                    assert set(value.split("|")) <= {"true", "false", "unknown"}
                elif matcher.name == "route":
                    assert all(re.fullmatch(value, route) for route in ROUTES)
                    assert not re.fullmatch(value, "/readyz")
                elif matcher.name == "job":
                    assert value in ("retrieval", "tf-serving")
                else:
                    assert matcher.name == "status"


def test_the_runbook_says_what_each_alert_means():
    names = [rule["alert"] for rule in rules() if "alert" in rule]
    assert len(names) == len(set(names)) > 10
    runbook = (DEPLOY / "runbook.md").read_text(encoding="utf-8")
    told = re.findall(r"^### ((?:Retrieval|TFServing)\w+)$", runbook, re.MULTILINE)
    assert told == names
    for name in names:
        text = runbook.partition(f"### {name}\n")[2].partition("\n#")[0]
        assert "**Means**" in text, name
        assert "**Do**" in text, name


def test_every_alert_is_tried_out():
    [tried] = yaml_documents(DEPLOY / "prometheus" / "alerts_test.yaml")
    names = {rule["alert"] for rule in rules() if "alert" in rule}
    fires, is_quiet = set(), set()
    for test in tried["tests"]:
        for one in test["alert_rule_test"]:
            (fires if one.get("exp_alerts") else is_quiet).add(one["alertname"])
    assert fires == is_quiet == names


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on the PATH, and PROMTOOL does not name it")
@pytest.mark.parametrize("command", [["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yaml"]])
def test_promtool_agrees(command):
    result = subprocess.run([PROMTOOL, *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes():
    [values] = yaml_documents(KUBERNETES / "prometheus-adapter.yaml")
    [rule] = values["rules"]["custom"]
    metrics = of_kind(kubernetes(), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert {metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods"} == {rule["name"]["as"]}
    assert "Resource" in {metric["type"] for metric in metrics}  # where there is no adapter
    query = rule["metricsQuery"]
    series = rule["seriesQuery"].partition("{")[0]
    fills = {"<<.GroupBy>>": "pod", "<<.LabelMatchers>>": 'namespace="shop"', "<<.Series>>": series}
    for name, value in fills.items():
        assert name in query
        query = query.replace(name, value)
    for expression in (query, rule["seriesQuery"]):
        for selector in selectors(expression):
            assert selector.name in known_metrics()


def test_the_commands_of_the_runbook_exist_with_their_options():
    import typer.main

    from tfdml.cli import app

    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_command(app).commands.items()
    }
    named = re.findall(r"\btfdml ([a-z]+)((?: +[^\n`#]*)?)", (DEPLOY / "runbook.md").read_text(encoding="utf-8"))
    named = [(name, rest) for name, rest in named if name in known or rest]
    assert {"export", "verify", "versions", "rollback", "compact", "key"} <= {name for name, _ in named}
    for name, rest in named:
        assert name in known, f"there is no `tfdml {name}`"
        assert set(re.findall(r"--[a-z-]+", rest)) <= known[name], f"tfdml {name}{rest}"
