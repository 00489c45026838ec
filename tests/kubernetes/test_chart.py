"""The objects that helm renders from the chart are valid and consistent."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from helm import install_tools
from segmentql import cli
from segmentql.cli.serve import GRACE_SECONDS
from segmentql.worker import STOP_SECONDS
from tests.kubernetes.charts import (
    CHART,
    RELEASE,
    VALUES,
    container,
    environment,
    helm_versions,
    objects,
    one,
    pod,
    pods,
    render,
    run_helm,
    schema_errors,
)

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("values", sorted(VALUES))
COMPONENTS = ("api", "worker")
PAGE = (ROOT / "docs/operations/kubernetes.md").read_text()


@EVERY
def test_helm_lint_has_no_warning(values: str) -> None:
    done = run_helm("lint", "--strict", str(CHART), "--values", str(VALUES[values]))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@EVERY
@pytest.mark.parametrize("version", install_tools.VERSIONS)
def test_objects_conform_to_the_schemas_of_kubernetes(values: str, version: str) -> None:
    assert schema_errors(version, render(values)) == []


@pytest.mark.parametrize("version", install_tools.VERSIONS)
def test_schemas_reject_an_unknown_field_and_a_wrong_type(version: str) -> None:
    service = dict(one("default", "Service", RELEASE))
    monitor = dict(one("everything", "PodMonitor", "worker"))
    assert len(schema_errors(version, [{**service, "spec": {"portz": []}}])) == 1
    assert len(schema_errors(version, [{**service, "spec": {"ports": "80"}}])) == 1
    assert len(schema_errors(version, [{**monitor, "spec": {"selectorr": {}}}])) == 2


def test_chart_requires_the_oldest_tested_version_of_kubernetes() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={install_tools.VERSIONS[0]}.0-0"
    old = ("template", str(CHART), "--values", str(VALUES["default"]), "--kube-version", "1.29.0")
    assert "requires kubeVersion: >=1.30.0-0" in run_helm(*old).stderr


def test_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    [version] = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert chart["appVersion"] == version
    assert container("default", "api")["image"] == f"registry.example.com/segmentql:{version}"
    assert container("everything", "worker")["image"].endswith("/segmentql:1.2.3")
    assert "@sha256:" in container("minimal", "api")["image"]


@EVERY
def test_selectors_match_the_pods_of_one_component(values: str) -> None:
    labels = {component: template["metadata"]["labels"] for component, template in pods(values)}
    selecting = objects(
        values, "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"
    )
    for item in selecting:
        spec = item["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        wanted = selector.get("matchLabels", selector)
        matching = [name for name, found in labels.items() if wanted.items() <= found.items()]
        assert matching == [item["metadata"]["labels"]["app.kubernetes.io/component"]]
    service_labels = one(values, "Service", "")["metadata"]["labels"]
    for monitor in objects(values, "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service_labels.items()


@EVERY
def test_names_of_ports_volumes_and_other_objects_exist(values: str) -> None:
    names = {(item["kind"], item["metadata"]["name"]) for item in render(values)}
    assert len(names) == len(render(values))
    ports = {
        component: {port["name"] for port in container(values, component)["ports"]}
        for component in COMPONENTS
    }
    for component in COMPONENTS:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container(values, component):
                assert container(values, component)[probe]["httpGet"]["port"] in ports[component]
    service = one(values, "Service", "")
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports["api"]
    for item in objects(values, "NetworkPolicy"):
        component = item["metadata"]["labels"]["app.kubernetes.io/component"]
        assert item["spec"]["ingress"][0]["ports"] == [{"port": next(iter(ports[component]))}]
    for item in objects(values, "Ingress"):
        backend = item["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert ("Service", backend["name"]) in names
        assert backend["port"]["name"] == service["spec"]["ports"][0]["name"]
    for item in objects(values, "HorizontalPodAutoscaler"):
        assert ("Deployment", item["spec"]["scaleTargetRef"]["name"]) in names
    for _, template in pods(values):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        [only] = template["spec"]["containers"]
        assert {mount["name"] for mount in only["volumeMounts"]} == volumes


def test_jobs_run_in_order_and_before_the_account_of_the_chart_exists() -> None:
    order = {
        item["metadata"]["name"].removeprefix("segments-"): (annotations["helm.sh/hook"], weight)
        for item in objects("everything", "Job", "Pod")
        for annotations in [item["metadata"]["annotations"]]
        for weight in [int(annotations.get("helm.sh/hook-weight", 0))]
    }
    assert order == {
        "migrate": ("pre-install,pre-upgrade", 0),
        "first-key": ("pre-install,pre-upgrade", 10),
        "bucket": ("post-install,post-upgrade", 0),
        "doctor": ("test", 0),
    }
    account = one("everything", "ServiceAccount", "")["metadata"]["name"]
    accounts = {name: template["spec"] for name, template in pods("everything")}
    for name, spec in accounts.items():
        is_early = name in {"migrate", "first-key"}
        assert spec["serviceAccountName"] == ("migrations" if is_early else account)
    assert "serviceAccountName" not in pod("default", "migrate")["spec"]
    assert pod("minimal", "api")["spec"]["serviceAccountName"] == "default"
    assert {name for name, _ in pods("default")} == {"api", "worker", "migrate", "doctor"}
    assert {name for name, _ in pods("minimal")} == {"api", "worker", "doctor"}


@EVERY
def test_commands_and_their_options_exist(values: str) -> None:
    for component, _ in pods(values):
        command: click.Command | None = cli.main
        words = list(container(values, component)["args"])
        assert all(isinstance(word, str) for word in words)
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
        assert command
        command.make_parser(click.Context(command)).parse_args(words)


@EVERY
def test_pods_satisfy_the_restricted_pod_security_standard(values: str) -> None:
    for component, template in pods(values):
        spec, [only] = template["spec"], template["spec"]["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(spec)
        kinds = {kind for volume in spec["volumes"] for kind in volume} - {"name"}
        assert kinds <= {"emptyDir", "secret"}
        assert {"name": "tmp", "mountPath": "/tmp"} in only["volumeMounts"]  # noqa: S108
        assert spec["automountServiceAccountToken"] is False
        assert only["resources"]["limits"]["memory"], component


@EVERY
def test_grace_periods_are_longer_than_the_stop_of_the_processes(values: str) -> None:
    variables = {item["name"]: item.get("value") for item in container(values, "api")["env"]}
    drain_seconds = int(variables["SEGMENTQL_DRAIN_SECONDS"])
    assert drain_seconds == {"default": 5, "minimal": 0, "everything": 10}[values]
    grace_seconds = pod(values, "api")["spec"]["terminationGracePeriodSeconds"]
    assert grace_seconds > drain_seconds + GRACE_SECONDS
    assert pod(values, "worker")["spec"]["terminationGracePeriodSeconds"] > STOP_SECONDS


def test_update_starts_a_pod_before_it_stops_another() -> None:
    for component in COMPONENTS:
        strategy = one("default", "Deployment", component)["spec"]["strategy"]
        assert strategy == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert one("default", "Deployment", "api")["spec"]["replicas"] == 2
    assert "replicas" not in one("everything", "Deployment", "api")["spec"]


def test_monitors_have_the_job_names_and_the_token_of_the_alerts() -> None:
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    token = environment("everything", "api")["SEGMENTQL_METRICS_TOKEN"]
    names = []
    for kind, field in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
        [endpoint] = one("everything", kind, "")["spec"][field]
        names.append(endpoint["relabelings"][0]["replacement"])
        credentials = endpoint["authorization"]["credentials"]
        assert (credentials["name"], credentials["key"]) == token
    assert names == [job["job_name"] for job in config["scrape_configs"]]


def test_network_policies_without_peers_close_the_workers_only() -> None:
    policies = {
        item["metadata"]["labels"]["app.kubernetes.io/component"]: item["spec"]
        for item in render("default", "networkPolicy.enabled=true")
        if item["kind"] == "NetworkPolicy"
    }
    assert policies["api"]["ingress"] == [{"ports": [{"port": "http"}]}]
    assert policies["worker"]["ingress"] == []
    assert policies["worker"]["policyTypes"] == ["Ingress"]
    with_peers = one("everything", "NetworkPolicy", "worker")["spec"]
    assert len(with_peers["ingress"][0]["from"]) == len(with_peers["egress"]) == 1
    assert with_peers["policyTypes"] == ["Ingress", "Egress"]


def _documented(pattern: str) -> list[Any]:
    return re.findall(pattern, PAGE.replace("\\\n", ""))


def test_documented_commands_create_the_default_secrets() -> None:
    created = {
        (name, key)
        for name, rest in _documented(r"kubectl create secret generic (\S+)(.*)")
        for word in shlex.split(rest)
        for key in re.findall(r"^--from-(?:literal|file)=([\w-]+)=", word)
    }
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    references = [
        *values["secretSettings"].values(),
        values["migration"]["ownerDatabaseUrl"],
        values["firstKey"]["secret"],
    ]
    assert created == {(item["name"], item["key"]) for item in references}


@EVERY
def test_helm_3_and_4_render_the_same_objects(values: str) -> None:
    programs = helm_versions()
    if len(programs) < 2:
        pytest.skip(f"only one major version of helm is installed: {', '.join(programs)}")
    first, second = (
        {(item["kind"], item["metadata"]["name"]): item for item in render(values, program=program)}
        for program in programs.values()
    )
    assert first == second
