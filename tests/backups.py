"""The scripts of docs/operations/backup, run as an operator does, and the state of a database."""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy.engine import make_url

from segmentql.local import LocalServers, with_database
from segmentql.local.binaries import find_postgres_bin
from segmentql.local.postgres import DATABASE, OWNER_ROLE, SERVICE_ROLE, SUPERUSER
from tests.conftest import Sql
from tests.databases import every_row
from tests.history.clusters import ACCOUNT, cluster_servers

PAGES: Final = Path(__file__).parents[1] / "docs" / "operations"
SCRIPTS: Final = PAGES / "backup"

NO_FSYNC: Final = {"fsync": "off"}  # the machine does not crash


def sql_of(page: str) -> list[str]:
    """Return the SQL blocks of a page of docs/operations."""
    return re.findall(r"```sql\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


@dataclass(frozen=True)
class Operator:
    """A user of the servers' account with PostgreSQL's client programs."""

    folder: Path
    """A folder of the account, with a copy of the scripts."""

    def path(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def archive_command(self) -> str:
        """PostgreSQL's setting that archives its log by the script."""
        return f"{self.path('scripts/archive-wal.sh')} {self.archive} %p %f"

    def replace_program(self, name: str, commands: str) -> None:
        """Let the scripts run shell commands instead of a program such as `cp`."""
        folder = self.folder / "programs"
        folder.mkdir(exist_ok=True)
        program = folder / name
        program.write_text(f"#!/bin/sh\nPATH={os.defpath}\n{commands}\n")
        program.chmod(0o755)

    def restore_program(self, name: str) -> None:
        (self.folder / "programs" / name).unlink()

    async def has_archived(self, name: str) -> bool:
        return (self.archive / name).exists()

    async def run(self, name: str, *arguments: str, url: str = "") -> str:
        """Run a script that must succeed; return its output.

        Args:
            name: The file of the script.
            arguments: Its arguments.
            url: A URL of the server, which PostgreSQL's variables name.
        """
        status, output = await self.result(name, *arguments, url=url)
        assert status == 0, output
        return output

    async def result(
        self, name: str, *arguments: str, url: str = "", variables: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Run a script; return its exit status, negative for a signal, and its output."""
        process = await asyncio.create_subprocess_exec(
            self.path(f"scripts/{name}"),
            *arguments,
            cwd=self.folder,
            env={
                "PATH": f"{self.path('programs')}:{find_postgres_bin(ACCOUNT)}:{os.defpath}",
                **(libpq_variables(url) if url else {}),
                **(variables or {}),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            user=ACCOUNT.user_id if ACCOUNT else None,
            group=ACCOUNT.group_id if ACCOUNT else None,
            extra_groups=[] if ACCOUNT else None,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()


@contextmanager
def operator_folder() -> Iterator[Operator]:
    """Make the folder of an operator, in a temporary folder, for the account of the servers."""
    with tempfile.TemporaryDirectory(prefix="segmentql-backups-") as name:
        parent = Path(name)
        parent.chmod(0o755)
        folder = parent / "operator"
        shutil.copytree(SCRIPTS, folder / "scripts")
        (folder / "archive").mkdir()
        give_to_account(folder)
        yield Operator(folder)


def give_to_account(folder: Path) -> None:
    """Give a folder and all in it to the account of the servers."""
    for path in (folder, *folder.rglob("*")):
        if ACCOUNT:
            shutil.chown(path, ACCOUNT.user_id, ACCOUNT.group_id)


def adopt_cluster(
    operator: Operator, name: str, source: LocalServers, settings: Mapping[str, str] = NO_FSYNC
) -> LocalServers:
    """Return the server, which is not started, with a data directory that an operator made.

    Args:
        operator: The operator. The data directory is moved out of the folder.
        name: The name of the data directory.
        source: The server with the same passwords, in the folder `source`.
        settings: Settings of PostgreSQL.
    """
    parent = operator.folder.parent
    home = parent / f"{name}-home"
    home.mkdir()
    shutil.copy(parent / "source" / "secrets.json", home)
    adopted = cluster_servers(source, home, settings)  # creates the folder of PostgreSQL
    Path(operator.path(name)).rename(home / "postgres" / "data")
    return adopted


async def connect_superuser(servers: LocalServers) -> Sql:
    """Connect to the database that each cluster has."""
    return await asyncpg.connect(with_database(servers.superuser_url, SUPERUSER))


async def is_primary(servers: LocalServers) -> bool:
    """Return whether a server accepts connections and is not in recovery."""
    try:
        sql = await connect_superuser(servers)
    except (OSError, asyncpg.PostgresError):
        return False
    try:
        return bool(await sql.fetchval("SELECT NOT pg_is_in_recovery()"))
    finally:
        await sql.close()


def libpq_variables(url: str) -> dict[str, str]:
    """Return the environment by which PostgreSQL's programs connect to the server of a URL."""
    parts = make_url(url)
    return {
        "PGHOST": str(parts.host),
        "PGPORT": str(parts.port),
        "PGUSER": str(parts.username),
        "PGPASSWORD": str(parts.password),
    }


# Each query returns what a backup must keep besides the rows.
_SCHEMA: Final = (
    # triggers, and whether they fire
    """
    SELECT tgrelid::regclass::text, tgname::text, tgenabled::text, pg_get_triggerdef(oid)
    FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2
    """,
    # functions with their owners, privileges and settings
    """
    SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), pg_get_userbyid(proowner)::text,
        ARRAY(SELECT acl::text FROM unnest(coalesce(proacl, acldefault('f', proowner))) AS acl
              ORDER BY 1)
    FROM pg_proc p WHERE pronamespace = 'public'::regnamespace ORDER BY 1
    """,
    # tables, indexes, sequences and partitions with their owners and privileges
    """
    SELECT c.oid::regclass::text, relkind::text, pg_get_userbyid(relowner)::text,
        pg_get_expr(relpartbound, c.oid),
        ARRAY(SELECT acl::text FROM unnest(coalesce(relacl, acldefault(
            CAST(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END AS "char"), relowner))) AS acl
            ORDER BY 1)
    FROM pg_class c WHERE relnamespace = 'public'::regnamespace ORDER BY 1
    """,
    # privileges on columns
    """
    SELECT attrelid::regclass::text, attname::text,
        ARRAY(SELECT acl::text FROM unnest(attacl) AS acl ORDER BY 1)
    FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid::regclass::text NOT LIKE 'pg_%'
    ORDER BY 1, 2
    """,
    # constraints, without parentheses, because pg_dump leaves out those that change nothing
    """
    SELECT conrelid::regclass::text, conname::text, translate(pg_get_constraintdef(oid), '()', '')
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
    """,
    # a crash and a physical backup may skip up to 32 numbers, a dump none
    "SELECT sequencename::text, start_value, last_value IS NULL FROM pg_sequences ORDER BY 1",
    "SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'public'",
)


async def database_state(servers: LocalServers, database: str) -> list[Any]:
    """Return all rows of a database, and its triggers, functions, privileges and partitions."""
    sql: Sql = await asyncpg.connect(with_database(servers.superuser_url, database))
    try:
        schema = [[tuple(row) for row in await sql.fetch(query)] for query in _SCHEMA]
        return [await every_row(sql), *schema]
    finally:
        await sql.close()


async def administrator_time(servers: LocalServers) -> str:
    """Return the server's time as text, as an operator notes it."""
    sql = await connect_superuser(servers)
    try:
        now: str = await sql.fetchval("SELECT clock_timestamp()::text")
        return now
    finally:
        await sql.close()


@asynccontextmanager
async def empty_server(
    servers: LocalServers, folder: Path, settings: Mapping[str, str]
) -> AsyncIterator[LocalServers]:
    """Run another PostgreSQL that has neither the database nor the roles."""
    empty = cluster_servers(servers, folder, settings)
    await empty.postgres.start()
    sql = await connect_superuser(empty)
    for thing in (f"DATABASE {DATABASE}", f"ROLE {OWNER_ROLE}", f"ROLE {SERVICE_ROLE}"):
        await sql.execute(f"DROP {thing}")
    await sql.close()
    try:
        yield empty
    finally:
        await empty.postgres.kill()


async def make_administrator(servers: LocalServers) -> str:
    """Create the role of a managed database, which is not a superuser, and return its URL."""
    sql = await connect_superuser(servers)
    await sql.execute("CREATE ROLE administrator LOGIN CREATEDB CREATEROLE PASSWORD 'secret'")
    await sql.close()
    url = make_url(servers.superuser_url).set(username="administrator", password="secret")
    return url.render_as_string(hide_password=False)


async def set_passwords(servers: LocalServers) -> None:
    sql = await connect_superuser(servers)
    for url in (servers.owner_url, servers.service_url):
        role, password = url.removeprefix("postgresql://").partition("@")[0].split(":")
        await sql.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
    await sql.close()
