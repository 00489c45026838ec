"""Sets rollouts, waits until they are finished, and checks their members and history."""

import asyncio
import time
from datetime import datetime
from typing import Any, Final

import httpx

from bench.comparison import WrongResponse
from bench.databases import Connection
from bench.servers import Server
from segmentql.local import ChildProcess

TIMEOUT_SECONDS: Final = 180
"""The maximum duration of a rollout on a slow machine."""

POLL_SECONDS: Final = 0.02

CREATE_SEGMENT: Final = """
mutation($slug: String!, $rollout: RolloutInput) {
  createSegment(input: {slug: $slug, rollout: $rollout}) {
    segment { slug } errors { message }
  }
}
"""
SET_ROLLOUT: Final = """
mutation($slug: String!, $rollout: RolloutInput!) {
  setRollout(input: {slug: $slug, rollout: $rollout}) { rollout { id } errors { message } }
}
"""

_WRONG_MEMBERS: Final = """
SELECT count(*) FROM (
    SELECT id AS user_id FROM users ORDER BY rollout_hash_v1($1, id), id
    LIMIT (SELECT round(count(*) * $2::numeric / 100) FROM users)
) AS sample
FULL JOIN (
    SELECT user_id FROM memberships WHERE segment_id = $1 AND cause = 'ROLLOUT'
) AS member USING (user_id)
WHERE sample.user_id IS NULL OR member.user_id IS NULL
"""

_WRONG_HISTORY: Final = """
SELECT count(*) FROM (
    SELECT FROM history WHERE segment_id = $1
    GROUP BY user_id, operation HAVING count(*) > 1 OR min(cause) <> 'ROLLOUT'
) AS entry
"""


async def set_rollout(api: Server, slug: str, *, create: bool = True, **plan: Any) -> None:
    """Set the rollout of a new segment, or of an existing one if `create` is false."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", timeout=60) as http:
        response = await http.post(
            "/graphql",
            json={
                "query": CREATE_SEGMENT if create else SET_ROLLOUT,
                "variables": {"slug": slug, "rollout": plan},
            },
        )
    body = response.json()
    payloads = (body.get("data") or {}).values()
    if "errors" in body or any(payload is None or payload["errors"] for payload in payloads):
        raise WrongResponse(f"{slug}: {body}")


async def database_now(sql: Connection) -> datetime:
    """Return the time of the database's clock."""
    now: datetime = await sql.fetchval("SELECT clock_timestamp()")
    return now


async def segment_id_of(sql: Connection, slug: str) -> int:
    segment_id: int = await sql.fetchval(
        "SELECT id FROM segments WHERE slug = $1 AND deleted_at IS NULL", slug
    )
    return segment_id


async def wait_until_finished(sql: Connection, slug: str, worker: ChildProcess) -> datetime:
    """Wait until a rollout is finished, and return the time at which it was.

    Raises:
        WrongResponse: The rollout failed, or takes longer than `TIMEOUT_SECONDS`.
    """
    segment_id = await segment_id_of(sql, slug)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        row = await sql.fetchrow(
            "SELECT state::text, finished_at, users_seen FROM rollouts WHERE segment_id = $1",
            segment_id,
        )
        if row is None or row["state"] == "FAILED" or time.monotonic() > deadline:
            raise WrongResponse(
                worker.error_message(f"did not finish the rollout of {slug}: {row}")
            )
        if row["finished_at"]:
            finished_at: datetime = row["finished_at"]
            return finished_at
        await asyncio.sleep(POLL_SECONDS)


async def check_members(sql: Connection, slug: str, percent: float) -> int:
    """Check that the members are exactly the sample of the percentage, and return their number.

    Each user may have at most one join and one leave.

    Raises:
        WrongResponse: Members or history entries are wrong.
    """
    segment_id = await segment_id_of(sql, slug)
    wrong_members = await sql.fetchval(_WRONG_MEMBERS, segment_id, percent)
    wrong_history = await sql.fetchval(_WRONG_HISTORY, segment_id)
    if wrong_members or wrong_history:
        raise WrongResponse(
            f"{slug} at {percent} %: {wrong_members} users are wrongly in or out,"
            f" {wrong_history} have other history than one join and one leave"
        )
    members: int = await sql.fetchval(
        "SELECT count(*) FROM memberships WHERE segment_id = $1", segment_id
    )
    return members
