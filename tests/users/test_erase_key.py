"""`deleteUser(eraseKey: true)` removes every trace of a key. Without it, history keeps the key."""

from typing import Any

import pytest

from tests.back_dating import HOUR, NOON, all_rows, insert_membership
from tests.conftest import Api, Sql, recorded_statements
from tests.operations import (
    create_user,
    delete_segment,
    delete_user,
    make_segments,
    set_user_key,
    update_user_segments,
)

KEY = "alice@example.com"
OTHER = "bob@example.com"

COLUMNS = """
SELECT format('SELECT %L AS place FROM %I.%I WHERE strpos(%I::text, $1) > 0',
    attrelid::regclass || '.' || attname, nspname, relname, attname)
FROM pg_attribute
JOIN pg_class ON pg_class.oid = attrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition AND attnum > 0
  AND NOT attisdropped
"""


async def places_with(sql: Sql, text: str) -> set[str]:
    """Return every column of every table that has a text in any row, as text."""
    places = set()
    for column in await sql.fetch(COLUMNS):
        places |= {row["place"] for row in await sql.fetch(column[0], text)}
    return places


async def history_keys(api: Api, user_id: int | str) -> list[tuple[str, str | None]]:
    """Return the operation and the user's key of each history entry, newest first."""
    query = "query($id: ID!) { history(userId: $id) { nodes { operation userKey } } }"
    nodes = (await api(query, id=str(user_id)))["history"]["nodes"]
    return [(node["operation"], node["userKey"]) for node in nodes]


async def store_and_delete(api: Api, key: str, **fields: Any) -> str:
    """Store a user with a key, who joins a segment and is deleted; return the user's id."""
    if fields:
        await create_user(api, key=key, **fields)
    user_id: str = (await update_user_segments(api, key, add=["A"]))["user"]["id"]
    await delete_user(api, key)
    return user_id


async def test_key_of_a_deleted_user_stays_in_history(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    user_id = await store_and_delete(api, KEY)
    assert await history_keys(api, user_id) == [("LEFT", KEY), ("JOINED", KEY)]
    assert await places_with(sql, KEY) == {"user_lifetimes.key"}


@pytest.mark.parametrize("named_by", ["id", "key"])
async def test_erased_key_is_nowhere(api: Api, sql: Sql, named_by: str) -> None:
    await make_segments(api, "A", "B")
    user_id = (await update_user_segments(api, KEY, add=["A"], remove=["B"]))["user"]["id"]
    assert await places_with(sql, KEY) == {"users.key"}
    deleted = await delete_user(api, KEY if named_by == "key" else int(user_id), eraseKey=True)
    assert deleted == {"deletedId": user_id, "errors": []}
    assert await history_keys(api, user_id) == [("LEFT", None), ("JOINED", None)]
    assert await places_with(sql, KEY) == set()


@pytest.mark.parametrize("named_by", ["id", "key"])
async def test_key_can_be_erased_after_the_deletion(api: Api, sql: Sql, named_by: str) -> None:
    await make_segments(api, "A")
    user_id = await store_and_delete(api, KEY)
    other_id = await store_and_delete(api, OTHER)
    erased = await delete_user(api, KEY if named_by == "key" else int(user_id), eraseKey=True)
    assert erased == {"deletedId": user_id, "errors": []}
    assert await places_with(sql, KEY) == set()
    assert await history_keys(api, other_id) == [("LEFT", OTHER), ("JOINED", OTHER)]


async def test_erasure_can_be_repeated_by_id(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    user_id = await store_and_delete(api, KEY)
    for _ in range(2):
        erased = await delete_user(api, int(user_id), eraseKey=True)
        assert erased == {"deletedId": user_id, "errors": []}
    before = await all_rows(sql)
    # Nothing links the key to the user any more.
    repeated = await delete_user(api, KEY, eraseKey=True)
    assert [(error["code"], error["path"]) for error in repeated["errors"]] == [
        ("USER_NOT_FOUND", ["key"])
    ]
    assert await all_rows(sql) == before


async def test_erasure_of_a_user_without_key_only_deletes_the_user(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await store_and_delete(api, OTHER)
    await update_user_segments(api, 7, add=["A"])
    assert (await delete_user(api, 7, eraseKey=True))["deletedId"] == "7"
    assert await history_keys(api, 7) == [("LEFT", None), ("JOINED", None)]
    assert await places_with(sql, OTHER) == {"user_lifetimes.key"}


async def test_erasure_of_a_user_that_was_never_stored_is_rejected(api: Api, sql: Sql) -> None:
    await create_user(api, id="8", key=OTHER)
    before = await all_rows(sql)
    for user, path in ((7, ["id"]), (KEY, ["key"])):
        payload = await delete_user(api, user, eraseKey=True)
        assert payload["deletedId"] is None
        assert [(e["code"], e["path"]) for e in payload["errors"]] == [("USER_NOT_FOUND", path)]
    assert await all_rows(sql) == before


async def test_erasure_includes_earlier_users_with_the_key(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    first_id = await store_and_delete(api, KEY)
    second_id = await store_and_delete(api, KEY)
    third_id = (await update_user_segments(api, KEY, add=["A"]))["user"]["id"]
    assert len({first_id, second_id, third_id}) == 3
    assert (await delete_user(api, KEY, eraseKey=True))["deletedId"] == third_id
    assert await places_with(sql, KEY) == set()


async def test_erasure_by_id_includes_every_key_of_the_user(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for key in (KEY, OTHER):
        assert await store_and_delete(api, key, id="7") == "7"
    assert await history_keys(api, 7) == [
        ("LEFT", OTHER),
        ("JOINED", OTHER),
        ("LEFT", KEY),
        ("JOINED", KEY),
    ]
    await store_and_delete(api, KEY, id="8")
    assert (await delete_user(api, 7, eraseKey=True))["deletedId"] == "7"
    assert await places_with(sql, KEY) == await places_with(sql, OTHER) == set()


async def test_erasure_by_id_keeps_the_key_of_another_stored_user(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    first_id = await store_and_delete(api, KEY)
    second_id = (await update_user_segments(api, KEY, add=["A"]))["user"]["id"]
    await delete_user(api, int(first_id), eraseKey=True)
    assert await history_keys(api, first_id) == [("LEFT", None), ("JOINED", None)]
    assert await history_keys(api, second_id) == [("JOINED", KEY)]
    assert await places_with(sql, KEY) == {"users.key"}


async def test_erased_key_can_be_stored_again(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, KEY, add=["A"])
    first = await delete_user(api, KEY, eraseKey=True)
    second = await update_user_segments(api, KEY, add=["A"])
    assert second["user"]["id"] != first["deletedId"]
    assert await history_keys(api, second["user"]["id"]) == [("JOINED", KEY)]


async def test_null_means_that_the_key_is_kept(api: Api, sql: Sql) -> None:
    await create_user(api, key=KEY)
    await delete_user(api, KEY, eraseKey=None)
    assert await places_with(sql, KEY) == {"user_lifetimes.key"}


async def test_entries_have_the_key_of_their_lifetime(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "GONE", "ENDED")
    await update_user_segments(api, 7, add=["A"])
    await delete_user(api, 7)  # without a key
    await store_and_delete(api, KEY, id="7")
    await create_user(api, id="7")
    await update_user_segments(api, 7, add=["GONE"])
    await delete_segment(api, "GONE")  # its leave is not recorded
    await set_user_key(api, 7, OTHER)  # also of the entries before it in this lifetime
    assert await history_keys(api, 7) == [
        ("LEFT", OTHER),
        ("JOINED", OTHER),
        ("LEFT", KEY),
        ("JOINED", KEY),
        ("LEFT", None),
        ("JOINED", None),
    ]


async def test_expired_membership_has_the_key_of_its_lifetime(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await set_user_key(api, 7, KEY)
    keys = [("LEFT", KEY), ("JOINED", KEY)]
    assert await history_keys(api, 7) == keys  # the leave is not recorded
    await delete_user(api, 7)
    assert await history_keys(api, 7) == keys
    await create_user(api, id="7", key=OTHER)
    assert await history_keys(api, 7) == keys


async def test_entries_of_a_deletion_without_a_record_have_no_key(api: Api, sql: Sql) -> None:
    # Migration 0008 created the table of lifetimes, so earlier deletions have no row there.
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await delete_user(api, 7)
    await sql.execute("DELETE FROM user_lifetimes")
    await create_user(api, id="7", key=KEY)
    await update_user_segments(api, 7, add=["A"])
    assert await history_keys(api, 7) == [("JOINED", KEY), ("LEFT", None), ("JOINED", None)]


@pytest.mark.parametrize("users", [1, 30])
async def test_keys_of_a_page_take_one_statement(api: Api, users: int) -> None:
    await make_segments(api, "A")
    for number in range(users):
        await update_user_segments(api, f"k{number}", add=["A"])
    with recorded_statements() as statements:
        data = await api("{ history { nodes { userId userKey } } }")
    assert [node["userKey"] for node in data["history"]["nodes"]] == [
        f"k{number}" for number in reversed(range(users))
    ]
    assert len(statements) == 2
    with recorded_statements() as statements:
        await api("{ history { nodes { userId } } }")
    assert len(statements) == 1


async def test_key_is_in_no_log_line(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, KEY, add=["A"])
    await update_user_segments(api, KEY, add=["NOPE"])
    await create_user(api, key=KEY)
    await create_user(api, id="7")
    await set_user_key(api, 7, KEY)
    await set_user_key(api, 7, KEY + "\n")
    await api("query($k: String!) { userByKey(key: $k) { id } }", k=KEY)
    await api.body("query($k: String!) { userByKey(key: $k) { id } }", k=KEY * 20)
    await api.body("query($k: Int!) { users(first: $k) { nodes { id } } }", k=KEY)
    await api.body(f'{{ user(id: "{KEY}") {{ id }} }}')
    await api.body(f'{{ usersByKey(keys: ["{KEY}", "{KEY} {{ id }} }}')
    await delete_user(api, KEY, eraseKey=True)
    output = capfd.readouterr()
    assert output.err.count("segmentql.requests") >= 12
    assert KEY not in output.err + output.out


REPORTS = """
INSERT INTO reports (user_id, year, month, with_keys, status, created_at, finished_at,
    next_attempt_at, row_count, size_bytes, object_key, failure, attempts)
SELECT user_id, year, month, with_keys, status::report_status, now(),
    CASE WHEN status IN ('READY', 'FAILED') THEN now() END, now(), 1, 1,
    CASE WHEN status <> 'FAILED' THEN 'reports/' || number || '.csv' END,
    CASE WHEN status = 'FAILED' THEN 'lost' END, 3
FROM (VALUES
    (1, 7, 2024, 3, true, 'READY'), (2, 7, 2024, 3, false, 'READY'), (3, 8, 2024, 3, true, 'READY'),
    (4, NULL, 2024, 3, true, 'READY'), (5, NULL, 2024, 2, true, 'READY'),
    (6, NULL, 2024, 3, false, 'READY'), (7, 7, 2024, 3, true, 'RUNNING'),
    (8, 7, 2024, 3, true, 'FAILED'), (9, 7, 2024, 5, true, 'READY')
) AS report (number, user_id, year, month, with_keys, status)
ORDER BY number
"""


async def test_erasure_restarts_the_reports_that_may_have_the_key(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 8, "A", joined_at=NOON)
    await set_user_key(api, 7, KEY)
    await set_user_key(api, 8, OTHER)
    await sql.execute(REPORTS)
    before = await sql.fetch("SELECT * FROM reports ORDER BY id")
    await delete_user(api, 7)
    assert await sql.fetch("SELECT * FROM reports ORDER BY id") == before
    await delete_user(api, KEY, eraseKey=True)
    after = await sql.fetch("SELECT * FROM reports ORDER BY id")
    changed = [row for row, old in zip(after, before, strict=True) if row != old]
    assert [row["id"] for row in changed] == [1, 4, 7, 9]
    for row in changed:
        assert (row["status"], row["attempts"], row["finished_at"]) == ("QUEUED", 0, None)
        assert (row["row_count"], row["size_bytes"]) == (None, None)
        assert row["object_key"] is None
        assert row["remade_at"] > row["created_at"]
    discarded = await sql.fetch("SELECT object_key FROM objects_to_delete ORDER BY object_key")
    assert [row["object_key"] for row in discarded] == [
        f"reports/{row['id']}.csv" for row in changed
    ]
