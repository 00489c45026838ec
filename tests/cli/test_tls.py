"""Commands and the service connect to the database over TLS with a client certificate."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import Unavailable
from segmentql.settings import Settings, child_environment
from tests.conftest import PATIENCE_SECONDS
from tests.tls import TlsPostgres, tls_postgres

# A separate PostgreSQL takes two seconds to start, and each command one second.
pytestmark = pytest.mark.slow

AWAY = {
    "SEGMENTQL_REDIS_URL": "redis://127.0.0.1:1/0",
    "SEGMENTQL_S3_ENDPOINT_URL": "http://127.0.0.1:1",
    "SEGMENTQL_S3_ACCESS_KEY": "key",
    "SEGMENTQL_S3_SECRET_KEY": "secret",
}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[TlsPostgres]:
    async with tls_postgres() as running:
        yield running


async def run(folder: Path, command: str, service_url: str, owner_url: str) -> tuple[int, str]:
    """Run a command; return its exit code and output."""
    urls = {
        "SEGMENTQL_DATABASE_URL": service_url,
        "SEGMENTQL_MIGRATION_DATABASE_URL": owner_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", *command.split()),
        cwd=folder,
        env=child_environment({**AWAY, **urls}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    except TimeoutError:  # `serve` started, although it must not
        process.kill()
        await process.wait()
        raise
    written = output.decode()
    assert "Traceback" not in written
    assert process.returncode is not None
    return process.returncode, written


async def test_commands_connect_with_verified_certificates(
    server: TlsPostgres, tmp_path: Path
) -> None:
    verified = {"sslmode": "verify-full", "sslrootcert": server.file("ca.crt")}
    extra_parameters = {
        "channel_binding": "prefer",
        "connect_timeout": "10",
        "application_name": "shop",
    }
    urls = (
        server.service_url(**verified, **extra_parameters),
        server.url(server.owner_login, **verified),
    )
    address = f"localhost:{server.port}/segmentql"
    _, output = await run(tmp_path, "doctor", *urls)
    assert f"ok       database: {address}\n" in output
    assert f"ok       owner's database: {address}\n" in output
    _, output = await run(tmp_path, "serve", *urls)
    assert "the database is at no revision, because it was never migrated" in output
    code, output = await run(tmp_path, "migrate --to 0001", *urls)
    assert (code, "Running upgrade  -> 0001" in output) == (0, True)


@pytest.mark.parametrize("command", ["doctor", "migrate", "serve", "worker"])
async def test_untrusted_certificate_is_one_line_with_the_reason(
    server: TlsPostgres, tmp_path: Path, command: str
) -> None:
    other_authority = {"sslmode": "verify-full", "sslrootcert": server.file("other-ca.crt")}
    urls = server.service_url(**other_authority), server.url(server.owner_login, **other_authority)
    code, output = await run(tmp_path, command, *urls)
    assert code == 1
    reason = (
        f"localhost:{server.port}/segmentql: the server's certificate is not trusted:"
        " self-signed certificate in certificate chain\n"
    )
    if command == "doctor":
        assert f"failed   database: {reason}" in output
        assert f"failed   owner's database: {reason}" in output
    else:
        assert output.endswith(f"Error: cannot connect to {reason}")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"sslmode": "disable"}, 'no pg_hba.conf entry for host "127.0.0.1", user '),
        ({"sslmode": "require"}, "connection requires a valid client certificate"),
    ],
)
async def test_service_does_not_start_if_the_server_rejects_it(
    server: TlsPostgres, tmp_path: Path, parameters: dict[str, str], reason: str
) -> None:
    url = server.url(server.service_login, **parameters)
    code, output = await run(tmp_path, "serve", url, "")
    assert code == 1
    assert f"Error: cannot connect to localhost:{server.port}/segmentql: {reason}" in output
    assert server.service_login.partition(":")[2] not in output


async def connection(session: ReadSession) -> tuple[bool, str]:
    row = await session.execute(
        text(
            "SELECT ssl, current_setting('application_name') FROM pg_stat_ssl"
            " WHERE pid = pg_backend_pid()"
        )
    )
    return tuple(row.one())


@pytest.mark.parametrize(
    ("host", "parameters", "expected"),
    [
        ("localhost", {"sslmode": "verify-full", "application_name": "shop"}, (True, "shop")),
        ("127.0.0.1", {"sslmode": "verify-full"}, None),  # the certificate is for localhost
        ("127.0.0.1", {"sslmode": "verify-ca"}, (True, "tests")),
        ("127.0.0.1", {"sslmode": "prefer"}, (True, "tests")),
        ("127.0.0.1", {}, (True, "tests")),
        ("127.0.0.1:1,127.0.0.1", {"sslmode": "require"}, (True, "tests")),
        ("127.0.0.1", {"target_session_attrs": "read-write"}, (True, "tests")),
        ("127.0.0.1", {"target_session_attrs": "standby"}, None),
    ],
)
async def test_service_connects_like_libpq(
    server: TlsPostgres,
    host: str,
    parameters: dict[str, str],
    expected: tuple[bool, str] | None,
) -> None:
    root = {"sslrootcert": server.file("ca.crt")} if "verify" in str(parameters) else {}
    database = Database(
        Settings(
            _env_file=None,
            database_url=server.service_url(host, **parameters, **root),
            redis_url=AWAY["SEGMENTQL_REDIS_URL"],
        ),
        name="tests",
        publish=lambda _: None,
    )
    try:
        if expected is None:
            with pytest.raises(Unavailable):
                await database.read_one(connection)
        else:
            assert await database.read_one(connection) == expected
        assert await database.ping() == (expected is not None)
    finally:
        await database.dispose()
