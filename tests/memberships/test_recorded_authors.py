"""Memberships and history record the API key that made each change."""

import pytest

from segmentql.adapters.database import Database
from segmentql.memberships.actors import expire_due_memberships, record_segment_leaves
from tests.back_dating import HOUR, NOON, insert_membership
from tests.conftest import Api, Sql
from tests.keys.clients import KeyClient, make_client
from tests.memberships.recorded_authors import (
    NOBODY,
    by,
    exclusion_log,
    history_authors,
    membership_authors,
)
from tests.operations import delete_segment, delete_user, make_segments, update_user_segments


async def test_join_and_leave_record_the_key_that_made_each(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    await make_segments(ada, "A")
    await update_user_segments(ada, 7, add=["A"])
    assert await membership_authors(sql) == [("A", "MANUAL", *by(ada, "ada"), None)]
    await update_user_segments(bob, 7, remove=["A"])
    assert await history_authors(sql) == [
        ("JOINED", "MANUAL", *by(ada, "ada"), None),
        ("LEFT", "MANUAL", *by(bob, "bob"), None),
    ]


async def test_changes_without_authentication_record_no_key(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await update_user_segments(api, 7, remove=["A"])
    assert await history_authors(sql) == [
        ("JOINED", "MANUAL", *NOBODY, None),
        ("LEFT", "MANUAL", *NOBODY, None),
    ]


async def test_two_keys_with_one_name_are_recorded_by_their_ids(
    auth_api: Api, sql: Sql, database: Database, ada: KeyClient
) -> None:
    other = await make_client(auth_api, database, "ada")
    await make_segments(ada, "A", "B")
    await update_user_segments(ada, 7, add=["A"])
    await update_user_segments(other, 7, add=["B"])
    assert ada.key.public_id != other.key.public_id
    assert await history_authors(sql) == [
        ("JOINED", "MANUAL", *by(ada, "ada"), None),
        ("JOINED", "MANUAL", *by(other, "ada"), None),
    ]


@pytest.mark.parametrize("on_existing", ["EXTEND", "REPLACE", "KEEP"])
async def test_adding_a_manual_member_again_keeps_the_key_of_the_join(
    sql: Sql, ada: KeyClient, bob: KeyClient, on_existing: str
) -> None:
    await make_segments(ada, "A")
    await update_user_segments(ada, 7, add=["A"], ttlSeconds=60)
    await update_user_segments(bob, 7, add=["A"], ttlSeconds=3600, onExisting=on_existing)
    assert await membership_authors(sql) == [("A", "MANUAL", *by(ada, "ada"), None)]
    assert await history_authors(sql) == [("JOINED", "MANUAL", *by(ada, "ada"), None)]


async def test_rollout_member_added_by_hand_gets_the_key_except_with_keep(
    sql: Sql, ada: KeyClient
) -> None:
    await make_segments(ada, "A", "B")
    for slug in ("A", "B"):
        await insert_membership(sql, 7, slug, cause="ROLLOUT")
    await update_user_segments(ada, 7, add=["A"])
    await update_user_segments(ada, 7, add=["B"], onExisting="KEEP")
    assert await membership_authors(sql) == [
        ("A", "MANUAL", *by(ada, "ada"), None),
        ("B", "ROLLOUT", *NOBODY, None),
    ]
    assert await history_authors(sql) == [("JOINED", "ROLLOUT", *NOBODY, None)] * 2


async def test_rejoin_after_expiry_records_the_leave_without_a_key(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    await make_segments(ada, "A")
    await update_user_segments(ada, 7, add=["A"])
    await sql.execute("SET session_replication_role = replica")
    await sql.execute("UPDATE memberships SET joined_at = $1, expires_at = $2", NOON, NOON + HOUR)
    await sql.execute("SET session_replication_role = DEFAULT")
    await update_user_segments(bob, 7, add=["A"])
    assert await membership_authors(sql) == [("A", "MANUAL", *by(bob, "bob"), None)]
    assert await history_authors(sql) == [
        ("JOINED", "MANUAL", *by(ada, "ada"), None),
        ("LEFT", "TTL", *NOBODY, None),
        ("JOINED", "MANUAL", *by(bob, "bob"), None),
    ]


async def test_expiry_records_no_key(sql: Sql, database: Database, ada: KeyClient) -> None:
    await make_segments(ada, "A")
    await insert_membership(sql, 7, "A", expires_at=NOON + HOUR)
    await insert_membership(sql, 8, "A", expires_at=NOON + HOUR)
    await update_user_segments(ada, 8, remove=["A"])
    await expire_due_memberships(database)
    assert await history_authors(sql) == [
        ("JOINED", "MANUAL", *NOBODY, None),
        ("JOINED", "MANUAL", *NOBODY, None),
        ("LEFT", "TTL", *NOBODY, None),
        ("LEFT", "TTL", *NOBODY, None),
    ]


async def test_deletion_of_a_segment_records_its_key_on_later_leaves(
    sql: Sql, database: Database, ada: KeyClient, bob: KeyClient
) -> None:
    await make_segments(ada, "A")
    for user_id in (7, 8):
        await update_user_segments(ada, user_id, add=["A"])
    await delete_segment(bob, "A")
    deleted = await sql.fetchrow("SELECT deleted_by, deleted_by_api_key_id FROM segments")
    assert deleted is not None
    assert tuple(deleted) == by(bob, "bob")
    await delete_user(ada, 7)
    await record_segment_leaves(database, 1)
    assert await history_authors(sql) == [
        *[("JOINED", "MANUAL", *by(ada, "ada"), None)] * 2,
        *[("LEFT", "SEGMENT_DELETED", *by(bob, "bob"), None)] * 2,
    ]


async def test_deletion_of_a_user_records_its_key_on_the_leaves(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    await make_segments(ada, "A", "B")
    await update_user_segments(ada, 7, add=["A", "B"])
    await delete_user(bob, 7)
    assert await history_authors(sql) == [
        *[("JOINED", "MANUAL", *by(ada, "ada"), None)] * 2,
        *[("LEFT", "USER_DELETED", *by(bob, "bob"), None)] * 2,
    ]


async def test_import_id_of_the_settings_and_the_row_is_recorded(sql: Sql, ada: KeyClient) -> None:
    await make_segments(ada, "A")
    await update_user_segments(ada, 7)
    async with sql.transaction():
        await sql.execute(
            "SELECT set_config('segmentql.import_id', '41', true),"
            " set_config('segmentql.api_key_id', 'abcdefghijkl', true)"
        )
        await sql.execute(
            """
            INSERT INTO memberships
                (user_id, segment_id, joined_at, updated_at, cause, api_key_id, import_id)
            VALUES (7, 1, now(), now(), 'MANUAL', 'abcdefghijkl', 40)
            """
        )
        await sql.execute("DELETE FROM memberships")
        await sql.execute("INSERT INTO exclusions VALUES (7, 1, now(), NULL, NULL, 40)")
        await sql.execute("DELETE FROM exclusions")
    assert await history_authors(sql) == [
        ("JOINED", "MANUAL", None, "abcdefghijkl", 40),
        ("LEFT", "MANUAL", None, "abcdefghijkl", 41),
    ]
    assert await exclusion_log(sql) == [
        (7, "A", "EXCLUDED", *NOBODY, 40),
        (7, "A", "ADMITTED", None, "abcdefghijkl", 41),
    ]


async def test_positions_follow_time_user_and_leaves_before_joins(sql: Sql, ada: KeyClient) -> None:
    await make_segments(ada, "A", "B")
    await update_user_segments(ada, 7, add=["A"])
    await update_user_segments(ada, 7, add=["B"], remove=["A"])
    await sql.execute("INSERT INTO users (id, created_at) SELECT unnest('{1,2,3}'::int[]), now()")
    await sql.execute(
        """
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause)
        SELECT user_id, segment_id, joined_at, joined_at, joined_at + interval '1 hour', 'MANUAL'
        FROM (VALUES
            (3, 1, timestamptz '2024-03-01'), (1, 1, '2024-03-02'),
            (2, 2, '2024-03-01'), (2, 1, '2024-03-02')
        ) AS joins (user_id, segment_id, joined_at)
        """
    )
    await sql.execute("DELETE FROM memberships WHERE user_id < 4")
    rows = await sql.fetch("SELECT at, user_id, operation::text FROM history ORDER BY position")
    first, inserted, deleted = rows[:3], rows[3:7], rows[7:]
    assert [(row["user_id"], row["operation"]) for row in first] == [
        (7, "JOINED"),
        (7, "LEFT"),
        (7, "JOINED"),
    ]
    assert [(row["at"].day, row["user_id"]) for row in inserted] == [(1, 2), (1, 3), (2, 1), (2, 2)]
    assert [(row["at"].day, row["user_id"]) for row in deleted] == [(1, 2), (1, 3), (2, 1), (2, 2)]
