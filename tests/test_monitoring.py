"""Alerts and dashboards read existing metrics and labels."""

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from segmentql import metrics
from tests.promql import reads

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "monitoring"
ALERTS = yaml.safe_load((MONITORING / "prometheus/alerts.yml").read_text())
RULES: list[Mapping[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
BY_PROMETHEUS = {"up": {"job", "instance"}}
OF_EVERY_SERIES = {"job", "instance"}


def _labels() -> dict[str, set[str]]:
    """Return the labels of every metric, by its exposed name."""
    labels_by_name = dict(BY_PROMETHEUS)
    for value in vars(metrics).values():
        if isinstance(value, metrics.ScrapedGauge):
            labels_by_name[value.name] = set(value.labels)
        elif isinstance(value, Counter | Gauge | Histogram):
            (described,) = value.describe()
            ending = "_total" if isinstance(value, Counter) else ""
            of_buckets = {"le"} if isinstance(value, Histogram) else set()
            labels_by_name[described.name + ending] = {*value._labelnames, *of_buckets}
    return labels_by_name


def _build() -> ModuleType:
    """Import the builder as its command does: its folder is on the path."""
    sys.path.insert(0, str(MONITORING / "grafana"))
    try:
        return importlib.import_module("build")
    finally:
        sys.path.pop(0)


BUILD = _build()


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for name, (_, panels) in BUILD.DASHBOARDS.items():
        for panel in panels:
            for query, _ in panel.queries:
                yield f"{name}: {panel.title}", query


@pytest.mark.parametrize(("source", "expression"), list(expressions()))
def test_metrics_and_labels_in_expressions_exist(source: str, expression: str) -> None:
    labels_by_metric = _labels()
    names, labels = reads(expression)
    assert names, source
    assert names <= labels_by_metric.keys()
    assert labels <= OF_EVERY_SERIES.union(*(labels_by_metric[name] for name in names))


def test_every_metric_is_in_a_dashboard() -> None:
    metrics_in_panels = {
        name
        for source, expression in expressions()
        if ":" in source
        for name in reads(expression)[0]
    }
    assert metrics_in_panels == _labels().keys() - BY_PROMETHEUS.keys()


@pytest.mark.parametrize("name", BUILD.DASHBOARDS)
def test_dashboard_file_matches_its_builder(name: str) -> None:
    text = (MONITORING / f"grafana/dashboards/{name}.json").read_text()
    assert text == BUILD.render(name), "run: python monitoring/grafana/build.py"
    dashboard = json.loads(text)
    ids = [panel["id"] for panel in dashboard["panels"]]
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert (len(set(ids)), len(set(titles))) == (len(ids), len(titles))


def test_every_dashboard_file_has_a_builder() -> None:
    there = {file.stem for file in (MONITORING / "grafana/dashboards").iterdir()}
    assert there == BUILD.DASHBOARDS.keys()
    assert len({title for title, _ in BUILD.DASHBOARDS.values()}) == len(there)


def test_dashboards_use_the_provisioned_data_source() -> None:
    file = MONITORING / "grafana/provisioning/datasources/prometheus.yml"
    (source,) = yaml.safe_load(file.read_text())["datasources"]
    assert {"type": source["type"], "uid": source["uid"]} == BUILD.SOURCE
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    service, port = source["url"].removeprefix("http://").split(":")
    assert str(compose[service]["ports"][0]).endswith(f":{port}")
    providers = MONITORING / "grafana/provisioning/dashboards/dashboards.yml"
    (provider,) = yaml.safe_load(providers.read_text())["providers"]
    mounted = [mount.split(":")[1] for mount in compose["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted


def test_every_alert_has_a_runbook_and_a_test() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    runbook = (MONITORING / "README.md").read_text()
    rows = re.findall(r'^\| <a id="(\w+)"></a>(\w+) \|', runbook, re.MULTILINE)
    assert rows == [(name.lower(), name) for name in names]
    for rule in RULES:
        assert rule["annotations"].keys() == {"summary", "runbook"}
        assert rule["annotations"]["runbook"] == f"monitoring/README.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
    cases = yaml.safe_load((MONITORING / "prometheus/alerts_test.yml").read_text())["tests"]
    tried = {
        (test["alertname"], bool(test["exp_alerts"]))
        for case in cases
        for test in case["alert_rule_test"]
    }
    assert tried == {(name, fires) for name in names for fires in (True, False)}
