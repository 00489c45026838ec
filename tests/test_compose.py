"""compose.yaml is valid as far as that can be tested without Docker."""

import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from segmentql import cli
from segmentql.cli.serve import GRACE_SECONDS
from segmentql.local.postgres import OWNER_ROLE, SERVICE_ROLE
from segmentql.settings import PREFIX, Settings, child_environment
from segmentql.validators import key_token
from segmentql.worker import STOP_SECONDS
from tests.compose_file import (
    FILE,
    ROOT,
    STORES,
    VARIABLE,
    environment_of,
    files,
    interpolate,
    load,
    mounts_of,
    words_of,
    write_env,
)

IMAGE_ENTRY = ["segmentql"]
OUR_SERVICES = ("migrate", "first-key", "api", "worker")
PROJECTS = {store: load(store) for store in STORES}
SERVICES: Mapping[str, Any] = PROJECTS["minio"]["services"]
of_each_store = pytest.mark.parametrize("project", PROJECTS.values(), ids=STORES)


@pytest.fixture(scope="module")
def dotenv(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the variables that `make compose` writes into `.env`."""
    return write_env(tmp_path_factory.mktemp("compose") / ".env")


@pytest.mark.parametrize("store", STORES)
def test_files_conform_to_the_compose_schema(store: str) -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", *map(str, files(store))),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("store", STORES)
def test_every_variable_is_in_dotenv_or_has_a_default(
    store: str, dotenv: Mapping[str, str]
) -> None:
    text = "".join(file.read_text() for file in files(store))
    found = list(VARIABLE.finditer(text))
    assert len(found) == text.count("${")
    assert {item["name"] for item in found if item["rest"].startswith(":?")} == dotenv.keys()


def test_missing_dotenv_is_named_in_the_error() -> None:
    with pytest.raises(LookupError, match=r"^\w+ is not set; `make compose` writes it into \.env$"):
        interpolate(FILE.read_text(), {})


def test_dotenv_is_private_random_and_never_overwritten(
    tmp_path: Path, dotenv: Mapping[str, str]
) -> None:
    file = tmp_path / ".env"
    for _ in range(2):
        lines = write_env(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert lines.keys() == dotenv.keys()
    assert set(lines.values()).isdisjoint(dotenv.values())
    file.write_text("MINE=1\n")
    write_env(file)
    assert file.read_text() == "MINE=1\n"
    key_token(dotenv["FIRST_KEY"])


def test_dotenv_changes_no_setting_of_segmentql_up(dotenv: Mapping[str, str]) -> None:
    assert [name for name in dotenv if name.startswith(PREFIX)] == []


@pytest.mark.parametrize("service", [*OUR_SERVICES, "store-setup"])
def test_settings_of_our_services_are_valid(
    service: str, dotenv: Mapping[str, str], tmp_path: Path
) -> None:
    environment = environment_of(PROJECTS["seaweedfs"]["services"][service], dotenv)
    setting_names = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert environment.keys() <= setting_names
    loaded = subprocess.run(
        [
            *(sys.executable, "-c"),
            "from segmentql.settings import load_settings; load_settings(with_store=True)",
        ],
        env=child_environment(environment),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr


def test_urls_name_services_ports_and_roles(dotenv: Mapping[str, str]) -> None:
    migrate, api = (
        environment_of(SERVICES["migrate"], dotenv),
        environment_of(SERVICES["api"], dotenv),
    )
    database = "postgresql://{}:{}@postgres:5432/segmentql"
    owner_password, password = (
        dotenv[f"POSTGRES_{role}_PASSWORD"] for role in ("OWNER", "SERVICE")
    )
    assert migrate["SEGMENTQL_MIGRATION_DATABASE_URL"] == database.format(
        OWNER_ROLE, owner_password
    )
    assert api["SEGMENTQL_DATABASE_URL"] == database.format(SERVICE_ROLE, password)
    assert api["SEGMENTQL_REDIS_URL"] == f"redis://:{dotenv['REDIS_PASSWORD']}@redis:6379/0"
    assert api["SEGMENTQL_S3_ENDPOINT_URL"] == "http://store:9000"
    assert "SEGMENTQL_MIGRATION_DATABASE_URL" not in api
    assert "SEGMENTQL_FIRST_KEY" not in api
    roles = (ROOT / "compose/postgres/roles.sh").read_text()
    for role in (OWNER_ROLE, SERVICE_ROLE):
        assert f"CREATE ROLE {role} LOGIN" in roles
    variables = set(re.findall(r"\\getenv \w+ (\w+)", roles))
    assert variables <= environment_of(SERVICES["postgres"], dotenv).keys()
    set_up = environment_of(SERVICES["store-setup"], dotenv)
    assert {name: set_up[name] for name in set_up if name in api} == {
        name: api[name] for name in api if name in set_up
    }
    variables = set(re.findall(r"\$\{(\w+):\?\}", (ROOT / "minio/set-up.sh").read_text()))
    assert variables <= set_up.keys()


def _command(service: str) -> list[str]:
    return words_of(SERVICES[service].get("command", []))


@pytest.mark.parametrize("service", [*OUR_SERVICES, "store-setup"])
def test_commands_and_their_options_exist(service: str) -> None:
    command: click.Command = cli.main
    words = words_of(PROJECTS["seaweedfs"]["services"][service]["command"])
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words.pop(0)) or pytest.fail(service)
    command.make_parser(click.Context(command)).parse_args(words)


def test_image_is_built_by_the_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text()
    declared = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
    set_up = PROJECTS["seaweedfs"]["services"]["store-setup"]
    for service in (set_up, *(SERVICES[name] for name in OUR_SERVICES)):
        assert service["build"]["args"].keys() == declared
        assert (ROOT / service["build"]["context"] / "Dockerfile").exists()
        for key in ("build", "image"):
            assert service[key] == SERVICES["api"][key]
    assert f"ENTRYPOINT {str(IMAGE_ENTRY).replace(chr(39), chr(34))}" in text
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    paths = [path for line in copied for path in line.split()]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    let_in = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert set(paths) == let_in


def test_image_gets_node_from_the_lock_file() -> None:
    (wheel,) = re.findall(
        r'^NODE_WHEEL = "(.+)"$', (ROOT / "web/build.py").read_text(), re.MULTILINE
    )
    assert f"\n{wheel} \\\n    --hash=sha256:" in (ROOT / "requirements-build.lock").read_text()


@of_each_store
def test_volumes_are_declared_and_paths_exist(project: Mapping[str, Any]) -> None:
    sources = {source for _, source, _ in mounts_of(project["services"])}
    paths = {source for source in sources if source.startswith(".")}
    assert sources - paths == project["volumes"].keys()
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_paths_in_commands_are_mounted() -> None:
    prometheus = next(word for word in _command("prometheus") if "config.file" in word)
    file = prometheus.partition("=")[2]
    source = next(
        s for name, s, t in mounts_of(SERVICES) if name == "prometheus" and file.startswith(t)
    )
    assert (ROOT / source / Path(file).name).exists()
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    dashboards = next(
        s for _, s, t in mounts_of(SERVICES) if home.startswith(f"{t}/") and "grafana" in t
    )
    assert (ROOT / dashboards / Path(home).name).exists()
    for store, service in (("minio", "store-setup"), ("seaweedfs", "store")):
        services = PROJECTS[store]["services"]
        folder, name = services[service]["entrypoint"][1].strip("/").split("/")
        (source,) = (s for n, s, t in mounts_of(services) if (n, t) == (service, f"/{folder}"))
        assert (ROOT / source / name).exists()


def test_ports_are_distinct_and_bound_to_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    outside = [interpolate(port, {}).split(":")[1] for port in ports]
    assert len(set(outside)) == len(outside) == 4


@of_each_store
def test_services_have_limits_restarts_and_health_checks(project: Mapping[str, Any]) -> None:
    for name, service in project["services"].items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["restart"] in {"unless-stopped", "on-failure:5"}, name
        assert service["healthcheck"], name
        assert "no-new-privileges:true" in service.get("security_opt", []) or name == "postgres"
    for name in OUR_SERVICES:
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert int(SERVICES["worker"]["stop_grace_period"].rstrip("s")) > STOP_SECONDS
    assert int(SERVICES["api"]["stop_grace_period"].rstrip("s")) > GRACE_SECONDS


@of_each_store
def test_dependencies_exist_and_fit_their_condition(project: Mapping[str, Any]) -> None:
    depended_on: set[str] = set()
    for name, service in project["services"].items():
        for dependency, how in service.get("depends_on", {}).items():
            depended_on.add(dependency)
            awaited = project["services"][dependency]
            ends = awaited["restart"] == "on-failure:5"
            expected = "service_completed_successfully" if ends else "service_healthy"
            assert how["condition"] == expected, (name, dependency)
            assert ends or "test" in awaited["healthcheck"], (name, dependency)
    # `up --wait` accepts the exit of a container only if another service waits for its completion.
    commands = {n for n, s in project["services"].items() if s["restart"] == "on-failure:5"}
    assert commands <= depended_on


def test_health_checks_use_the_served_ports(dotenv: Mapping[str, str]) -> None:
    api, worker = SERVICES["api"], SERVICES["worker"]
    assert "127.0.0.1:8080/readyz" in str(api["healthcheck"]["test"])
    assert _command("api")[_command("api").index("--port") + 1] == "8080"
    port = environment_of(SERVICES["worker"], dotenv)["SEGMENTQL_WORKER_PORT"]
    assert f"127.0.0.1:{port}/healthz" in str(worker["healthcheck"]["test"])
    scraped = (ROOT / "monitoring/prometheus/prometheus.yml").read_text()
    for target in ("api:8080", f"worker:{port}"):
        assert target in scraped
    for secret in PROJECTS["minio"]["secrets"]:
        assert f"/run/secrets/{secret}" in scraped
    assert {item["environment"] for item in PROJECTS["minio"]["secrets"].values()} <= dotenv.keys()
