"""Reads hide memberships at their end, before a worker records the leave."""

from datetime import UTC, datetime, timedelta
from typing import Any

from segmentql.adapters.database import Database
from segmentql.memberships import actors
from tests.conftest import Api, Sql, until
from tests.memberships.expiry_helpers import MINUTE
from tests.timeline import (
    SECOND,
    add_membership,
    database_now,
    make_segment,
    make_users,
    mark_deleted,
)

READ = """
query($asOf: DateTime) {
  user(id: 7) {
    segments { slug } past: segments(asOf: $asOf) { slug } memberships { id } isIn(slug: "A")
    membership(slug: "A") { id }
    history { nodes { id operation at recordedAt cause actor segment { slug deletedAt } } }
  }
  segment(slug: "A") { memberCount members { nodes { user { id } } } }
  history { nodes { id operation at recordedAt cause actor segment { slug } } }
}
"""


def alternative_documents(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def is_in_no_segment(body: Any) -> bool:
    user = body["user"]
    state = (user["segments"], user["memberships"], user["isIn"], user["membership"])
    return state == ([], [], False, None)


async def test_expired_membership_is_hidden_before_the_worker_runs(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    membership = await add_membership(sql, 7, segment_id, ends_in=-SECOND / 1000)
    end = membership["expires_at"]
    just_before = alternative_documents(end - timedelta(microseconds=1))
    at_the_end = alternative_documents(end)

    before_end = await api(READ, asOf=just_before)
    assert is_in_no_segment(before_end)
    assert before_end["user"]["past"] == [{"slug": "A"}]
    assert before_end["segment"] == {"memberCount": 0, "members": {"nodes": []}}
    left, joined = before_end["user"]["history"]["nodes"]
    assert (left["operation"], left["at"], left["recordedAt"], left["cause"], left["actor"]) == (
        "LEFT",
        at_the_end,
        None,
        "TTL",
        None,
    )
    assert (joined["operation"], joined["at"]) == (
        "JOINED",
        alternative_documents(membership["joined_at"]),
    )
    assert (await api(READ, asOf=at_the_end))["user"]["past"] == []

    await actors.expire_due_memberships(database)
    after_end = await api(READ, asOf=just_before)
    recorded_at = await sql.fetchval("SELECT recorded_at FROM history WHERE operation = 'LEFT'")
    assert await sql.fetchval("SELECT at FROM history WHERE operation = 'LEFT'") == end
    for body in (before_end["user"], before_end):
        body["history"]["nodes"][0]["recordedAt"] = alternative_documents(recorded_at)
    assert after_end == before_end
    assert (await api(READ, asOf=at_the_end))["user"]["past"] == []


async def test_membership_ends_exactly_at_its_expiry(api: Api, sql: Sql) -> None:
    await make_segment(sql, "A")
    await make_users(sql, 7)
    add = """mutation { updateUserSegments(input: {userId: 7, add: ["A"], ttlSeconds: 1}) {
        user { memberships { expiresAt } } errors { code } } }"""
    payload = (await api(add))["updateUserSegments"]
    end = await sql.fetchval("SELECT expires_at FROM memberships")
    assert payload["user"]["memberships"] == [{"expiresAt": alternative_documents(end)}]

    mismatches: list[tuple[datetime, bool, datetime]] = []

    async def is_expired() -> bool:
        before = await database_now(sql)
        is_in = (await api('{ user(id: 7) { isIn(slug: "A") } }'))["user"]["isIn"]
        after = await database_now(sql)
        if (is_in and before >= end) or (not is_in and after < end):
            mismatches.append((before, is_in, after))
        return not is_in

    await until(is_expired)
    assert mismatches == []


async def test_members_of_a_deleted_segment_are_hidden_at_once(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 7, segment_id)
    deleted_at = await mark_deleted(sql, segment_id, ago=MINUTE, by="ada")
    just_before = alternative_documents(deleted_at - timedelta(microseconds=1))

    before_end = await api(READ, asOf=just_before)
    assert is_in_no_segment(before_end)
    assert before_end["segment"] is None
    assert before_end["user"]["past"] == [{"slug": "A"}]
    left = before_end["user"]["history"]["nodes"][0]
    assert (left["operation"], left["at"], left["recordedAt"], left["cause"], left["actor"]) == (
        "LEFT",
        alternative_documents(deleted_at),
        None,
        "SEGMENT_DELETED",
        "ada",
    )
    assert left["segment"] == {"slug": "A", "deletedAt": alternative_documents(deleted_at)}
    assert (await api(READ, asOf=alternative_documents(deleted_at)))["user"]["past"] == []

    await actors.record_segment_leaves(database, segment_id)
    after_end = await api(READ, asOf=just_before)
    recorded_at = await sql.fetchval("SELECT recorded_at FROM history WHERE operation = 'LEFT'")
    for body in (before_end["user"], before_end):
        body["history"]["nodes"][0]["recordedAt"] = alternative_documents(recorded_at)
    assert after_end == before_end
