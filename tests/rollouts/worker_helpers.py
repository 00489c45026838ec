"""Helpers for tests of rollouts with real worker processes.

They use only the API, SQL and logs, so that they work with any database and number of processes.
"""

from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from tests.conftest import Api, Sql
from tests.rollouts.helpers import members
from tests.timeline import history_inconsistencies

ROLLOUT = """
status percent usersTotal usersSeen progress enrolled failure startedAt finishedAt
stages { percent startsAt status }
"""
CREATE = f"""
mutation Create($slug: String!, $rollout: RolloutInput) {{
  createSegment(input: {{slug: $slug, rollout: $rollout}}) {{
    segment {{ rollout {{ {ROLLOUT} }} }} errors {{ message }}
  }}
}}
"""
SET = f"""
mutation Set($slug: String!, $rollout: RolloutInput!) {{
  setRollout(input: {{slug: $slug, rollout: $rollout}}) {{
    rollout {{ {ROLLOUT} }} errors {{ message }}
  }}
}}
"""
RESUME = f"""
mutation Resume($slug: String!) {{
  resumeRollout(input: {{slug: $slug}}) {{ rollout {{ {ROLLOUT} }} errors {{ message }} }}
}}
"""
READ = f"query Read($slug: String!) {{ segment(slug: $slug) {{ rollout {{ {ROLLOUT} }} }} }}"


async def create_segment_with_rollout(api: Api, slug: str, **plan: Any) -> None:
    """Create a segment with a rollout."""
    payload = (await api(CREATE, slug=slug, rollout=plan))["createSegment"]
    assert payload["errors"] == []


async def replace_rollout(api: Api, slug: str, **plan: Any) -> None:
    payload = (await api(SET, slug=slug, rollout=plan))["setRollout"]
    assert payload["errors"] == []


async def resume_rollout(api: Api, slug: str) -> None:
    payload = (await api(RESUME, slug=slug))["resumeRollout"]
    assert payload["errors"] == []


async def read_rollout(api: Api, slug: str) -> Any:
    """Return a segment's rollout, read through the API."""
    return (await api(READ, slug=slug))["segment"]["rollout"]


async def has_status(api: Api, slug: str, *statuses: str) -> bool:
    return (await read_rollout(api, slug))["status"] in statuses


def stage_statuses(rollout: Any) -> list[str]:
    return [stage["status"] for stage in rollout["stages"]]


async def read_pass(sql: Sql, segment_id: int) -> asyncpg.Record:
    """Return the number, phase, cursor and failure count of the current pass."""
    row = await sql.fetchrow(
        """
        SELECT pass_number, phase::text, cursor_user_id, failures FROM rollouts
        WHERE segment_id = $1
        """,
        segment_id,
    )
    assert row is not None
    return row


async def assert_members_are(sql: Sql, segment_id: int, sample: Set[int]) -> None:
    """Check that exactly these users are members by the rollout, and that history is consistent."""
    assert await members(sql, segment_id) == dict.fromkeys(sample, "ROLLOUT")
    assert await history_inconsistencies(sql) == {}


@asynccontextmanager
async def locked_user(url: str, user_id: int) -> AsyncIterator[None]:
    """Lock a user, so that a chunk that changes the user's memberships waits."""
    other = await asyncpg.connect(url)
    await other.execute("BEGIN")
    await other.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user_id)
    try:
        yield
    finally:
        await other.close()  # also if the server has stopped


async def count_blocked_workers(sql: Sql) -> int:
    """Return how many sessions of workers wait for a lock."""
    number: int = await sql.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'segmentql worker' AND wait_event_type = 'Lock'"
    )
    return number


async def worker_is_blocked(sql: Sql) -> bool:
    return await count_blocked_workers(sql) > 0


async def is_logged(log: Path, text: str) -> bool:
    return text in log.read_text()


@asynccontextmanager
async def reject_backward_progress(url: str) -> AsyncIterator[None]:
    """Make the database reject updates that move a pass back or restart it."""
    other = await asyncpg.connect(url)
    await other.execute(
        """
        CREATE FUNCTION refuse_to_go_back() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE 'rollout % goes back: from % to %', old.segment_id, old, new;
        END
        $$;
        CREATE TRIGGER reject_backward_progress BEFORE UPDATE ON rollouts FOR EACH ROW
        WHEN (new.pass_number < old.pass_number OR new.pass_number = old.pass_number AND (
            new.phase < old.phase OR new.cursor_user_id < old.cursor_user_id
            OR new.users_seen < old.users_seen))
        EXECUTE FUNCTION refuse_to_go_back();
        """
    )
    try:
        yield
    finally:
        await other.close()
        last = await asyncpg.connect(url)  # the server may have restarted
        await last.execute(
            "DROP TRIGGER reject_backward_progress ON rollouts; DROP FUNCTION refuse_to_go_back"
        )
        await last.close()
