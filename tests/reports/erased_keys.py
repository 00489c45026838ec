"""A report on three users with keys, the erasure of a key, and the files that have keys."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from segmentql.reports import key_erasure
from tests.conftest import Api, Sql
from tests.operations import delete_user

MARCH = datetime(2024, 3, 1, tzinfo=UTC)
KEYS = {1: "alice@example.com", 2: "bob@example.com", 3: "carol@example.com"}
ALICE, BOB, CAROL = KEYS.values()

Files: TypeAlias = Callable[[], Awaitable[dict[str, str]]]


async def users_with(files: Files) -> set[str]:
    """Return the keys of users that any file has."""
    contents = "".join((await files()).values())
    return {key for key in KEYS.values() if key in contents}


async def erase(api: Api, key: str) -> None:
    assert (await delete_user(api, key, eraseKey=True))["errors"] == []


async def row(sql: Sql) -> Any:
    return await sql.fetchrow(
        "SELECT *, status::text AS state, clock_timestamp() AS now FROM reports"
    )


async def pass_delay(sql: Sql, seconds: float = key_erasure.REMAKE_DELAY_SECONDS) -> None:
    """Move the report back, as if this time had passed."""
    await sql.execute(
        """
        UPDATE reports SET next_attempt_at = next_attempt_at - make_interval(secs => $1),
            remade_at = remade_at - make_interval(secs => $1)
        """,
        seconds,
    )
