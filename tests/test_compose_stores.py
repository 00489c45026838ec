"""The variable STORE replaces the object store of compose.yaml, and nothing else."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.compose_file import FILE, ROOT, STORES, environment_of, load, write_env

START_SEAWEEDFS = ROOT / "compose/seaweedfs/start.sh"
DOCKER_COMPOSE = shutil.which("docker-compose")
PROJECTS = {store: load(store) for store in STORES}


@pytest.fixture(scope="module")
def dotenv(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the variables that `make compose` writes into `.env`."""
    return write_env(tmp_path_factory.mktemp("compose") / ".env")


@pytest.mark.skipif(DOCKER_COMPOSE is None, reason="no docker-compose of version 2 on PATH")
@pytest.mark.parametrize("store", [*STORES, None])
def test_docker_compose_loads_the_project(
    store: str | None, tmp_path: Path, dotenv: Mapping[str, str]
) -> None:
    """Docker Compose itself merges the files; that needs no engine."""
    file = tmp_path / ".env"
    chosen = {} if store is None else {"STORE": store}
    file.write_text("".join(f"{name}={text}\n" for name, text in {**dotenv, **chosen}.items()))
    printed = subprocess.run(
        [
            *(str(DOCKER_COMPOSE), "--project-directory", str(ROOT), "--env-file", str(file)),
            *("--file", str(FILE), "config", "--format", "json"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = json.loads(printed.stdout)
    expected = PROJECTS[store or "minio"]
    for section in ("services", "networks", "volumes", "secrets"):
        assert loaded[section].keys() - {"default"} == expected[section].keys()
    for name, service in expected["services"].items():
        environment = environment_of(service, {**dotenv, **chosen})
        assert loaded["services"][name].get("environment", {}) == environment
    bind = [m["source"] for m in loaded["services"]["prometheus"]["volumes"] if m["type"] == "bind"]
    assert bind == [str(ROOT / "monitoring/prometheus")]


@pytest.mark.parametrize("project", PROJECTS.values(), ids=STORES)
def test_other_services_are_the_same_for_each_store(
    project: Mapping[str, Any],
) -> None:
    chosen = {"store", "store-setup"}
    by_default = PROJECTS["minio"]["services"]
    others = project["services"].keys() - chosen
    assert project["services"].keys() - others == chosen
    for name in others:
        assert project["services"][name] == by_default[name]
    (port,) = project["services"]["store"]["ports"]
    assert port == "127.0.0.1:${S3_PORT:-9000}:9000"
    in_network = {
        name
        for name, service in project["services"].items()
        if "store" in service.get("networks", [])
    }
    assert in_network == {*chosen, "api", "worker"}


def test_seaweedfs_has_the_keys_of_the_service_and_of_the_setup(dotenv: Mapping[str, str]) -> None:
    services = PROJECTS["seaweedfs"]["services"]
    store = environment_of(services["store"], dotenv)
    for name, prefix in (("api", "S3"), ("store-setup", "ROOT")):
        client = environment_of(services[name], dotenv)
        for key in ("ACCESS_KEY", "SECRET_KEY"):
            assert client[f"SEGMENTQL_S3_{key}"] == store[f"{prefix}_{key}"]
        assert client["SEGMENTQL_S3_BUCKET"] == store["S3_BUCKET"]
        assert client["SEGMENTQL_S3_ENDPOINT_URL"] == "http://store:9000"
    variables = set(re.findall(r"\$\{?([A-Z]\w+)", START_SEAWEEDFS.read_text())) - {"WEED"}
    exported = {name for name in variables if name.startswith("WEED_")}
    assert variables - exported == store.keys()
    assert "-s3.port=9000" in START_SEAWEEDFS.read_text()
    assert "127.0.0.1:9000" in str(services["store"]["healthcheck"]["test"])
