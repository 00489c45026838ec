"""Rollouts as an analyst would set them, and how a row knows that one is carried out, exactly."""

import asyncio
import time
from datetime import datetime
from typing import Any, Final

import httpx

from bench.comparison import WrongAnswer
from bench.databases import Connection
from bench.servers import Server
from segmentql.local import ChildProcess

DONE_SECONDS: Final = 180
"""How long one may take, on however slow a machine."""

POLL_SECONDS: Final = 0.02

CREATE: Final = """
mutation($slug: String!, $rollout: RolloutInput) {
  createSegment(input: {slug: $slug, rollout: $rollout}) {
    segment { slug } errors { message }
  }
}
"""
SET: Final = """
mutation($slug: String!, $rollout: RolloutInput!) {
  setRollout(input: {slug: $slug, rollout: $rollout}) { rollout { id } errors { message } }
}
"""

_WRONG: Final = """
SELECT count(*) FROM (
    SELECT id AS user_id FROM users ORDER BY rollout_hash_v1($1, id), id
    LIMIT (SELECT round(count(*) * $2::numeric / 100) FROM users)
) AS sample
FULL JOIN (
    SELECT user_id FROM memberships WHERE segment_id = $1 AND cause = 'ROLLOUT'
) AS member USING (user_id)
WHERE sample.user_id IS NULL OR member.user_id IS NULL
"""

_TWICE: Final = """
SELECT count(*) FROM (
    SELECT FROM history WHERE segment_id = $1
    GROUP BY user_id, operation HAVING count(*) > 1 OR min(cause) <> 'ROLLOUT'
) AS entry
"""


async def set_rollout(api: Server, slug: str, *, create: bool = True, **plan: Any) -> None:
    """Send the mutation that gives a segment, a new one or not, this plan."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", timeout=60) as http:
        response = await http.post(
            "/graphql",
            json={"query": CREATE if create else SET, "variables": {"slug": slug, "rollout": plan}},
        )
    body = response.json()
    payloads = (body.get("data") or {}).values()
    if "errors" in body or any(payload is None or payload["errors"] for payload in payloads):
        raise WrongAnswer(f"{slug}: {body}")


async def clock(sql: Connection) -> datetime:
    """The database's."""
    now: datetime = await sql.fetchval("SELECT clock_timestamp()")
    return now


async def number_of(sql: Connection, slug: str) -> int:
    number: int = await sql.fetchval(
        "SELECT id FROM segments WHERE slug = $1 AND deleted_at IS NULL", slug
    )
    return number


async def until_done(sql: Connection, slug: str, worker: ChildProcess) -> datetime:
    """Wait until a rollout is carried out; when it was.

    Raises:
        WrongAnswer: it failed, or takes too long.
    """
    segment_id = await number_of(sql, slug)
    give_up_at = time.monotonic() + DONE_SECONDS
    while True:
        at = await sql.fetchrow(
            "SELECT state::text, finished_at, users_seen FROM rollouts WHERE segment_id = $1",
            segment_id,
        )
        if at is None or at["state"] == "FAILED" or time.monotonic() > give_up_at:
            raise WrongAnswer(
                worker.error_message(f"did not carry out the rollout of {slug}: {at}")
            )
        if at["finished_at"]:
            finished_at: datetime = at["finished_at"]
            return finished_at
        await asyncio.sleep(POLL_SECONDS)


async def check_exact(sql: Connection, slug: str, percent: float) -> int:
    """How many are in: exactly the sample of the percent, each with one join and one leave at most.

    Raises:
        WrongAnswer: it is not so.
    """
    segment_id = await number_of(sql, slug)
    wrong = await sql.fetchval(_WRONG, segment_id, percent)
    twice = await sql.fetchval(_TWICE, segment_id)
    if wrong or twice:
        raise WrongAnswer(
            f"{slug} at {percent} %: {wrong} users wrongly in or out, {twice} with other history"
            " than one join and one leave"
        )
    members: int = await sql.fetchval(
        "SELECT count(*) FROM memberships WHERE segment_id = $1", segment_id
    )
    return members
