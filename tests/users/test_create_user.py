"""`createUser` stores a user under the given id, or allocates one."""

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


async def create_without_id(api: Api) -> int:
    payload = await create_user(api)
    assert payload["errors"] == []
    return int(payload["user"]["id"])


async def test_given_id_is_stored_without_segments(api: Api, sql: Sql) -> None:
    payload = await create_user(api, id="1000")
    stored_at = await sql.fetchval("SELECT created_at FROM users WHERE id = 1000")
    assert payload["errors"] == []
    assert payload["user"]["id"] == "1000"
    assert payload["user"]["segments"] == []
    assert parse_timestamp(payload["user"]["createdAt"]) == stored_at
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_integer_is_accepted_as_an_id(api: Api) -> None:
    assert (await create_user(api, id=1000))["user"]["id"] == "1000"
    assert await api("{ user(id: 1000) { id } }") == {"user": {"id": "1000"}}


async def test_largest_id_is_accepted(api: Api) -> None:
    assert (await create_user(api, id=str(MAX_USER_ID)))["user"]["id"] == "9223372036854775807"


async def test_existing_id_is_rejected_with_its_user(api: Api, sql: Sql) -> None:
    first = await create_user(api, id="5")
    before = await all_rows(sql)
    repeated = await create_user(api, id="5")
    assert repeated["user"] is None
    assert repeated["errors"] == [
        {
            "__typename": "UserAlreadyExists",
            "code": "USER_ALREADY_EXISTS",
            "message": "User 5 is already stored.",
            "path": ["id"],
            "user": {"id": "5", "createdAt": first["user"]["createdAt"], "key": None},
        }
    ]
    assert await all_rows(sql) == before


async def test_concurrent_creations_of_one_id_have_one_winner(api: Api, sql: Sql) -> None:
    payloads = await asyncio.gather(*(create_user(api, id="5") for _ in range(20)))
    assert sum(payload["errors"] == [] for payload in payloads) == 1
    existing_ids = [payload["errors"][0]["user"]["id"] for payload in payloads if payload["errors"]]
    assert existing_ids == ["5"] * 19
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_allocated_ids_start_at_one(api: Api) -> None:
    assert [await create_without_id(api) for _ in range(3)] == [1, 2, 3]


async def test_null_id_counts_as_absent(api: Api) -> None:
    assert (await create_user(api, id=None))["user"]["id"] == "1"


async def test_allocation_fills_gaps_between_stored_ids(api: Api) -> None:
    for number in (2, 4, 5):
        await create_user(api, id=str(number))
    assert [await create_without_id(api) for _ in range(4)] == [1, 3, 6, 7]


async def test_allocation_finds_the_first_gap_after_thousands_of_ids(api: Api, sql: Sql) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 2100) AS n")
    await sql.execute(
        "INSERT INTO deleted_users SELECT n, now() FROM generate_series(2000, 4000) AS n"
    )
    assert [await create_without_id(api) for _ in range(2)] == [4001, 4002]


async def test_large_given_id_does_not_move_the_allocation(api: Api) -> None:
    await create_user(api, id="1000000")
    assert await create_without_id(api) == 1


async def test_allocation_never_returns_to_a_lower_gap(api: Api, sql: Sql) -> None:
    await sql.execute("UPDATE id_allocator SET user_id = 10")
    assert await create_without_id(api) == 11
    assert await sql.fetchval("SELECT user_id FROM id_allocator") == 11


async def test_id_of_a_deleted_user_is_never_allocated(api: Api) -> None:
    assert await create_without_id(api) == 1
    await delete_user(api, 1)
    await create_user(api, id="3")
    await delete_user(api, 3)
    assert [await create_without_id(api) for _ in range(2)] == [2, 4]


async def test_id_stored_by_adding_segments_is_not_allocated(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 1, add=["A"])
    assert await create_without_id(api) == 2


async def test_concurrent_allocations_are_distinct_and_without_gaps(api: Api) -> None:
    assert sorted(await asyncio.gather(*(create_without_id(api) for _ in range(20)))) == list(
        range(1, 21)
    )


async def test_concurrent_allocated_and_given_ids_are_distinct(api: Api, sql: Sql) -> None:
    stored = [create_user(api, id=str(number)) for number in range(1, 11)]
    payloads = await asyncio.gather(*(create_without_id(api) for _ in range(10)), *stored)
    stored_ids = [payload["user"]["id"] for payload in payloads[10:] if payload["user"]]
    numbers = [*map(str, payloads[:10]), *stored_ids]
    assert len(set(numbers)) == len(numbers)
    assert await sql.fetchval("SELECT count(*) FROM users") == len(numbers)


async def test_allocation_ends_with_the_largest_id(api: Api, sql: Sql) -> None:
    await sql.execute("UPDATE id_allocator SET user_id = $1", MAX_USER_ID - 3)
    await create_user(api, id=str(MAX_USER_ID - 1))
    assert [await create_without_id(api) for _ in range(2)] == [MAX_USER_ID - 2, MAX_USER_ID]
    before = await all_rows(sql)
    payload = await create_user(api)
    assert payload["user"] is None
    assert payload["errors"] == [
        {
            "__typename": "InvalidInput",
            "code": "INVALID_INPUT",
            "message": "id is not valid: no id is left to allocate."
            " Allowed: an id that is not stored.",
            "path": ["id"],
            "allowed": "an id that is not stored",
        }
    ]
    assert await all_rows(sql) == before


async def test_allocation_is_exhausted_if_the_largest_id_is_taken(api: Api, sql: Sql) -> None:
    await sql.execute("UPDATE id_allocator SET user_id = $1", MAX_USER_ID - 1)
    await create_user(api, id=str(MAX_USER_ID))
    assert [error["code"] for error in (await create_user(api))["errors"]] == ["INVALID_INPUT"]


async def test_given_id_takes_one_statement_and_allocation_two(api: Api) -> None:
    mutation = "mutation($id: ID) { createUser(input: {id: $id}) { user { id } } }"
    with recorded_statements() as stored_ids:
        await api(mutation, id="7")
    with recorded_statements() as picked:
        await api(mutation)
    assert (len(stored_ids), len(picked)) == (1, 2)
