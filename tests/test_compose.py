"""compose.yaml is valid as far as that can be tested without Docker."""

import asyncio
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import click
import pytest
import yaml
from sqlalchemy.engine import make_url

from segmentql import cli
from segmentql.cli.serve import GRACE_SECONDS
from segmentql.local import LocalServers, with_database
from segmentql.local.accounts import server_account
from segmentql.local.binaries import find_postgres_bin
from segmentql.local.postgres import OWNER_ROLE, SERVICE_ROLE
from segmentql.settings import PREFIX, Settings, child_environment
from segmentql.validators import key_token
from segmentql.worker import STOP_SECONDS

ROOT = Path(__file__).parents[1]
FILE = ROOT / "compose.yaml"
WRITE_ENV = ROOT / "compose" / "write_env.py"
IMAGE_ENTRY = ["segmentql"]
OUR_SERVICES = ("migrate", "first-key", "api", "worker")
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<rest>:[-?][^}]*)\}")
"""Compose's variables: `${NAME:-default}` or `${NAME:?message}`."""

COMPOSE: Mapping[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]


@pytest.fixture(scope="module")
def dotenv(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the variables that `make compose` writes into `.env`."""
    file = tmp_path_factory.mktemp("compose") / ".env"
    subprocess.run([sys.executable, str(WRITE_ENV), str(file)], check=True, capture_output=True)
    lines = file.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace variables as Compose does.

    Raises:
        LookupError: A variable without a default is not set.
    """

    def value(variables_found: re.Match[str]) -> str:
        name, rest = variables_found["name"], variables_found["rest"]
        if name in variables:
            return variables[name]
        if rest.startswith(":?"):
            raise LookupError(f"{name} {rest[2:]}")
        return rest.removeprefix(":-")

    return VARIABLE.sub(value, text).replace("$$", "$")


def environment_of(service: str, variables: Mapping[str, str]) -> dict[str, str]:
    environment = SERVICES[service]["environment"]
    return {name: interpolate(str(text), variables) for name, text in environment.items()}


def test_file_conforms_to_the_compose_schema() -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(FILE)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_every_variable_is_in_dotenv_or_has_a_default(dotenv: Mapping[str, str]) -> None:
    variables_found = list(VARIABLE.finditer(FILE.read_text()))
    assert len(variables_found) == FILE.read_text().count("${")
    needed = {item["name"] for item in variables_found if item["rest"].startswith(":?")}
    assert needed == dotenv.keys()


def test_missing_dotenv_is_named_in_the_error() -> None:
    with pytest.raises(LookupError, match=r"^\w+ is not set; `make compose` writes it into \.env$"):
        interpolate(FILE.read_text(), {})


def test_dotenv_is_private_random_and_never_overwritten(
    tmp_path: Path, dotenv: Mapping[str, str]
) -> None:
    file = tmp_path / ".env"
    for _ in range(2):
        subprocess.run([sys.executable, str(WRITE_ENV), str(file)], check=True, capture_output=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = dict(line.split("=", 1) for line in file.read_text().splitlines() if line[0] != "#")
    assert lines.keys() == dotenv.keys()
    assert set(lines.values()).isdisjoint(dotenv.values())
    file.write_text("MINE=1\n")
    subprocess.run([sys.executable, str(WRITE_ENV), str(file)], check=True, capture_output=True)
    assert file.read_text() == "MINE=1\n"
    key_token(dotenv["FIRST_KEY"])


def test_dotenv_changes_no_setting_of_segmentql_up(dotenv: Mapping[str, str]) -> None:
    assert [name for name in dotenv if name.startswith(PREFIX)] == []


@pytest.mark.parametrize("service", OUR_SERVICES)
def test_settings_of_our_services_are_valid(
    service: str, dotenv: Mapping[str, str], tmp_path: Path
) -> None:
    environment = environment_of(service, dotenv)
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
    migrate, api = environment_of("migrate", dotenv), environment_of("api", dotenv)
    database = "postgresql://{}:{}@postgres:5432/segmentql"
    owner_password, password = (
        dotenv[f"POSTGRES_{role}_PASSWORD"] for role in ("OWNER", "SERVICE")
    )
    assert migrate["SEGMENTQL_MIGRATION_DATABASE_URL"] == database.format(
        OWNER_ROLE, owner_password
    )
    assert api["SEGMENTQL_DATABASE_URL"] == database.format(SERVICE_ROLE, password)
    assert api["SEGMENTQL_REDIS_URL"] == f"redis://:{dotenv['REDIS_PASSWORD']}@redis:6379/0"
    assert api["SEGMENTQL_S3_ENDPOINT_URL"] == "http://minio:9000"
    assert "SEGMENTQL_MIGRATION_DATABASE_URL" not in api
    assert "SEGMENTQL_FIRST_KEY" not in api
    roles = (ROOT / "compose/postgres/roles.sh").read_text()
    for role in (OWNER_ROLE, SERVICE_ROLE):
        assert f"CREATE ROLE {role} LOGIN" in roles
    variables = set(re.findall(r"\\getenv \w+ (\w+)", roles))
    assert variables <= environment_of("postgres", dotenv).keys()
    set_up = environment_of("minio-setup", dotenv)
    assert {name: set_up[name] for name in set_up if name in api} == {
        name: api[name] for name in api if name in set_up
    }
    variables = set(re.findall(r"\$\{(\w+):\?\}", (ROOT / "minio/set-up.sh").read_text()))
    assert variables <= set_up.keys()


def _command(service: str) -> list[str]:
    command = SERVICES[service].get("command", [])
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


@pytest.mark.parametrize("service", OUR_SERVICES)
def test_commands_and_their_options_exist(service: str) -> None:
    command: click.Command = cli.main
    words = _command(service)
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words.pop(0)) or pytest.fail(service)
    command.make_parser(click.Context(command)).parse_args(words)


def test_image_is_built_by_the_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text()
    declared = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
    for service in OUR_SERVICES:
        assert SERVICES[service]["build"]["args"].keys() == declared
        assert (ROOT / SERVICES[service]["build"]["context"] / "Dockerfile").exists()
        assert SERVICES[service]["image"] == SERVICES["api"]["image"]
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


def _mounts() -> Iterator[tuple[str, str, str]]:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source, target = mount.split(":")[:2]
            yield name, source, target


def test_volumes_are_declared_and_paths_exist() -> None:
    with_database = {source for _, source, _ in _mounts() if not source.startswith(".")}
    assert with_database == COMPOSE["volumes"].keys()
    paths = [source for _, source, _ in _mounts() if source.startswith(".")]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_paths_in_commands_are_mounted() -> None:
    prometheus = next(word for word in _command("prometheus") if "config.file" in word)
    file = prometheus.partition("=")[2]
    source = next(s for name, s, t in _mounts() if name == "prometheus" and file.startswith(t))
    assert (ROOT / source / Path(file).name).exists()
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    dashboards = next(s for _, s, t in _mounts() if home.startswith(f"{t}/") and "grafana" in t)
    assert (ROOT / dashboards / Path(home).name).exists()
    script = SERVICES["minio-setup"]["entrypoint"][1]
    assert (ROOT / script.lstrip("/")).exists()


def test_ports_are_distinct_and_bound_to_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    outside = [interpolate(port, {}).split(":")[1] for port in ports]
    assert len(set(outside)) == len(outside) == 4


def test_services_have_limits_restarts_and_health_checks() -> None:
    for name, service in SERVICES.items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["restart"] in {"unless-stopped", "on-failure:5"}, name
        assert service["healthcheck"], name
        assert "no-new-privileges:true" in service.get("security_opt", []) or name == "postgres"
    for name in OUR_SERVICES:
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert int(SERVICES["worker"]["stop_grace_period"].rstrip("s")) > STOP_SECONDS
    assert int(SERVICES["api"]["stop_grace_period"].rstrip("s")) > GRACE_SECONDS


def test_dependencies_exist_and_fit_their_condition() -> None:
    for name, service in SERVICES.items():
        for dependency, how in service.get("depends_on", {}).items():
            awaited = SERVICES[dependency]
            ends = awaited["restart"] == "on-failure:5"
            expected = "service_completed_successfully" if ends else "service_healthy"
            assert how["condition"] == expected, (name, dependency)
            assert ends or "test" in awaited["healthcheck"], (name, dependency)


def test_health_checks_use_the_served_ports(dotenv: Mapping[str, str]) -> None:
    api, worker = SERVICES["api"], SERVICES["worker"]
    assert "127.0.0.1:8080/readyz" in str(api["healthcheck"]["test"])
    assert _command("api")[_command("api").index("--port") + 1] == "8080"
    port = environment_of("worker", dotenv)["SEGMENTQL_WORKER_PORT"]
    assert f"127.0.0.1:{port}/healthz" in str(worker["healthcheck"]["test"])
    scraped = (ROOT / "monitoring/prometheus/prometheus.yml").read_text()
    for target in ("api:8080", f"worker:{port}"):
        assert target in scraped
    for secret in COMPOSE["secrets"]:
        assert f"/run/secrets/{secret}" in scraped
    assert {item["environment"] for item in COMPOSE["secrets"].values()} <= dotenv.keys()


async def test_first_start_of_postgres_creates_roles_and_database(
    servers: LocalServers, tmp_path: Path
) -> None:
    """The script of an empty volume runs on a server that has roles of these names."""
    text = (ROOT / "compose/postgres/roles.sh").read_text()
    script = tmp_path / "roles.sh"
    script.write_text(text.replace("segmentql", "compose"))
    superuser = make_url(servers.superuser_url)
    programs = find_postgres_bin(server_account())
    passwords = {"owner": 'it\'s "owner"', "service": "a $service\\"}
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", str(script)],
        env=child_environment(
            {
                "PATH": f"{programs}:{os.environ['PATH']}",
                "POSTGRES_USER": str(superuser.username),
                **{f"POSTGRES_{role.upper()}_PASSWORD": value for role, value in passwords.items()},
                "PGHOST": str(superuser.host),
                "PGPORT": str(superuser.port),
                "PGPASSWORD": str(superuser.password),
            }
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    sql = await asyncpg.connect(with_database(servers.superuser_url, "postgres"))
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        for role, password in passwords.items():
            connection = await asyncpg.connect(
                host=superuser.host,
                port=superuser.port,
                user=f"compose_{role}",
                password=password,
                database="compose",
            )
            may_make = await connection.fetchval("SELECT has_schema_privilege('public', 'CREATE')")
            await connection.close()
            assert may_make is (role == "owner")
    finally:
        await sql.execute("DROP DATABASE IF EXISTS compose")
        await sql.execute("DROP ROLE IF EXISTS compose_owner, compose_service")
        await sql.close()
