"""A PostgreSQL that accepts TLS only, and the service role only with a client certificate."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from segmentql.local.accounts import server_account
from segmentql.local.data_dir import open_data_folder, write_private
from segmentql.local.ports import free_port
from segmentql.local.postgres import OWNER_ROLE, SERVICE_ROLE, SUPERUSER, postgres_url
from segmentql.local.process import ChildProcess
from segmentql.local.program import Program

FAST_NOT_SAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

TLS_RULES = f"""\
host    all postgres   127.0.0.1/32 scram-sha-256
hostssl all {SERVICE_ROLE}  127.0.0.1/32 scram-sha-256 clientcert=verify-full
hostssl all {OWNER_ROLE}    127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True)
class TlsPostgres:
    """A PostgreSQL with a certificate authority, an unrelated authority, and a client certificate.

    The server's certificate is valid for `localhost` and not for 127.0.0.1.
    """

    folder: Path
    port: int
    service_login: str
    owner_login: str

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def url(self, login: str, host: str = "localhost", **parameters: str) -> str:
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"postgresql://{login}@{host}:{self.port}/segmentql?{query}"

    def service_url(self, host: str = "localhost", **parameters: str) -> str:
        """Return the service's URL with its client certificate."""
        files = {"sslcert": self.file("client.crt"), "sslkey": self.file("client.key")}
        return self.url(self.service_login, host, **files, **parameters)


@asynccontextmanager
async def tls_postgres() -> AsyncIterator[TlsPostgres]:
    """Run the server until the exit; creating it takes about two seconds.

    The test is skipped if this machine has no PostgreSQL that was built with TLS.
    """
    programs()
    folder = Path(tempfile.mkdtemp(prefix="segmentql-tls-"))
    folder.chmod(0o755)
    try:
        make_certificates(folder)
        (folder / "hba.conf").write_text(TLS_RULES)
        async with _server(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder)


def make_certificates(folder: Path) -> None:
    """Write the certificates and keys of `ca`, `other-ca`, `server` and `client`.

    The server's certificate is valid for `localhost`, the client's for the service role.
    """
    _make_authority(folder, "ca")
    _make_authority(folder, "other-ca")
    _make_certificate(folder, "server", "localhost", "subjectAltName=DNS:localhost")
    _make_certificate(folder, "client", SERVICE_ROLE, "extendedKeyUsage=clientAuth")


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[TlsPostgres]:
    account = server_account()
    data = open_data_folder(folder / "run", account, lambda line: None)
    home = data.server_folder("postgres")
    for name in ("server.crt", "server.key", "ca.crt", "hba.conf"):
        write_private(home / name, (folder / name).read_text(), account)
    write_private(home / "password", data.secrets().superuser, account)
    program = partial(Program, environment={"LC_ALL": "C"}, account=account, working_folder=home)
    initdb = ("--pwfile", str(home / "password"), "--username=postgres", "--auth=scram-sha-256")
    await ChildProcess(
        program(
            name="initdb",
            command=[str(programs() / "initdb"), "-D", str(home / "data"), *initdb],
            log_file=data.log_file("initdb"),
            pid_file=data.run_folder / "initdb.pid",
        )
    ).run_to_completion()
    port = free_port()
    superuser = postgres_url(data, SUPERUSER, port, database="postgres")
    settings = {
        **FAST_NOT_SAFE,
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": str(home / "server.crt"),
        "ssl_key_file": str(home / "server.key"),
        "ssl_ca_file": str(home / "ca.crt"),
        "hba_file": str(home / "hba.conf"),
    }
    options = [word for item in settings.items() for word in ("-c", "=".join(item))]
    server = ChildProcess(
        program(
            name="PostgreSQL with TLS",
            command=[str(programs() / "postgres"), "-D", str(home / "data"), *options],
            is_ready=partial(_answers, superuser),
            stop_signal=signal.SIGINT,
            log_file=data.log_file("postgresql"),
            pid_file=data.run_folder / "postgresql.pid",
        )
    )
    try:
        await server.start()
        logins = {
            role: _login(postgres_url(data, role, port)) for role in (SERVICE_ROLE, OWNER_ROLE)
        }
        await _make_database(superuser, logins)
        yield TlsPostgres(folder, port, logins[SERVICE_ROLE], logins[OWNER_ROLE])
    finally:
        await server.stop()


def programs() -> Path:
    """Return the folder of a PostgreSQL built with TLS; the one from PyPI has none."""
    program_paths = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not program_paths:
        pytest.skip("no PostgreSQL with TLS in /usr/lib/postgresql: apt-get install postgresql")
    return program_paths[-1].parent


async def _answers(url: str) -> bool:
    try:
        await (await asyncpg.connect(url, ssl="disable", timeout=5)).close()
    except (OSError, asyncpg.PostgresError):
        return False
    return True


async def _make_database(superuser: str, logins: Mapping[str, str]) -> None:
    connection = await asyncpg.connect(superuser, ssl="disable")
    for role, login in logins.items():
        password = login.partition(":")[2]
        await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    await connection.execute(f"CREATE DATABASE segmentql OWNER {OWNER_ROLE}")
    await connection.close()


def _login(url: str) -> str:
    return url.removeprefix("postgresql://").partition("@")[0]


def _make_authority(folder: Path, name: str) -> None:
    _openssl(
        folder,
        *("req", "-x509", "-days", "2", "-subj", f"/CN={name}", "-out", f"{name}.crt"),
        *_new_key(name),
    )


def _make_certificate(folder: Path, name: str, common_name: str, extension: str) -> None:
    _openssl(
        folder,
        *("req", "-x509", "-days", "2", "-subj", f"/CN={common_name}", "-addext", extension),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-CA", "ca.crt", "-CAkey", "ca.key", "-out", f"{name}.crt"),
        *_new_key(name),
    )


def _new_key(name: str) -> tuple[str, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    return (*curve, "-nodes", "-keyout", f"{name}.key")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
