"""A leave that no worker has recorded yet is returned, and recording does not change the entry."""

from typing import Any

from segmentql.adapters.database import Database
from segmentql.memberships import expiry
from tests.back_dating import HOUR, NOON, delete_segment_at, insert_membership
from tests.conftest import Api, Sql
from tests.operations import delete_segment, make_segments, parse_timestamp, update_user_segments

HISTORY = """{ history { nodes {
  id userId segment { slug } operation at recordedAt cause actor
} } }"""


async def history(api: Api) -> list[Any]:
    nodes: list[Any] = (await api(HISTORY))["history"]["nodes"]
    return nodes


async def record_all(database: Database, segment_id: int = 1) -> None:
    await database.transaction(expiry.expire_due)
    while await database.transaction(
        lambda session: expiry.record_segment_leaves(session, segment_id)
    ):
        pass


async def test_recording_an_expired_membership_changes_no_entry(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    number = await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    left, joined = await history(api)
    assert left == {
        "id": f"his_{number}_left",
        "userId": "7",
        "segment": {"slug": "A"},
        "operation": "LEFT",
        "at": "2024-03-01T13:00:00.000000Z",
        "recordedAt": None,
        "cause": "TTL",
        "actor": None,
    }
    assert joined["id"] == f"his_{number}_joined"
    assert joined["cause"] == "MANUAL"
    await record_all(database)
    recorded, still_joined = await history(api)
    assert parse_timestamp(recorded["recordedAt"]) > parse_timestamp(recorded["at"])
    assert {**recorded, "recordedAt": None} == left
    assert still_joined == joined
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 0


async def test_segment_deletion_ends_memberships_at_that_moment(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    for user_id in (1, 2):
        await update_user_segments(api, user_id, add=["A"])
    await delete_segment(api, "A")
    deleted_at = await sql.fetchval("SELECT deleted_at FROM segments")
    before = await history(api)
    assert [(e["userId"], e["operation"], e["cause"], e["recordedAt"]) for e in before[:2]] == [
        ("2", "LEFT", "SEGMENT_DELETED", None),
        ("1", "LEFT", "SEGMENT_DELETED", None),
    ]
    assert {parse_timestamp(entry["at"]) for entry in before[:2]} == {deleted_at}
    await record_all(database)
    after = await history(api)
    assert [{**entry, "recordedAt": None} for entry in after[:2]] == before[:2]
    assert all(parse_timestamp(entry["recordedAt"]) > deleted_at for entry in after[:2])
    assert after[2:] == before[2:]


async def test_actor_of_a_segment_deletion_is_shown_before_recording(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A")
    await delete_segment_at(sql, "A", NOON + HOUR)
    await sql.execute("UPDATE segments SET deleted_by = 'ann'")
    before = (await history(api))[0]
    await record_all(database)
    after = (await history(api))[0]
    assert (before["actor"], before["cause"]) == ("ann", "SEGMENT_DELETED")
    assert {**after, "recordedAt": None} == before


async def test_membership_expired_before_its_segment_was_deleted(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 1, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 2, "A", joined_at=NOON, expires_at=NOON + 2 * HOUR)
    await insert_membership(sql, 3, "A", joined_at=NOON, expires_at=NOON + 3 * HOUR)
    await delete_segment_at(sql, "A", NOON + 2 * HOUR)
    before = (await history(api))[:3]
    assert [(e["userId"], e["cause"], e["at"][11:13]) for e in before] == [
        ("3", "SEGMENT_DELETED", "14"),
        ("2", "TTL", "14"),
        ("1", "TTL", "13"),
    ]
    await record_all(database)
    assert [{**e, "recordedAt": None} for e in (await history(api))[:3]] == before


async def test_leave_is_shown_once_during_recording(api: Api, sql: Sql, database: Database) -> None:
    await make_segments(api, "A")
    for user_id in range(1, 6):
        await insert_membership(sql, user_id, "A", joined_at=NOON, expires_at=NOON + HOUR)
    before = [entry["id"] for entry in await history(api)]
    await database.transaction(lambda session: expiry.expire_due(session, rows=2))
    after = await history(api)
    assert [entry["id"] for entry in after] == before
    assert [e["recordedAt"] is None for e in after[:5]].count(True) == 3


async def test_rejoin_records_the_unrecorded_leave(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    left, joined = await history(api)
    await update_user_segments(api, 7, add=["A"])
    rejoined, recorded, first = await history(api)
    assert rejoined["operation"] == "JOINED"
    assert {**recorded, "recordedAt": None} == left
    assert first == joined


async def test_future_expiry_is_no_leave(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], ttlSeconds=3600)
    assert [entry["operation"] for entry in await history(api)] == ["JOINED"]


async def test_manual_leave_is_recorded_at_once(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await update_user_segments(api, 7, remove=["A"])
    left, joined = await history(api)
    assert (left["cause"], joined["cause"]) == ("MANUAL", "MANUAL")
    assert (left["actor"], joined["actor"]) == (None, None)
    for entry in (left, joined):
        assert parse_timestamp(entry["recordedAt"]) >= parse_timestamp(entry["at"])
