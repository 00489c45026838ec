"""`deleteSegment` ends the memberships, frees the slug and keeps the history."""

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.service import delete_segment_with_rollout
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from tests.back_dating import all_rows
from tests.conftest import Api, Sql, recorded_statements
from tests.operations import (
    change_counts,
    create_segment,
    delete_segment,
    make_segments,
    parse_timestamp,
    segment_slugs,
    update_segment,
    update_user_segments,
)


async def test_deletion_returns_the_id_and_hides_memberships_at_once(api: Api) -> None:
    created = (await create_segment(api, slug="A"))["segment"]
    await make_segments(api, "B")
    await update_user_segments(api, 7, add=["A", "B"])
    assert await delete_segment(api, "A") == {"deletedId": created["id"], "errors": []}
    data = await api(
        """{ user(id: 7) { segments { slug } memberships { segment { slug } } isIn(slug: "A")
          membership(slug: "A") { id } }
        segment(slug: "A") { id } segments { nodes { slug } } }"""
    )
    assert data == {
        "user": {
            "segments": [{"slug": "B"}],
            "memberships": [{"segment": {"slug": "B"}}],
            "isIn": False,
            "membership": None,
        },
        "segment": None,
        "segments": {"nodes": [{"slug": "B"}]},
    }


async def test_history_has_the_leave_and_the_deleted_segment(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await delete_segment(api, "A")
    deleted_at = await sql.fetchval("SELECT deleted_at FROM segments")
    data = await api(
        """{ history { nodes { operation at cause
        segment { slug deletedAt memberCount members { nodes { id } } } } } }"""
    )
    left, joined = data["history"]["nodes"]
    assert (left["operation"], left["cause"]) == ("LEFT", "SEGMENT_DELETED")
    assert (joined["operation"], joined["cause"]) == ("JOINED", "MANUAL")
    assert (
        parse_timestamp(left["at"]) == parse_timestamp(left["segment"]["deletedAt"]) == deleted_at
    )
    for entry in (left, joined):
        assert entry["segment"]["slug"] == "A"
        assert entry["segment"]["memberCount"] == 0
        assert entry["segment"]["members"] == {"nodes": []}


async def test_segment_created_later_with_the_slug_is_a_new_one(api: Api) -> None:
    old = (await create_segment(api, slug="A", name="Old"))["segment"]
    await update_user_segments(api, 7, add=["A"])
    await update_user_segments(api, 8, remove=["A"])
    await delete_segment(api, "A")
    new = (await create_segment(api, slug="A"))["segment"]
    assert new["id"] != old["id"]
    assert (new["name"], new["version"]) == (None, 1)
    data = await api(
        """{ segment(slug: "A") { id memberCount }
        usersById(ids: [7, 8]) { isIn(slug: "A") isExcluded(slug: "A")
          membership(slug: "A") { id } }
        history(slug: "A") { nodes { operation segment { id } } } }"""
    )
    assert data["segment"] == {"id": new["id"], "memberCount": 0}
    assert data["usersById"] == [{"isIn": False, "isExcluded": False, "membership": None}] * 2
    assert data["history"]["nodes"] == [
        {"operation": "LEFT", "segment": {"id": old["id"]}},
        {"operation": "JOINED", "segment": {"id": old["id"]}},
    ]


async def test_former_member_can_join_the_new_segment(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], ttlSeconds=3600)
    await delete_segment(api, "A")
    await make_segments(api, "A")
    rejoin = await update_user_segments(api, 7, add=["A"])
    assert change_counts(rejoin) == (1, 0, 0)
    assert segment_slugs(rejoin) == ["A"]
    assert rejoin["user"]["memberships"][0]["expiresAt"] is None


async def test_slug_can_be_deleted_and_reused_many_times(api: Api) -> None:
    ids = set()
    for _ in range(3):
        ids.add((await create_segment(api, slug="A"))["segment"]["id"])
        await delete_segment(api, "A")
    assert len(ids) == 3


@pytest.mark.parametrize("times", [0, 1])
async def test_deleting_an_unknown_slug_is_rejected(api: Api, sql: Sql, times: int) -> None:
    for _ in range(times):
        await make_segments(api, "NOPE")
        await delete_segment(api, "NOPE")
    before = await all_rows(sql)
    assert await delete_segment(api, "NOPE") == {
        "deletedId": None,
        "errors": [
            {
                "__typename": "SegmentNotFound",
                "code": "SEGMENT_NOT_FOUND",
                "message": 'No segment has the slug "NOPE".',
                "path": ["slug"],
                "slugs": ["NOPE"],
            }
        ],
    }
    assert await all_rows(sql) == before


async def test_deletion_checks_the_expected_version(api: Api, sql: Sql) -> None:
    created = (await create_segment(api, slug="A"))["segment"]
    await update_segment(api, slug="A", name="Theirs")
    before = await all_rows(sql)
    assert await delete_segment(api, "A", expectedVersion=1) == {
        "deletedId": None,
        "errors": [
            {
                "__typename": "VersionConflict",
                "code": "VERSION_CONFLICT",
                "message": "The segment has version 2, but expectedVersion is 1.",
                "path": ["expectedVersion"],
                "current": {"id": created["id"], "slug": "A", "name": "Theirs", "version": 2},
            }
        ],
    }
    assert await all_rows(sql) == before
    assert (await delete_segment(api, "A", expectedVersion=2))["deletedId"] == created["id"]


async def test_deletion_takes_four_statements_for_any_number_of_members(api: Api) -> None:
    await make_segments(api, "FEW", "MANY")
    await update_user_segments(api, 1, add=["FEW"])
    for user_id in range(1, 11):
        await update_user_segments(api, user_id, add=["MANY"])
    numbers = []
    for slug in ("FEW", "MANY"):
        with recorded_statements() as statements:
            await delete_segment(api, slug)
        numbers.append(len(statements))
    assert numbers == [4, 4]  # two locks, the deletion, and the audit entry


async def test_workers_get_the_segment_id_after_the_commit(
    database: Database, sent: list[Message], api: Api
) -> None:
    await make_segments(api, "A")
    number = await database.transaction(
        lambda session: delete_segment_with_rollout(
            session, slug="A", expected_version=None, actor=NO_ACTOR
        )
    )
    assert sent == [Message(RECORD_SEGMENT_LEAVES, (number,))]
