"""Invalid ids, slugs, names and versions are rejected by every field.

Those of `updateUserSegments` are in `tests/memberships/test_rejected_changes.py`.
"""

from typing import Any

import pytest

from segmentql.validators import SLUG_ALLOWED, USER_ID_ALLOWED, VERSION_ALLOWED
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.invalid_values import BAD_SLUGS, BAD_USER_IDS, GOOD_SLUGS
from tests.operations import ERRORS, create_segment, create_user, make_segments, update_segment

QUERIES_OF_IDS = """
query($id: ID!) { user(id: $id) { id } usersById(ids: [1, $id]) { id }
  history(userId: $id) { nodes { id } } users(first: 1) { nodes { id } } }
"""

MUTATIONS_OF_IDS = f"""
mutation($id: ID!) {{
  createUser(input: {{id: $id}}) {{ user {{ id }} {ERRORS} }}
  deleteUser(input: {{id: $id}}) {{ deletedId {ERRORS} }}
}}
"""

QUERIES_OF_SLUGS = """
query($slug: String!) { history(slug: $slug) { nodes { id } }
  user(id: 1) { history(slug: $slug) { nodes { id } } } segments(first: 1) { nodes { slug } } }
"""

MUTATIONS_OF_SLUGS = f"""
mutation($slug: String!) {{
  createSegment(input: {{slug: $slug}}) {{ segment {{ id }} {ERRORS} }}
  updateSegment(input: {{slug: $slug, name: "New"}}) {{ segment {{ id }} {ERRORS} }}
  deleteSegment(input: {{slug: $slug}}) {{ deletedId {ERRORS} }}
}}
"""

NAME_ALLOWED = "1 to 255 characters, without NUL and unpaired surrogates"
DESCRIPTION_ALLOWED = "0 to 4096 characters, without NUL and unpaired surrogates"


def error_summaries(body: Any) -> list[tuple[str, str, str, str]]:
    """Return each GraphQL error's field, code, argument and allowed values."""
    return [
        (
            error["path"][0],
            error["extensions"]["code"],
            error["extensions"]["argument"],
            error["extensions"]["allowed"],
        )
        for error in body["errors"]
    ]


def payload_errors(payload: Any) -> list[tuple[str, list[str], str]]:
    """Return the codes, paths and allowed values of the errors of a payload without a result."""
    (created,) = [value for key, value in payload.items() if key != "errors"]
    assert created is None
    return [(error["code"], error["path"], error["allowed"]) for error in payload["errors"]]


async def test_invalid_user_id_nulls_only_its_query_field(api: Api, sql: Sql) -> None:
    await create_user(api, id="1")
    before = await all_rows(sql)
    for user_id in BAD_USER_IDS:
        body = await api.body(QUERIES_OF_IDS, id=user_id)
        assert body["data"] == {
            "user": None,
            "usersById": None,
            "history": None,
            "users": {"nodes": [{"id": "1"}]},
        }
        assert sorted(error_summaries(body)) == [
            ("history", "BAD_REQUEST", "userId", USER_ID_ALLOWED),
            ("user", "BAD_REQUEST", "id", USER_ID_ALLOWED),
            ("usersById", "BAD_REQUEST", "ids.1", USER_ID_ALLOWED),
        ], ascii(user_id)
    assert await all_rows(sql) == before


async def test_invalid_user_id_is_rejected_by_mutations(api: Api, sql: Sql) -> None:
    await create_user(api, id="1")
    before = await all_rows(sql)
    for user_id in BAD_USER_IDS:
        for payload in (await api(MUTATIONS_OF_IDS, id=user_id)).values():
            assert payload_errors(payload) == [("INVALID_INPUT", ["id"], USER_ID_ALLOWED)], ascii(
                user_id
            )
    assert await all_rows(sql) == before


async def test_id_literals_follow_the_same_rule_as_variables(api: Api) -> None:
    for literal in (
        "0",
        "-1",
        "9223372036854775808",
        '" 1"',
        '""',
    ):
        error = await api.error(f"{{ user(id: {literal}) {{ id }} }}")
        assert error["extensions"]["argument"] == "id"
        assert error["extensions"]["allowed"] == USER_ID_ALLOWED


NO_ID = {
    "code": "BAD_REQUEST",
    "argument": "id",
    "allowed": "a string or an integer, without fraction and exponent",
}


async def test_non_id_value_is_a_bad_request_that_names_it(api: Api) -> None:
    for literal in (
        "1.5",
        "true",
        "null",
        "ONE",
    ):
        error = await api.error(f"{{ user(id: {literal}) {{ id }} }}")
        assert error["extensions"] == NO_ID


async def test_variable_of_another_type_is_a_bad_request_that_names_it(api: Api) -> None:
    values: tuple[object, ...] = (1.5, True, [1], None, {})
    for value in values:
        error = await api.error("query($id: ID!) { user(id: $id) { id } }", id=value)
        assert error["extensions"] == NO_ID


async def test_number_with_a_leading_zero_is_a_syntax_error(api: Api) -> None:
    error = await api.error("{ user(id: 01) { id } }")
    assert error["extensions"] == {"code": "BAD_REQUEST"}
    assert error["locations"] == [{"line": 1, "column": 13}]


async def test_invalid_slug_nulls_only_its_query_field(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await create_user(api, id="1")
    before = await all_rows(sql)
    for slug in BAD_SLUGS:
        body = await api.body(QUERIES_OF_SLUGS, slug=slug)
        assert body["data"] == {
            "history": None,
            "user": None,
            "segments": {"nodes": [{"slug": "A"}]},
        }
        assert sorted(error_summaries(body)) == [
            ("history", "BAD_REQUEST", "slug", SLUG_ALLOWED),
            ("user", "BAD_REQUEST", "slug", SLUG_ALLOWED),
        ], ascii(slug)
    assert await all_rows(sql) == before


async def test_invalid_slug_is_rejected_by_mutations(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    before = await all_rows(sql)
    for slug in BAD_SLUGS:
        for payload in (await api(MUTATIONS_OF_SLUGS, slug=slug)).values():
            assert payload_errors(payload) == [("INVALID_INPUT", ["slug"], SLUG_ALLOWED)], ascii(
                slug
            )
    assert await all_rows(sql) == before


async def test_every_valid_slug_creates_a_segment(api: Api) -> None:
    await make_segments(api, *GOOD_SLUGS)
    for slug in GOOD_SLUGS:
        data = await api("query($s: String!) { segment(slug: $s) { slug } }", s=slug)
        assert data["segment"]["slug"] == slug


@pytest.mark.parametrize(
    ("field", "text", "allowed"),
    [
        ("name", "", NAME_ALLOWED),
        ("name", "x" * 256, NAME_ALLOWED),
        ("name", "\N{BATH}" * 256, NAME_ALLOWED),
        ("name", "a\0b", NAME_ALLOWED),
        ("description", "x" * 4097, DESCRIPTION_ALLOWED),
        ("description", "\0", DESCRIPTION_ALLOWED),
    ],
    ids=lambda value: ascii(value)[:20],
)
async def test_text_that_cannot_be_stored_is_rejected(
    api: Api, sql: Sql, field: str, text: str, allowed: str
) -> None:
    await make_segments(api, "A")
    before = await all_rows(sql)
    for payload in (
        await create_segment(api, slug="B", **{field: text}),
        await update_segment(api, slug="A", **{field: text}),
    ):
        assert payload_errors(payload) == [("INVALID_INPUT", [field], allowed)]
    assert await all_rows(sql) == before


async def test_longest_texts_are_stored_unchanged(api: Api) -> None:
    texts = {"name": "\N{BATH}" * 255, "description": "ü\n\t\x01" * 1024}
    created = (await create_segment(api, slug="A", **texts))["segment"]
    assert {field: created[field] for field in texts} == texts
    assert (await update_segment(api, slug="A", description=""))["segment"]["description"] == ""


@pytest.mark.parametrize("version", [0, -1, -(2**31)])
async def test_version_below_one_is_rejected(api: Api, sql: Sql, version: int) -> None:
    await make_segments(api, "A")
    before = await all_rows(sql)
    payload = await update_segment(api, slug="A", name="New", expectedVersion=version)
    assert payload_errors(payload) == [("INVALID_INPUT", ["expectedVersion"], VERSION_ALLOWED)]
    assert await all_rows(sql) == before


async def test_all_errors_of_a_segment_are_returned_at_once(api: Api, sql: Sql) -> None:
    payload = await create_segment(api, slug="A B", name="", description="\0")
    assert payload_errors(payload) == [
        ("INVALID_INPUT", ["slug"], SLUG_ALLOWED),
        ("INVALID_INPUT", ["name"], NAME_ALLOWED),
        ("INVALID_INPUT", ["description"], DESCRIPTION_ALLOWED),
    ]
    assert await sql.fetchval("SELECT count(*) FROM segments") == 0


async def test_lone_surrogate_is_rejected_before_execution(api: Api, sql: Sql) -> None:
    for body in (
        # The surrogate is sent as a JSON escape in a variable, and as a GraphQL escape in the
        # document.
        rb'{"query": "mutation($n: String) { createSegment(input: {slug: \"A\", name: $n}) {'
        rb' segment { id } } }", "variables": {"n": "\ud800"}}',
        rb'{"query": "mutation { createSegment(input: {slug: \"A\", name: \"\\ud800\"}) {'
        rb' segment { id } } }"}',
        rb'{"query": "mutation { createSegment(input: {slug: \"A\", name: \"\ud800\"}) {'
        rb' segment { id } } }"}',
    ):
        response = await api.http.post(
            "/graphql", content=body, headers={"content-type": "application/json"}
        )
        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == "BAD_REQUEST"
        assert "data" not in response.json()
        assert await sql.fetchval("SELECT count(*) FROM segments") == 0
