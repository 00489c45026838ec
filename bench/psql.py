"""Runs `psql \\copy`, with which files of workers are compared."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.engine import make_url

from bench.comparison import WrongResponse
from segmentql.local.accounts import server_account
from segmentql.local.binaries import find_postgres_bin
from segmentql.settings import child_environment


async def copy_to_file(url: str, statement: str, arguments: Sequence[object], target: Path) -> None:
    """Write the rows of a statement into a CSV file with a header.

    Args:
        url: The URL of the database.
        statement: A SELECT with parameters in asyncpg's form, such as `$1`.
        arguments: The values of the parameters, which must not contain a quote.
        target: The file.

    Raises:
        WrongResponse: psql failed, or the file is empty.
    """
    for position, argument in enumerate(arguments, start=1):
        statement = statement.replace(f"${position}", f"'{argument}'")
    address = make_url(url)
    process = await asyncio.create_subprocess_exec(
        str(find_postgres_bin(server_account()) / "psql"),
        f"--host={address.host}",
        f"--port={address.port}",
        f"--username={address.username}",
        f"--dbname={address.database}",
        "--quiet",
        "--command",
        f"\\copy ({' '.join(statement.split())}) TO '{target}' WITH (FORMAT csv, HEADER)",
        env=child_environment({"PGPASSWORD": str(address.password), "PGOPTIONS": "-c jit=off"}),
    )
    if await process.wait() != 0 or target.stat().st_size == 0:
        raise WrongResponse("psql \\copy failed")
