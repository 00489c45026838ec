"""Renders the chart with helm, and checks objects against the schemas of Kubernetes."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from helm import install_tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "segmentql"
VALUES = {path.name.removesuffix("-values.yaml"): path for path in CHART.glob("ci/*-values.yaml")}
MONITORS = Path(__file__).with_name("monitors.json")
"""The schemas of the objects of the Prometheus operator, which Kubernetes does not have."""

RELEASE = "segmentql"
Object = Mapping[str, Any]


def helm_program() -> str:
    """Return the path of helm; skip the test if there is none."""
    found = str(install_tools.HELM) if install_tools.HELM.exists() else shutil.which("helm")
    if not found:
        pytest.skip("helm is not on PATH, and `make helm` has not downloaded it")
    return found


def helm_versions() -> Mapping[str, str]:
    """Return the programs that the tests found, by their major version."""
    programs = {helm_program(), shutil.which("helm") or helm_program()}
    return {
        run_helm("version", "--template", "{{.Version}}", program=program).stdout[:2]: program
        for program in programs
    }


def run_helm(*arguments: str, program: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program or helm_program(), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@cache
def render(values: str, *changes: str, program: str = "") -> tuple[Object, ...]:
    """Return the objects of the chart.

    Args:
        values: the name of a file of values, without `-values`.
        changes: other values, in the form of `--set`.
        program: the helm to use.
    """
    done = run_helm(*_template(values, changes), program=program)
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def rejection(*changes: str) -> str:
    """Return the error of helm for values that the chart rejects."""
    done = run_helm(*_template("default", changes))
    assert done.returncode == 1, done.stdout
    return done.stderr


def _template(values: str, changes: Sequence[str]) -> list[str]:
    """Return the arguments of helm. One from `go install` assumes Kubernetes 1.20."""
    version = ("--kube-version", f"{install_tools.VERSIONS[-1]}.0")
    arguments = [word for change in changes for word in ("--set", change)]
    return ["template", RELEASE, str(CHART), "--values", str(VALUES[values]), *version, *arguments]


def objects(values: str, *kinds: str) -> list[Object]:
    return [item for item in render(values) if item["kind"] in kinds]


def one(values: str, kind: str, name: str) -> Any:
    """Return the only object of a kind whose name ends with `name`."""
    [found] = [item for item in objects(values, kind) if item["metadata"]["name"].endswith(name)]
    return found


def pods(values: str, *changes: str) -> Iterator[tuple[str, Any]]:
    """Yield the component and the pod, or the template of the pods, of each object with pods."""
    for item in render(values, *changes):
        if item["kind"] in {"Deployment", "Job", "Pod"}:
            template = item if item["kind"] == "Pod" else item["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template


def pod(values: str, component: str, *changes: str) -> Any:
    return dict(pods(values, *changes))[component]


def container(values: str, component: str, *changes: str) -> Any:
    [only] = pod(values, component, *changes)["spec"]["containers"]
    return only


def environment(values: str, component: str, *changes: str) -> dict[str, str | tuple[str, str]]:
    """Return the variables of a component: a value, or the name and the key of a Secret."""
    variables = container(values, component, *changes)["env"]
    found: dict[str, str | tuple[str, str]] = {}
    for variable in variables:
        assert variable["name"] not in found
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = (reference["name"], reference["key"])
    return found


@cache
def _definitions(version: str) -> Any:
    file = install_tools.schema_file(version)
    if not file.exists():
        pytest.skip("`make helm` has not downloaded the schemas of Kubernetes")
    return json.loads(file.read_text())


def _closed(schema: Any) -> Any:
    """Return a schema in which objects have no other properties than those it names."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    is_object = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    return {"additionalProperties": False} | closed if is_object else closed


@cache
def _monitor_schema(kind: str) -> Any:
    schema = json.loads(MONITORS.read_text())["schemas"][kind]
    schema["properties"]["metadata"] = {}  # the schemas of custom resources leave it open
    return _closed(schema)


def _schema(version: str, item: Object) -> Any:
    group, _, api_version = item["apiVersion"].rpartition("/")
    if group == "monitoring.coreos.com":
        return _monitor_schema(item["kind"])
    wanted = {"group": group, "kind": item["kind"], "version": api_version}
    definitions = _definitions(version)
    for name, definition in definitions["$defs"].items():
        if wanted in definition.get("x-kubernetes-group-version-kind", ()):
            return {"$ref": f"#/$defs/{name}", "$defs": definitions["$defs"]}
    raise LookupError(f"Kubernetes {version} has no {wanted}")


def schema_errors(version: str, items: Sequence[Object]) -> list[str]:
    """Return what the schemas of a version of Kubernetes reject, by object and path."""
    return [
        f"{item['kind']} {item['metadata']['name']}: {error.json_path}: {error.message}"
        for item in items
        for error in jsonschema.Draft202012Validator(_schema(version, item)).iter_errors(item)
    ]
