"""Runs pgbench with the SQL of the service, to measure the throughput of PostgreSQL alone.

The statements are captured while the service executes one update, so they are always the same as
those of the service.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url

from bench.data import Sizes, slug
from bench.queries import ADDED_INDEXES, REMOVED_INDEXES
from segmentql.adapters.database import Database
from segmentql.local.accounts import server_account
from segmentql.local.binaries import find_postgres_bin
from segmentql.memberships import service
from segmentql.principal import NO_ACTOR
from segmentql.settings import Settings, child_environment

_INDEXES = (*ADDED_INDEXES, *REMOVED_INDEXES)


@dataclass(frozen=True)
class Statement:
    """A statement with the placeholders `$1`, `$2` ..., and their values."""

    sql: str
    values: Sequence[Any]


async def capture_update_statements(
    settings: Settings, sizes: Sizes, user_id: int
) -> list[Statement]:
    """Execute an update that adds and removes two segments, and return its SQL statements.

    BEGIN and COMMIT are not included.
    """
    sent: list[Statement] = []

    def capture(_conn: Any, _cursor: Any, sql: str, values: Any, *_: Any) -> None:
        sent.append(Statement(sql, tuple(values)))

    database = Database(settings, name="bench", publish=lambda messages: None)
    event.listen(Engine, "before_cursor_execute", capture)
    try:
        await database.transaction(
            lambda session: service.update_user_segments(
                session,
                user_id=user_id,
                add=[slug(sizes.segment_at(user_id, index)) for index in ADDED_INDEXES],
                remove=[slug(sizes.segment_at(user_id, index)) for index in REMOVED_INDEXES],
                actor=NO_ACTOR,
            )
        )
    finally:
        event.remove(Engine, "before_cursor_execute", capture)
        await database.dispose()
    return sent


def build_script(statements: Sequence[Statement], sizes: Sizes, user_id: int, users: range) -> str:
    """Return a pgbench script that executes a captured update for one user after another.

    The script needs the variables `n`, which starts at 0, and `clients`.

    Args:
        statements: The statements of the captured update.
        sizes: The sizes of the data set.
        user_id: The user of the captured update.
        users: The users that the script updates.
    """
    variables = {
        sizes.segment_at(user_id, index): f"s{index}".replace("-", "_") for index in _INDEXES
    }
    slugs = {slug(segment_id): f"'s' || :{name}" for segment_id, name in variables.items()}

    def expression(value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, list | tuple):
            return f"ARRAY[{', '.join(map(element, value))}]"
        if value == user_id:
            return "CAST(:user_id AS bigint)"
        return str(value) if isinstance(value, int) else f"'{value}'"

    def element(value: Any) -> str:
        return f"CAST(:{variables[value]} AS bigint)" if value in variables else slugs[value]

    def substitute(statement: Statement) -> str:
        return re.sub(
            r"\$(\d+)", lambda match: expression(statement.values[int(match[1]) - 1]), statement.sql
        )

    lines = [
        # Each user once, in a pseudorandom order.
        f"\\set user_id {users.start} + {users.step} * permute((:n * :clients + :client_id)"
        f" % {len(users)}, {len(users)})",
        "\\set n :n + 1",
        *(
            f"\\set {variables[sizes.segment_at(user_id, index)]} {sizes.pgbench_segment_at(index)}"
            for index in _INDEXES
        ),
        "BEGIN;",
    ]
    lines += [f"{substitute(statement).strip()};" for statement in statements]
    return "\n".join([*lines, "COMMIT;", ""])


async def run_pgbench(
    script_file: Path, url: str, *, clients: int, seconds: int
) -> Mapping[str, float]:
    """Run a script at full speed for a whole number of seconds.

    Raises:
        RuntimeError: pgbench or one of its transactions failed.
    """
    address = make_url(url)
    process = await asyncio.create_subprocess_exec(
        str(find_postgres_bin(server_account()) / "pgbench"),
        "--no-vacuum",
        "--protocol=prepared",
        f"--client={clients}",
        "--jobs=1",
        f"--time={seconds}",
        "--define=n=0",
        f"--define=clients={clients}",
        f"--file={script_file}",
        f"--host={address.host}",
        f"--port={address.port}",
        f"--username={address.username}",
        str(address.database),
        env=child_environment({"PGPASSWORD": address.password or "", "PGOPTIONS": "-c jit=off"}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds + 60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    output = out.decode()
    matches = {
        "per_second": re.search(r"^tps = ([\d.]+)", output, re.MULTILINE),
        "mean_ms": re.search(r"^latency average = ([\d.]+) ms", output, re.MULTILINE),
        "requests": re.search(r"transactions actually processed: (\d+)", output),
        "failed": re.search(r"number of failed transactions: (\d+)", output),
    }
    values = {name: float(match[1]) for name, match in matches.items() if match}
    if process.returncode != 0 or values.get("failed") or not values.get("requests"):
        raise RuntimeError(f"pgbench failed: {output}{err.decode()}")
    return values
