"""pgbench with the very SQL that the service runs: what PostgreSQL alone can do.

The statements are not copied but overheard while the service makes one change, so they cannot
drift apart.
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
from bench.queries import JOINED, LEFT
from segmentql.adapters.database import Database
from segmentql.local.accounts import server_account
from segmentql.local.binaries import find_postgres_bin
from segmentql.memberships import service
from segmentql.settings import Settings, child_environment

_PLACES = (*JOINED, *LEFT)


@dataclass(frozen=True)
class Statement:
    """A statement as it was sent: `$1` ... stand for the values."""

    sql: str
    values: Sequence[Any]


async def overheard_change(settings: Settings, sizes: Sizes, user_id: int) -> list[Statement]:
    """Make a change (add two, remove two) and note what is sent between BEGIN and COMMIT."""
    sent: list[Statement] = []

    def note(_conn: Any, _cursor: Any, sql: str, values: Any, *_: Any) -> None:
        sent.append(Statement(sql, tuple(values)))

    database = Database(settings, name="bench", publish=lambda messages: None)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        await database.transaction(
            lambda session: service.update_user_segments(
                session,
                user_id=user_id,
                add=[slug(sizes.nth_segment(user_id, nth)) for nth in JOINED],
                remove=[slug(sizes.nth_segment(user_id, nth)) for nth in LEFT],
            )
        )
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        await database.dispose()
    return sent


def script(statements: Sequence[Statement], sizes: Sizes, user_id: int, users: range) -> str:
    """A pgbench script that makes the change that was overheard to one of `users` after another.

    Needs the variables `n` (0) and `clients`; `user_id` is whom the overheard change was made to.
    """
    numbers = {sizes.nth_segment(user_id, nth): f"s{nth}".replace("-", "_") for nth in _PLACES}
    slugs = {slug(number): f"'s' || :{name}" for number, name in numbers.items()}

    def expression(value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, list | tuple):
            return f"ARRAY[{', '.join(map(element, value))}]"
        if value == user_id:
            return "CAST(:user_id AS bigint)"
        return str(value) if isinstance(value, int) else f"'{value}'"

    def element(value: Any) -> str:
        return f"CAST(:{numbers[value]} AS bigint)" if value in numbers else slugs[value]

    def filled_in(statement: Statement) -> str:
        return re.sub(
            r"\$(\d+)", lambda at: expression(statement.values[int(at[1]) - 1]), statement.sql
        )

    lines = [
        # Each user once, in an order that is none.
        f"\\set user_id {users.start} + {users.step} * permute((:n * :clients + :client_id)"
        f" % {len(users)}, {len(users)})",
        "\\set n :n + 1",
        *(
            f"\\set {numbers[sizes.nth_segment(user_id, nth)]} {sizes.nth_segment_in_pgbench(nth)}"
            for nth in _PLACES
        ),
        "BEGIN;",
    ]
    lines += [f"{filled_in(statement).strip()};" for statement in statements]
    return "\n".join([*lines, "COMMIT;", ""])


async def run_pgbench(
    script_file: Path, url: str, *, clients: int, seconds: int
) -> Mapping[str, float]:
    """Run a script at full speed for whole `seconds`.

    Raises:
        RuntimeError: pgbench failed, or a transaction did.
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
    said = out.decode()
    figures = {
        "per_second": re.search(r"^tps = ([\d.]+)", said, re.MULTILINE),
        "mean_ms": re.search(r"^latency average = ([\d.]+) ms", said, re.MULTILINE),
        "requests": re.search(r"transactions actually processed: (\d+)", said),
        "failed": re.search(r"number of failed transactions: (\d+)", said),
    }
    found = {name: float(match[1]) for name, match in figures.items() if match}
    if process.returncode != 0 or found.get("failed") or not found.get("requests"):
        raise RuntimeError(f"pgbench failed: {said}{err.decode()}")
    return found
