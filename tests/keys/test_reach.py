"""`SEGMENTQL_AUTH=off` is allowed on loopback only, and `doctor` reports the keys."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from segmentql.adapters.database import Database
from segmentql.doctor import Finding, Verdict, examine
from segmentql.errors import SettingsError
from segmentql.local.ports import free_port
from segmentql.settings import Settings, require_loopback_without_auth
from tests.conftest import Sql, environment
from tests.keys.clients import make_key, revoke

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - must be rejected
LOOPBACK = ("127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST")
NOT_LOOPBACK = (
    ALL_INTERFACES,
    "::",
    "",
    "10.0.0.1",
    "192.168.1.2",
    "example.com",
    "localhost.example.com",
    "127.0.0.1.example.com",
    "::ffff:0.0.0.0",
    "128.0.0.1",
)


@pytest.mark.parametrize("host", LOOPBACK)
def test_auth_may_be_off_on_loopback(settings: Settings, host: str) -> None:
    require_loopback_without_auth(settings.model_copy(update={"host": host}))


@pytest.mark.parametrize("host", NOT_LOOPBACK)
def test_auth_may_not_be_off_on_other_addresses(
    settings: Settings, auth_settings: Settings, host: str
) -> None:
    require_loopback_without_auth(auth_settings.model_copy(update={"host": host}))
    with pytest.raises(SettingsError) as raised:
        require_loopback_without_auth(settings.model_copy(update={"host": host}))
    (problem,) = raised.value.problems
    assert "SEGMENTQL_AUTH=required" in problem
    assert "segmentql keys create" in problem
    assert "127.0.0.1" in problem


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield an empty folder that the servers' account can enter."""
    with tempfile.TemporaryDirectory(prefix="segmentql-tests-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("command", "host"),
    [
        (("serve", "--host", ALL_INTERFACES), "127.0.0.1"),
        (("serve",), ALL_INTERFACES),
        (("serve", "--workers", "2"), "::"),
        (("up",), ALL_INTERFACES),
    ],
)
@pytest.mark.slow
async def test_command_refuses_an_open_address_without_auth(
    settings: Settings, folder: Path, command: tuple[str, ...], host: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", *command, "--port", str(free_port())),
        cwd=folder,
        env=environment(settings, SEGMENTQL_HOST=host),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    assert errors.decode().startswith("Error: SEGMENTQL_AUTH is off")
    assert "set SEGMENTQL_AUTH=required" in errors.decode().replace("Set", "set")


def test_auth_is_required_by_default(settings: Settings) -> None:
    assert Settings.model_fields["auth"].default == "required"
    with pytest.raises(ValidationError):
        Settings(_env_file=None, auth="no", **_required_settings(settings))


@pytest.mark.parametrize(
    "token", ["short", "with spaces in between", "line\nbreak-in-it-all", "ü" * 20]
)
def test_metrics_token_must_fit_in_a_header(settings: Settings, token: str) -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None, metrics_token=token, **_required_settings(settings))


def _required_settings(settings: Settings) -> dict[str, Any]:
    return {"database_url": settings.database_url, "redis_url": settings.redis_url}


async def doctor_on_keys(settings: Settings) -> Finding:
    findings = {finding.check: finding async for finding in examine(settings)}
    return findings["API keys"]


async def test_doctor_counts_admin_keys(
    settings: Settings, auth_settings: Settings, database: Database, sql: Sql
) -> None:
    assert await doctor_on_keys(settings) == Finding(
        "API keys", Verdict.OK, "off; 0 with the role ADMIN"
    )
    no_admin = Finding(
        "API keys",
        Verdict.WARNING,
        "required; 0 with the role ADMIN",
        "run `segmentql keys create --role ADMIN --name NAME`",
    )
    assert await doctor_on_keys(auth_settings) == no_admin
    await make_key(database, "EDITOR")
    revoked = await make_key(database, "ADMIN")
    await revoke(database, revoked)
    assert await doctor_on_keys(auth_settings) == no_admin
    await make_key(database, "ADMIN")
    one_admin = Finding("API keys", Verdict.OK, "required; 1 with the role ADMIN")
    assert await doctor_on_keys(auth_settings) == one_admin
