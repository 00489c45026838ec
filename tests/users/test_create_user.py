"""`createUser`: storing a user under the caller's number, or under one that is picked."""

import asyncio

from segmentql.validators import MAX_USER_ID
from tests.back_dating import all_rows
from tests.conftest import Api, Sql, recorded_statements
from tests.operations import (
    create_user,
    delete_user,
    make_segments,
    parse_timestamp,
    update_user_segments,
)


async def pick(api: Api) -> int:
    payload = await create_user(api)
    assert payload["errors"] == []
    return int(payload["user"]["id"])


async def test_stores_the_callers_number_in_no_segment(api: Api, sql: Sql) -> None:
    payload = await create_user(api, id="1000")
    stored_at = await sql.fetchval("SELECT created_at FROM users WHERE id = 1000")
    assert payload["errors"] == []
    assert payload["user"]["id"] == "1000"
    assert payload["user"]["segments"] == []
    assert parse_timestamp(payload["user"]["createdAt"]) == stored_at
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_an_integer_is_an_id_too(api: Api) -> None:
    assert (await create_user(api, id=1000))["user"]["id"] == "1000"
    assert await api("{ user(id: 1000) { id } }") == {"user": {"id": "1000"}}


async def test_the_largest_number_is_a_user_as_any_other(api: Api) -> None:
    assert (await create_user(api, id=str(MAX_USER_ID)))["user"]["id"] == "9223372036854775807"


async def test_a_stored_number_is_refused_with_the_user_and_changes_nothing(
    api: Api, sql: Sql
) -> None:
    first = await create_user(api, id="5")
    before = await all_rows(sql)
    again = await create_user(api, id="5")
    assert again["user"] is None
    assert again["errors"] == [
        {
            "__typename": "UserAlreadyExists",
            "code": "USER_ALREADY_EXISTS",
            "message": "User 5 is already stored.",
            "path": ["id"],
            "user": {"id": "5", "createdAt": first["user"]["createdAt"]},
        }
    ]
    assert await all_rows(sql) == before


async def test_of_many_at_once_one_stores_and_the_others_are_refused(api: Api, sql: Sql) -> None:
    payloads = await asyncio.gather(*(create_user(api, id="5") for _ in range(20)))
    assert sum(payload["errors"] == [] for payload in payloads) == 1
    refused = [payload["errors"][0]["user"]["id"] for payload in payloads if payload["errors"]]
    assert refused == ["5"] * 19
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_without_a_number_picks_from_one_on(api: Api) -> None:
    assert [await pick(api) for _ in range(3)] == [1, 2, 3]


async def test_a_null_number_is_none_given(api: Api) -> None:
    assert (await create_user(api, id=None))["user"]["id"] == "1"


async def test_picks_fill_the_gaps_between_stored_numbers(api: Api) -> None:
    for number in (2, 4, 5):
        await create_user(api, id=str(number))
    assert [await pick(api) for _ in range(4)] == [1, 3, 6, 7]


async def test_a_pick_finds_the_first_gap_beyond_thousands_stored_or_deleted(
    api: Api, sql: Sql
) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 2100) AS n")
    await sql.execute(
        "INSERT INTO deleted_users SELECT n, now() FROM generate_series(2000, 4000) AS n"
    )
    assert [await pick(api) for _ in range(2)] == [4001, 4002]


async def test_a_number_far_ahead_does_not_move_the_picks(api: Api) -> None:
    await create_user(api, id="1000000")
    assert await pick(api) == 1


async def test_picks_never_return_to_a_gap_below_the_last_pick(api: Api, sql: Sql) -> None:
    await sql.execute("UPDATE id_allocator SET user_id = 10")
    assert await pick(api) == 11
    assert await sql.fetchval("SELECT user_id FROM id_allocator") == 11


async def test_the_number_of_a_deleted_user_is_never_picked(api: Api) -> None:
    assert await pick(api) == 1
    await delete_user(api, 1)
    await create_user(api, id="3")
    await delete_user(api, 3)
    assert [await pick(api) for _ in range(2)] == [2, 4]


async def test_a_user_stored_by_adding_segments_is_not_picked(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 1, add=["A"])
    assert await pick(api) == 2


async def test_many_picks_at_once_are_distinct_and_without_gaps(api: Api) -> None:
    assert sorted(await asyncio.gather(*(pick(api) for _ in range(20)))) == list(range(1, 21))


async def test_picks_and_stores_at_once_never_share_a_number(api: Api, sql: Sql) -> None:
    stored = [create_user(api, id=str(number)) for number in range(1, 11)]
    payloads = await asyncio.gather(*(pick(api) for _ in range(10)), *stored)
    given = [payload["user"]["id"] for payload in payloads[10:] if payload["user"]]
    numbers = [*map(str, payloads[:10]), *given]
    assert len(set(numbers)) == len(numbers)
    assert await sql.fetchval("SELECT count(*) FROM users") == len(numbers)


async def test_the_last_numbers_are_picked_and_then_none_is_left(api: Api, sql: Sql) -> None:
    await sql.execute("UPDATE id_allocator SET user_id = $1", MAX_USER_ID - 3)
    await create_user(api, id=str(MAX_USER_ID - 1))
    assert [await pick(api) for _ in range(2)] == [MAX_USER_ID - 2, MAX_USER_ID]
    before = await all_rows(sql)
    payload = await create_user(api)
    assert payload["user"] is None
    assert payload["errors"] == [
        {
            "__typename": "InvalidInput",
            "code": "INVALID_INPUT",
            "message": "id: no id is left to allocate; allowed: an id that is not stored",
            "path": ["id"],
            "allowed": "an id that is not stored",
        }
    ]
    assert await all_rows(sql) == before


async def test_none_is_left_when_the_largest_number_was_stored_by_hand(api: Api, sql: Sql) -> None:
    await sql.execute("UPDATE id_allocator SET user_id = $1", MAX_USER_ID - 1)
    await create_user(api, id=str(MAX_USER_ID))
    assert [error["code"] for error in (await create_user(api))["errors"]] == ["INVALID_INPUT"]


async def test_a_given_number_is_one_statement_and_a_pick_a_lock_and_a_write(api: Api) -> None:
    mutation = "mutation($id: ID) { createUser(input: {id: $id}) { user { id } } }"
    with recorded_statements() as given:
        await api(mutation, id="7")
    with recorded_statements() as picked:
        await api(mutation)
    assert (len(given), len(picked)) == (1, 2)
