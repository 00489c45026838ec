"""PostgreSQL on this machine: made on the first start, with passwords, on 127.0.0.1 only."""

import contextlib
import shutil
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import asyncpg

from segmentql.errors import LocalServerError
from segmentql.local.binaries import postgres_programs
from segmentql.local.data_dir import DataFolder, write_private
from segmentql.local.orphans import ON_LINUX
from segmentql.local.process import ChildProcess, Program

SUPERUSER = "postgres"
OWNER = "segmentql_owner"
SERVICE = "segmentql_service"
DATABASE = "segmentql"

CONNECT_SECONDS = 5

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}

# Not the machine's locale and libraries: the same order of texts everywhere.
INITDB_OPTIONS = (
    f"--username={SUPERUSER}",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)


def postgres(folder: DataFolder, port: int, settings: Mapping[str, str] | None = None) -> Program:
    """PostgreSQL in `folder`; `settings` are added to ours and win over them.

    Raises:
        LocalServerError: there is no PostgreSQL to run, or the folder cannot be used.
    """
    programs = postgres_programs(folder.account)
    home = folder.server_folder("postgres")
    data = home / "data"
    url = postgres_url(folder, SUPERUSER, port, database=SUPERUSER)
    options = {**SETTINGS, **(settings or {}), "port": str(port)}
    return Program(
        name="PostgreSQL",
        command=[
            str(programs / "postgres"),
            "-D",
            ".",  # its current folder: the path may have any character
            *(part for item in options.items() for part in ("-c", "=".join(item))),
        ],
        before_start=partial(_make_cluster, programs / "initdb", home, data, folder),
        ready=partial(_answers, url),
        after_ready=partial(_make_database, url, folder),
        ready_seconds=300,  # after a crash it reads its log first
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes everything, keeps no one waiting
        hurry_signal=signal.SIGQUIT,  # "immediate": as after a crash
        environment={"LC_ALL": "C"},
        account=folder.account,
        folder=data,
        log=folder.log("postgresql"),
        pid_file=folder.run / "postgresql.pid",
        address=f"127.0.0.1:{port}",
    )


def postgres_url(folder: DataFolder, role: str, port: int, *, database: str = DATABASE) -> str:
    """The address of a database for one of the three roles."""
    passwords = folder.secrets()
    password = {
        SUPERUSER: passwords.superuser,
        OWNER: passwords.owner,
        SERVICE: passwords.service,
    }[role]
    return f"postgresql://{role}:{password}@127.0.0.1:{port}/{database}"


async def _make_cluster(initdb: Path, home: Path, data: Path, folder: DataFolder) -> None:
    """Make PostgreSQL's data folder, whole or not at all."""
    if _has_cluster(data):
        return
    part, password = home / "data.part", home / "password"
    shutil.rmtree(part, ignore_errors=True)
    write_private(password, folder.secrets().superuser, folder.account)
    try:
        await ChildProcess(
            Program(
                name="initdb",
                command=[
                    str(initdb),
                    "-D",
                    part.name,
                    f"--pwfile={password.name}",
                    *INITDB_OPTIONS,
                ],
                environment={"LC_ALL": "C"},
                account=folder.account,
                folder=home,
                log=folder.log("initdb"),
                pid_file=folder.run / "initdb.pid",
            )
        ).run_to_end()
    finally:
        password.unlink()
    part.rename(data)


def _has_cluster(data: Path) -> bool:
    if not data.exists():
        return False
    if ON_LINUX:
        # It names the process of an earlier life. Another process may bear that number by now, and
        # PostgreSQL would refuse to start; that none of its own is alive was made sure of already.
        (data / "postmaster.pid").unlink(missing_ok=True)
    return True


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
    except asyncpg.InvalidPasswordError as error:
        raise LocalServerError(
            "PostgreSQL does not take the password in secrets.json: put back the file that "
            "belongs to this data folder"
        ) from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close(timeout=CONNECT_SECONDS)
    return True


async def _make_database(url: str, folder: DataFolder) -> None:
    """Make the roles and the database that are missing; a half-made set is completed."""
    try:
        await _make_roles_and_database(url, folder)
    except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise LocalServerError(f"PostgreSQL cannot make the database: {error}") from error


async def _make_roles_and_database(url: str, folder: DataFolder) -> None:
    passwords = folder.secrets()
    connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
    try:
        await connection.execute("SET log_min_error_statement = panic")  # passwords follow
        for role, password in ((OWNER, passwords.owner), (SERVICE, passwords.service)):
            with contextlib.suppress(asyncpg.DuplicateObjectError):
                await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        with contextlib.suppress(asyncpg.DuplicateDatabaseError):
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER} TEMPLATE template0")
    finally:
        await connection.close(timeout=CONNECT_SECONDS)
