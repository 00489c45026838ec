"""What tests of rollouts with a worker of its own do again and again: ask, look, stand in the way.

Through the API and SQL alone, so that they serve any database and any number of processes.
"""

from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.conftest import Api, Sql
from tests.rollouts.helpers import members
from tests.timeline import lies_of_history

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


async def create_with(api: Api, slug: str, **plan: Any) -> None:
    """Make a segment with a rollout."""
    payload = (await api(CREATE, slug=slug, rollout=plan))["createSegment"]
    assert payload["errors"] == []


async def set_to(api: Api, slug: str, **plan: Any) -> None:
    payload = (await api(SET, slug=slug, rollout=plan))["setRollout"]
    assert payload["errors"] == []


async def resume(api: Api, slug: str) -> None:
    payload = (await api(RESUME, slug=slug))["resumeRollout"]
    assert payload["errors"] == []


async def read(api: Api, slug: str) -> Any:
    """A segment's rollout as everybody reads it."""
    return (await api(READ, slug=slug))["segment"]["rollout"]


async def is_in_status(api: Api, slug: str, *statuses: str) -> bool:
    return (await read(api, slug))["status"] in statuses


def stage_statuses(rollout: Any) -> list[str]:
    return [stage["status"] for stage in rollout["stages"]]


async def pass_of(sql: Sql, segment_id: int) -> asyncpg.Record:
    """How far the pass under way is: its number, phase, cursor and tries that failed."""
    row = await sql.fetchrow(
        """
        SELECT pass_number, phase::text, cursor_user_id, failures FROM rollouts
        WHERE segment_id = $1
        """,
        segment_id,
    )
    assert row is not None
    return row


async def assert_in_are(sql: Sql, segment_id: int, sample: Set[int]) -> None:
    """Exactly these are in, all by the rollout, and history tells no lies."""
    assert await members(sql, segment_id) == dict.fromkeys(sample, "ROLLOUT")
    assert await lies_of_history(sql) == {}


@asynccontextmanager
async def held(url: str, user_id: int) -> AsyncIterator[None]:
    """Hold a user, so that a chunk that is to change the user's memberships waits."""
    other = await asyncpg.connect(url)
    await other.execute("BEGIN")
    await other.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user_id)
    try:
        yield
    finally:
        await other.close()  # also where the server went away meanwhile


async def workers_waiting(sql: Sql) -> int:
    """How many sessions of workers stand before a lock that somebody holds."""
    number: int = await sql.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'segmentql worker' AND wait_event_type = 'Lock'"
    )
    return number


async def worker_waits(sql: Sql) -> bool:
    return await workers_waiting(sql) > 0


@asynccontextmanager
async def no_way_back(url: str) -> AsyncIterator[None]:
    """Have the database refuse that a pass goes back, or that it begins anew under its number."""
    other = await asyncpg.connect(url)
    await other.execute(
        """
        CREATE FUNCTION refuse_to_go_back() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE 'rollout % goes back: from % to %', old.segment_id, old, new;
        END
        $$;
        CREATE TRIGGER no_way_back BEFORE UPDATE ON rollouts FOR EACH ROW
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
        last = await asyncpg.connect(url)  # the other may have died with the server
        await last.execute("DROP TRIGGER no_way_back ON rollouts; DROP FUNCTION refuse_to_go_back")
        await last.close()
