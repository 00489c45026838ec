"""Memberships with an end, and what a worker has recorded of them."""

from datetime import datetime, timedelta

from tests.conftest import Api, Sql
from tests.timeline import SECOND

BY_MESSAGE = 2 * SECOND
"""The maximum delay until a delayed message records an end."""
BY_SCHEDULER = 5 * SECOND
"""The maximum delay until the scheduler records an end after a lost message or an outage."""

ADD = """
mutation Add($id: ID!, $slugs: [String!], $ttl: Int) {
  updateUserSegments(input: {userId: $id, add: $slugs, ttlSeconds: $ttl}) {
    user { memberships { expiresAt } } errors { message }
  }
}
"""


async def add(api: Api, user_id: int, *slugs: str, ttl_seconds: int | None = None) -> None:
    payload = (await api(ADD, id=str(user_id), slugs=slugs, ttl=ttl_seconds))["updateUserSegments"]
    assert payload["errors"] == []


async def is_recorded(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) = 0 FROM memberships"))


async def lateness(sql: Sql) -> timedelta:
    """Return the delay from the only leave to its record, by the database's clock."""
    delay: timedelta = await sql.fetchval(
        "SELECT recorded_at - at FROM history WHERE operation = 'LEFT'"
    )
    return delay


async def only_expiry(sql: Sql) -> datetime:
    end: datetime = await sql.fetchval("SELECT expires_at FROM memberships")
    return end


async def has_lease_holder(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) FROM leases WHERE expires_at > now()"))
