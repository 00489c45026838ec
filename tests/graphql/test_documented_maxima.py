"""The default limits admit every documented maximum of a value.

Each test sends values of the largest size, inline and in variables, and expects success.
"""

import json
from typing import Any

import orjson
import pytest

from graphql import get_introspection_query
from segmentql import validators
from tests.conftest import Api, Sql
from tests.operations import make_segments

LONGEST_IDS = [str(validators.MAX_USER_ID - n) for n in range(validators.MAX_USERS_PER_QUERY)]
LONGEST_SLUGS = [
    f"{n:03}".ljust(validators.MAX_SLUG_LENGTH, "S") for n in range(validators.MAX_SLUGS_PER_CHANGE)
]
LONGEST_NAME = "\N{GRINNING FACE}" * validators.MAX_NAME_LENGTH
LONGEST_DESCRIPTIONS = {
    "ASCII": "d" * validators.MAX_DESCRIPTION_LENGTH,
    "four bytes": "\N{GRINNING FACE}" * validators.MAX_DESCRIPTION_LENGTH,
    "escaped": "\x01" * validators.MAX_DESCRIPTION_LENGTH,
}
STAGES = [
    {"percent": round(0.001 * n, 3), "afterSeconds": 6_000_000 if n else 0}
    for n in range(validators.MAX_STAGES)
]
SEGMENT_FIELDS = "id slug name description createdAt updatedAt deletedAt version"
USER_FIELDS = (
    f"id createdAt segments {{ {SEGMENT_FIELDS} }}"
    " memberships { id joinedAt updatedAt expiresAt cause actor segment { slug } }"
)


def quoted(texts: list[str]) -> str:
    """Return a list literal of strings."""
    return orjson.dumps(texts).decode()


def inline(value: Any) -> str:
    """Return a GraphQL literal; strings are written as in JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return orjson.dumps(value).decode()


async def test_thousand_longest_ids_are_accepted(api: Api, sql: Sql) -> None:
    await sql.executemany(
        "INSERT INTO users VALUES ($1, now())", [(int(id_),) for id_ in LONGEST_IDS]
    )
    for ids in (quoted(LONGEST_IDS), inline([int(id_) for id_ in LONGEST_IDS])):
        data = await api(f"{{ usersById(ids: {ids}) {{ {USER_FIELDS} }} }}")
        assert [user["id"] for user in data["usersById"]] == LONGEST_IDS
    query = f"query($ids: [ID!]!) {{ usersById(ids: $ids) {{ {USER_FIELDS} }} }}"
    data = await api(query, ids=LONGEST_IDS)
    assert [user["id"] for user in data["usersById"]] == LONGEST_IDS


@pytest.mark.parametrize("character", ["k", "\N{GRINNING FACE}"], ids=["ASCII", "four bytes"])
async def test_thousand_longest_keys_are_accepted(api: Api, sql: Sql, character: str) -> None:
    keys = [
        f"{n:03}".ljust(validators.MAX_USER_KEY_LENGTH, character)
        for n in range(validators.MAX_USERS_PER_QUERY)
    ]
    await sql.executemany(
        "INSERT INTO users (id, key, created_at) VALUES ($1, $2, now())", list(enumerate(keys, 1))
    )
    query = f"query($keys: [String!]!) {{ usersByKey(keys: $keys) {{ {USER_FIELDS} key }} }}"
    data = await api(query, keys=keys)
    assert [user["key"] for user in data["usersByKey"]] == keys
    data = await api(f"{{ usersByKey(keys: {quoted(keys)}) {{ id }} }}")
    assert [user["id"] for user in data["usersByKey"]] == [str(n) for n in range(1, 1001)]


async def test_longest_keys_are_accepted_with_escapes(api: Api) -> None:
    """Many programs write each character outside of ASCII as `\\u` and four digits."""
    keys = ["\N{GRINNING FACE}" * validators.MAX_USER_KEY_LENGTH] * validators.MAX_USERS_PER_QUERY
    query = "query($keys: [String!]!) { usersByKey(keys: $keys) { id } }"
    body = json.dumps({"query": query, "variables": {"keys": keys}})
    response = await api.http.post(
        "/graphql", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.json()["data"] == {"usersByKey": [None] * len(keys)}


async def test_hundred_longest_slugs_are_accepted(api: Api) -> None:
    await make_segments(api, *LONGEST_SLUGS)
    change = f"""user {{ id segments {{ {SEGMENT_FIELDS} }} }}
      segmentsAdded segmentsRemoved errors {{ code message path }}"""
    for user_id, field in ((1, "add"), (1, "remove")):
        fields = {"userId": str(user_id), field: LONGEST_SLUGS}
        data = await api(
            f"mutation {{ updateUserSegments(input: {inline(fields)}) {{ {change} }} }}"
        )
        assert data["updateUserSegments"]["errors"] == []
    query = f"""mutation($input: UpdateUserSegmentsInput!) {{
      updateUserSegments(input: $input) {{ {change} }} }}"""
    data = await api(query, input={"userId": "2", "add": LONGEST_SLUGS, "ttlSeconds": 315_360_000})
    assert data["updateUserSegments"]["segmentsAdded"] == len(LONGEST_SLUGS)


@pytest.mark.parametrize("field", ["add", "remove"])
async def test_thousand_longest_users_of_a_change_are_accepted(api: Api, field: str) -> None:
    """By id and by key, inline and in variables."""
    await make_segments(api, LONGEST_SLUGS[0])
    keys = [
        f"{n:03}".ljust(validators.MAX_USER_KEY_LENGTH, "\N{GRINNING FACE}")
        for n in range(validators.MAX_USERS_PER_CHANGE)
    ]
    selection = "{ counts { outcome count } errors { code message path } }"
    for users in (
        {field: LONGEST_IDS},
        {f"{field}Keys": keys},
        {field: LONGEST_IDS[:500], f"{field}Keys": keys[:500]},
    ):
        fields = {"slug": LONGEST_SLUGS[0], **users}
        for data in (
            await api(f"mutation {{ updateSegmentMembers(input: {inline(fields)}) {selection} }}"),
            await api(
                "mutation($input: UpdateSegmentMembersInput!)"
                f" {{ updateSegmentMembers(input: $input) {selection} }}",
                input=fields,
            ),
        ):
            (entry,) = data["updateSegmentMembers"]["counts"]
            assert entry["count"] == validators.MAX_USERS_PER_CHANGE


@pytest.mark.parametrize("kind", LONGEST_DESCRIPTIONS)
async def test_longest_names_and_descriptions_are_accepted(api: Api, kind: str) -> None:
    fields = {
        "slug": LONGEST_SLUGS[0],
        "name": LONGEST_NAME,
        "description": LONGEST_DESCRIPTIONS[kind],
        "rollout": {"stages": STAGES},
    }
    selection = f"{{ segment {{ {SEGMENT_FIELDS} }} errors {{ code message path }} }}"
    data = await api(f"mutation {{ createSegment(input: {inline(fields)}) {selection} }}")
    assert data["createSegment"]["segment"]["description"] == LONGEST_DESCRIPTIONS[kind]
    data = await api(
        f"mutation($input: CreateSegmentInput!) {{ createSegment(input: $input) {selection} }}",
        input={**fields, "slug": LONGEST_SLUGS[1]},
    )
    assert data["createSegment"]["segment"]["name"] == LONGEST_NAME


async def test_fifty_stages_are_accepted(api: Api) -> None:
    await make_segments(api, "A")
    fields = {"slug": "A", "rollout": {"stages": STAGES}}
    selection = "{ rollout { stages { percent startsAt status } } errors { code message path } }"
    for data in (
        await api(f"mutation {{ setRollout(input: {inline(fields)}) {selection} }}"),
        await api(
            f"mutation($i: SetRolloutInput!) {{ setRollout(input: $i) {selection} }}", i=fields
        ),
    ):
        assert len(data["setRollout"]["rollout"]["stages"]) == validators.MAX_STAGES


PAGES = {
    "segments": f"{{ {SEGMENT_FIELDS} memberCount rollout {{ status stages {{ percent }} }} }}",
    "users": f"{{ {USER_FIELDS} }}",
    "history": "{ id at operation cause actor recordedAt user { id } segment { slug } }",
    "reports": "{ id userId year month status downloadUrl user { id } }",
    "apiKeys": "{ id name role createdAt }",
}


@pytest.mark.parametrize("first", [100, 100.0])
@pytest.mark.parametrize("name", PAGES)
async def test_pages_of_a_hundred_with_nodes_and_edges_are_accepted(
    api: Api, name: str, first: float
) -> None:
    fields = PAGES[name]
    selection = f"{{ nodes {fields} edges {{ cursor node {{ id }} }} pageInfo {{ endCursor }} }}"
    await api(f"query($first: Int) {{ {name}(first: $first) {selection} }}", first=first)
    await api(f"{{ {name}(first: 100) {selection} }}")


async def test_nested_pages_of_a_hundred_are_accepted(api: Api) -> None:
    await api("{ users(first: 100) { nodes { history(first: 100) { nodes { at } } } } }")
    await api("{ segments(first: 100) { nodes { members(first: 100) { nodes { joinedAt } } } } }")


async def test_most_points_of_member_counts_are_accepted(api: Api) -> None:
    await make_segments(api, "A")
    query = """query($points: Int) { segment(slug: "A") { memberCounts(
      from: "0001-01-01T00:00:00Z", to: "2024-01-01T00:00:00Z", points: $points
    ) { at count } } }"""
    data = await api(query, points=validators.MAX_COUNT_POINTS)
    assert len(data["segment"]["memberCounts"]) == validators.MAX_COUNT_POINTS
    fields = 'memberCounts(from: "2024-01-01T00:00:00Z", to: "2024-01-02T00:00:00Z") { count }'
    await api(f"{{ segments(first: 100) {{ nodes {{ {fields} }} }} }}")


async def test_full_introspection_query_is_accepted(api: Api) -> None:
    await api(
        get_introspection_query(
            descriptions=True,
            specified_by_url=True,
            directive_is_repeatable=True,
            schema_description=True,
            input_value_deprecation=True,
            one_of=True,
        )
    )
