"""The scalar DateTime in results and in arguments."""

from segmentql.graphql.types.scalars import DATE_TIME_ALLOWED
from tests.back_dating import NOON, all_rows, insert_membership
from tests.conftest import Api, Sql
from tests.operations import UPDATE_USER_SEGMENTS, make_segments

HISTORY = "query($from: DateTime) { history(from: $from) { nodes { at } } }"

BAD_DATE_TIMES = (
    "2030-01-31T12:00:00",  # no offset
    "2030-01-31T12:00:00.123456",
    "2030-01-31",
    "12:00:00Z",
    "2030-01-31 12:00:00Z",
    "2030-01-31T12:00Z",
    "2030-1-31T12:00:00Z",
    "2030-01-31T12:00:00+03",
    "2030-01-31T12:00:00+0300",
    "2030-01-31T12:00:00+24:00",
    "2030-01-31T12:00:00.Z",
    "2030-01-31T12:00:00.1234567890Z",
    "2030-01-31T12:00:00,5Z",
    "2030-02-30T12:00:00Z",
    "2030-13-01T12:00:00Z",
    "2030-01-31T24:00:01Z",
    "2030-01-31T12:00:60Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",  # before year 1 in UTC
    "9999-12-31T23:59:59-01:00",  # after year 9999 in UTC
    "10000-01-01T00:00:00Z",
    "-2030-01-31T12:00:00Z",
    " 2030-01-31T12:00:00Z",
    "2030-01-31T12:00:00Z\n",
    "2030-01-31T12:00:00Z\0",
    "\N{FULLWIDTH DIGIT TWO}030-01-31T12:00:00Z",
    "now",
    "",
)


FROM_NOON_ON = (
    ("2024-03-01T12:00:00Z", 1),
    ("2024-03-01t12:00:00z", 1),
    ("2024-03-01T12:00:00.000000Z", 1),
    ("2024-03-01T12:00:00.000000999Z", 1),  # digits beyond the sixth are dropped
    ("2024-03-01T12:00:00.000001Z", 0),
    ("2024-03-01T15:00:00+03:00", 1),
    ("2024-03-01T15:00:01+03:00", 0),
    ("2024-02-29T23:45:00-12:15", 1),
    ("2024-03-01T12:00:00-00:00", 1),
    ("0001-01-01T00:00:00Z", 1),
    ("9999-12-31T23:59:59.999999Z", 0),
)
"""Timestamps, and the number of entries of `NOON` that follow each."""


async def test_result_is_utc_with_microseconds_and_z(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON.replace(microsecond=50))
    (entry,) = (await api(HISTORY))["history"]["nodes"]
    assert entry == {"at": "2024-03-01T12:00:00.000050Z"}


async def test_argument_accepts_any_offset(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON)
    for text, entry_count in FROM_NOON_ON:
        in_variable = await api(HISTORY, **{"from": text})
        in_literal = await api(f'{{ history(from: "{text}") {{ nodes {{ at }} }} }}')
        assert len(in_variable["history"]["nodes"]) == entry_count, text
        assert in_literal == in_variable


async def test_invalid_date_time_in_a_variable_is_rejected_by_name(api: Api) -> None:
    for text in BAD_DATE_TIMES:
        assert (await api.error(HISTORY, **{"from": text}))["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": "from",
            "allowed": DATE_TIME_ALLOWED,
        }, ascii(text)


async def test_non_string_date_time_is_rejected_by_name(api: Api) -> None:
    values: tuple[object, ...] = (0, 1709294400, 1.5, True, [], {}, ["2024-03-01T12:00:00Z"])
    for value in values:
        assert (await api.error(HISTORY, **{"from": value}))["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": "from",
            "allowed": DATE_TIME_ALLOWED,
        }


async def test_invalid_date_time_literal_is_rejected_by_name(api: Api) -> None:
    for literal in (
        '"2030-01-31T12:00:00"',
        '"now"',
        '""',
        "0",
        "1.5",
        "true",
        "NOW",
        '["2030-01-31T12:00:00Z"]',
    ):
        query = f"{{ user(id: 1) {{ history(first: 1, to: {literal}) {{ nodes {{ at }} }} }} }}"
        assert (await api.error(query))["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": "to",
            "allowed": DATE_TIME_ALLOWED,
        }


async def test_invalid_date_time_in_an_input_is_named_by_its_path(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    before = await all_rows(sql)
    extensions = {
        "code": "BAD_REQUEST",
        "argument": "input.expiresAt",
        "allowed": DATE_TIME_ALLOWED,
    }
    in_variables = await api.error(
        UPDATE_USER_SEGMENTS,
        input={"userId": "7", "add": ["A"], "expiresAt": "2030-01-31T12:00:00"},
    )
    in_variable = await api.error(
        """mutation($end: DateTime) { updateUserSegments(
        input: {userId: 7, add: ["A"], expiresAt: $end}) { segmentsAdded } }""",
        end="2030-01-31T12:00:00",
    )
    in_literal = await api.error(
        """mutation { updateUserSegments(
        input: {userId: 7, add: ["A"], expiresAt: "2030-01-31T12:00:00"}) { segmentsAdded } }"""
    )
    for error in (in_variables, in_variable, in_literal):
        assert error["extensions"] == extensions
    assert await all_rows(sql) == before


async def test_invalid_date_time_rejects_the_whole_document(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    body = await api.body(
        """mutation($end: DateTime) {
        first: updateUserSegments(input: {userId: 1, add: ["A"]}) { segmentsAdded }
        second: updateUserSegments(input: {userId: 2, expiresAt: $end}) { segmentsAdded } }""",
        end="tomorrow",
    )
    assert "data" not in body
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
