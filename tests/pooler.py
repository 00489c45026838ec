"""A PgBouncer in transaction mode with few server connections, for the tests' PostgreSQL.

`SEGMENTQL_TEST_POOLER=1` runs the tests of the API and the workers through one, and
`SEGMENTQL_TEST_PGBOUNCER` is the path of another version than the one on PATH.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from segmentql.adapters.role_settings import store_role_settings
from segmentql.local.accounts import server_account
from segmentql.local.data_dir import write_private
from segmentql.local.ports import free_port
from segmentql.local.process import ChildProcess
from segmentql.local.program import Program
from segmentql.settings import Settings

IS_POOLED = bool(os.environ.get("SEGMENTQL_TEST_POOLER"))
"""Whether the service of the tests connects through PgBouncer."""

SERVER_CONNECTIONS = 2
"""The pool size, which is smaller than any test's number of clients."""

SUITE_SERVER_CONNECTIONS = 20
"""The pool size for whole test runs, in which a test can hold many transactions open."""


@asynccontextmanager
async def pooled(settings: Settings) -> AsyncIterator[Settings]:
    """Set the defaults of the service's role, and run PgBouncer until the exit.

    Yields the settings of a service behind it.

    The tests are skipped if this machine has no PgBouncer.
    """
    size = str(SUITE_SERVER_CONNECTIONS)
    await store_role_settings(settings)
    async with pgbouncer(settings.database_url, default_pool_size=size) as url:
        yield behind_pooler(settings, url)


def behind_pooler(
    settings: Settings, url: str, pooler: Literal["none", "transaction"] = "transaction"
) -> Settings:
    """Return the settings of a service that connects to a pooler."""
    return settings.model_copy(update={"database_url": url, "database_pooler": pooler})


def pgbouncer_program() -> str:
    """Return the path of PgBouncer. The test is skipped if this machine has none."""
    program = (
        os.environ.get("SEGMENTQL_TEST_PGBOUNCER")
        or shutil.which("pgbouncer")
        or shutil.which("/usr/sbin/pgbouncer")
    )
    if program is None:
        pytest.skip("no pgbouncer on PATH: apt-get install pgbouncer")
    return program


def pgbouncer_version() -> tuple[int, ...]:
    """Return the version of PgBouncer, such as (1, 18, 0)."""
    output = subprocess.check_output([pgbouncer_program(), "--version"], text=True)  # noqa: S603
    return tuple(int(number) for number in output.split()[1].split("."))


@asynccontextmanager
async def pgbouncer(database_url: str, **options: str) -> AsyncIterator[str]:
    """Run PgBouncer until the exit; yield the URL of the same database through it.

    The test is skipped if this machine has no PgBouncer.
    """
    program = pgbouncer_program()
    url = make_url(database_url)
    account = server_account()
    port = free_port()
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": "users.txt",
        "pool_mode": "transaction",
        "default_pool_size": str(SERVER_CONNECTIONS),
        **options,
    }
    folder = Path(tempfile.mkdtemp(prefix="segmentql-pooler-"))
    folder.chmod(0o755)
    lines = [f"{name} = {value}" for name, value in settings.items()]
    target = f"* = host={url.host} port={url.port}"
    config = "\n".join(["[databases]", target, "[pgbouncer]", *lines, ""])
    write_private(folder / "pgbouncer.ini", config, account)
    write_private(folder / "users.txt", f'"{url.username}" "{url.password}"\n', account)
    pooled = url.set(drivername="postgresql", port=port).render_as_string(hide_password=False)
    bouncer = ChildProcess(
        Program(
            name="PgBouncer",
            command=[program, "pgbouncer.ini"],
            environment={"LC_ALL": "C"},
            account=account,
            working_folder=folder,
            is_ready=partial(_answers, pooled),
            log_file=folder / "pgbouncer.log",
            pid_file=folder / "pgbouncer.pid",
        )
    )
    try:
        await bouncer.start()
        yield pooled.replace("postgresql://", "postgresql+asyncpg://", 1)
    finally:
        await bouncer.stop()
        shutil.rmtree(folder)


async def _answers(url: str) -> bool:
    try:
        await (await asyncpg.connect(url, timeout=5)).close()
    except OSError:
        return False
    return True
