"""A PgBouncer in transaction mode, for the benchmark and the tests."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from segmentql.local.accounts import server_account
from segmentql.local.data_dir import write_private
from segmentql.local.ports import free_port
from segmentql.local.process import ChildProcess
from segmentql.local.program import Program

NOT_INSTALLED = "no pgbouncer on PATH: apt-get install pgbouncer"


def find_pgbouncer() -> str | None:
    """Return the path of PgBouncer, or None if this machine has none.

    `SEGMENTQL_TEST_PGBOUNCER` is the path of another version than the one on PATH.
    """
    return (
        os.environ.get("SEGMENTQL_TEST_PGBOUNCER")
        or shutil.which("pgbouncer")
        or shutil.which("/usr/sbin/pgbouncer")
    )


@asynccontextmanager
async def run_pgbouncer(
    program: str, database_url: str, options: Mapping[str, str]
) -> AsyncIterator[str]:
    """Run PgBouncer until the exit; yield the URL of the same database through it.

    Args:
        program: The path of PgBouncer.
        database_url: The URL of the database.
        options: More settings of PgBouncer.
    """
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
