"""A PgBouncer in transaction mode with few server connections, for the tests' PostgreSQL.

`SEGMENTQL_TEST_POOLER=1` runs the tests of the API and the workers through one, and
`SEGMENTQL_TEST_PGBOUNCER` is the path of another version than the one on PATH.
"""

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest

from bench.pgbouncer import NOT_INSTALLED, find_pgbouncer, run_pgbouncer
from segmentql.adapters.role_settings import store_role_settings
from segmentql.settings import Settings

IS_POOLED = bool(os.environ.get("SEGMENTQL_TEST_POOLER"))
"""Whether the service of the tests connects through PgBouncer."""

NEEDS_DIRECT_SESSION = pytest.mark.skipif(
    IS_POOLED, reason="looks at the client's session in PostgreSQL, which a pooler shares"
)
NEEDS_OWN_TIMEOUT = pytest.mark.skipif(
    IS_POOLED, reason="behind a pooler, reads have the time limit of the role, not of the process"
)

SERVER_CONNECTIONS = 2
"""The pool size, which is smaller than any test's number of clients."""

SUITE_SERVER_CONNECTIONS = 20
"""The pool size for whole test runs, in which a test can hold many transactions open."""


@asynccontextmanager
async def pooled(settings: Settings) -> AsyncIterator[Settings]:
    """Set the defaults of the service's role, and run PgBouncer until the exit.

    Yields the settings of a service behind it.
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
    program = find_pgbouncer()
    if program is None:
        pytest.skip(NOT_INSTALLED)
    return program


def pgbouncer_version() -> tuple[int, ...]:
    """Return the version of PgBouncer, such as (1, 18, 0)."""
    output = subprocess.check_output([pgbouncer_program(), "--version"], text=True)
    return tuple(int(number) for number in output.split()[1].split("."))


@asynccontextmanager
async def pgbouncer(database_url: str, **options: str) -> AsyncIterator[str]:
    """Run PgBouncer until the exit; yield the URL of the same database through it."""
    settings = {"default_pool_size": str(SERVER_CONNECTIONS), **options}
    async with run_pgbouncer(pgbouncer_program(), database_url, settings) as url:
        yield url
