"""PostgreSQL on this machine: on 127.0.0.1 only, with passwords; the first start creates it."""

import contextlib
import shutil
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import asyncpg

from segmentql.errors import LocalServerError
from segmentql.local.binaries import find_postgres_bin
from segmentql.local.data_dir import DataFolder, write_private
from segmentql.local.orphans import ON_LINUX
from segmentql.local.process import ChildProcess
from segmentql.local.program import Program

SUPERUSER = "postgres"
OWNER_ROLE = "segmentql_owner"
SERVICE_ROLE = "segmentql_service"
DATABASE = "segmentql"

CONNECT_TIMEOUT_SECONDS = 5

DEFAULT_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}

# The built-in locale sorts text in the same order on every machine.
INITDB_OPTIONS = (
    f"--username={SUPERUSER}",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)


def postgres_program(
    data: DataFolder, port: int, settings: Mapping[str, str] | None = None
) -> Program:
    """Return the PostgreSQL server of a data folder.

    Args:
        data: The data folder.
        port: The port on 127.0.0.1.
        settings: PostgreSQL settings, which override `DEFAULT_SETTINGS`.

    Raises:
        LocalServerError: PostgreSQL is not installed, or its folder cannot be used.
    """
    bin_folder = find_postgres_bin(data.account)
    folder = data.server_folder("postgres")
    cluster = folder / "data"
    url = postgres_url(data, SUPERUSER, port, database=SUPERUSER)
    options = {**DEFAULT_SETTINGS, **(settings or {}), "port": str(port)}
    return Program(
        name="PostgreSQL",
        command=[
            str(bin_folder / "postgres"),
            "-D",
            ".",  # relative, because the path may contain any character
            *(word for item in options.items() for word in ("-c", "=".join(item))),
        ],
        before_start=partial(_create_cluster, bin_folder / "initdb", folder, cluster, data),
        is_ready=partial(_is_ready, url),
        after_ready=partial(_create_database, url, data),
        ready_timeout_seconds=300,  # crash recovery comes first
        stop_signal=signal.SIGINT,  # "fast" shutdown: it closes sessions and writes a checkpoint
        force_signal=signal.SIGQUIT,  # "immediate" shutdown: the next start recovers from the log
        environment={"LC_ALL": "C"},
        account=data.account,
        working_folder=cluster,
        log_file=data.log_file("postgresql"),
        pid_file=data.run_folder / "postgresql.pid",
        address=f"127.0.0.1:{port}",
    )


def postgres_url(data: DataFolder, role: str, port: int, *, database: str = DATABASE) -> str:
    """Return the URL of a database for one of the three roles."""
    secrets = data.secrets()
    password = {
        SUPERUSER: secrets.superuser,
        OWNER_ROLE: secrets.owner,
        SERVICE_ROLE: secrets.service,
    }[role]
    return f"postgresql://{role}:{password}@127.0.0.1:{port}/{database}"


async def _create_cluster(initdb: Path, folder: Path, cluster: Path, data: DataFolder) -> None:
    """Create the database cluster atomically if it does not exist."""
    if _has_cluster(cluster):
        return
    temporary, password_file = folder / "data.part", folder / "password"
    shutil.rmtree(temporary, ignore_errors=True)
    write_private(password_file, data.secrets().superuser, data.account)
    try:
        await ChildProcess(
            Program(
                name="initdb",
                command=[
                    str(initdb),
                    "-D",
                    temporary.name,
                    f"--pwfile={password_file.name}",
                    *INITDB_OPTIONS,
                ],
                environment={"LC_ALL": "C"},
                account=data.account,
                working_folder=folder,
                log_file=data.log_file("initdb"),
                pid_file=data.run_folder / "initdb.pid",
            )
        ).run_to_completion()
    finally:
        password_file.unlink()
    temporary.rename(cluster)


def _has_cluster(cluster: Path) -> bool:
    if not cluster.exists():
        return False
    if ON_LINUX:
        # The file has the process id of an earlier run. If another process has that id now,
        # PostgreSQL would refuse to start. Orphans of the earlier run were stopped before.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
    return True


async def _is_ready(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS)
    except asyncpg.InvalidPasswordError as error:
        raise LocalServerError(
            "PostgreSQL rejects the password in secrets.json: restore the secrets.json of this"
            " data folder"
        ) from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
    return True


async def _create_database(url: str, data: DataFolder) -> None:
    """Create the roles and the database that do not exist yet."""
    try:
        await _create_roles_and_database(url, data)
    except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise LocalServerError(f"cannot create the database in PostgreSQL: {error}") from error


async def _create_roles_and_database(url: str, data: DataFolder) -> None:
    secrets = data.secrets()
    connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS)
    try:
        # The next statements contain passwords, which must not get into the log.
        await connection.execute("SET log_min_error_statement = panic")
        for role, password in ((OWNER_ROLE, secrets.owner), (SERVICE_ROLE, secrets.service)):
            with contextlib.suppress(asyncpg.DuplicateObjectError):
                await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        with contextlib.suppress(asyncpg.DuplicateDatabaseError):
            await connection.execute(
                f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE} TEMPLATE template0"
            )
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
