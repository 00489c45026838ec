"""The default limits admit every maximum that is documented for a value, in whatever form it comes.

Each test sends values of the largest size, inline and in variables, and expects success.
"""

from typing import Any

import orjson
import pytest

from graphql import get_introspection_query
from segmentql import validators
from tests.conftest import Api, Sql
from tests.operations import make_segments

LONGEST_IDS = [str(validators.MAX_USER_ID - n) for n in range(validators.MAX_USERS_BY_ID)]
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
ALL_OF_A_SEGMENT = "id slug name description createdAt updatedAt deletedAt version"
ALL_OF_A_USER = (
    f"id createdAt segments {{ {ALL_OF_A_SEGMENT} }}"
    " memberships { id joinedAt updatedAt expiresAt cause actor segment { slug } }"
)


def quoted(texts: list[str]) -> str:
    """A list literal of strings."""
    return orjson.dumps(texts).decode()


def inline(value: Any) -> str:
    """A literal of GraphQL; strings are written as JSON writes them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return orjson.dumps(value).decode()


async def test_a_thousand_of_the_longest_ids_inline_and_in_a_variable(api: Api, sql: Sql) -> None:
    await sql.executemany(
        "INSERT INTO users VALUES ($1, now())", [(int(id_),) for id_ in LONGEST_IDS]
    )
    for ids in (quoted(LONGEST_IDS), inline([int(id_) for id_ in LONGEST_IDS])):
        data = await api(f"{{ usersById(ids: {ids}) {{ {ALL_OF_A_USER} }} }}")
        assert [user["id"] for user in data["usersById"]] == LONGEST_IDS
    query = f"query($ids: [ID!]!) {{ usersById(ids: $ids) {{ {ALL_OF_A_USER} }} }}"
    data = await api(query, ids=LONGEST_IDS)
    assert [user["id"] for user in data["usersById"]] == LONGEST_IDS


async def test_a_hundred_of_the_longest_slugs_inline_and_in_a_variable(api: Api) -> None:
    await make_segments(api, *LONGEST_SLUGS)
    change = f"""user {{ id segments {{ {ALL_OF_A_SEGMENT} }} }}
      segmentsAdded segmentsRemoved errors {{ code message path }}"""
    for user_id, field in ((1, "add"), (1, "remove")):
        given = {"userId": str(user_id), field: LONGEST_SLUGS}
        data = await api(
            f"mutation {{ updateUserSegments(input: {inline(given)}) {{ {change} }} }}"
        )
        assert data["updateUserSegments"]["errors"] == []
    query = f"""mutation($input: UpdateUserSegmentsInput!) {{
      updateUserSegments(input: $input) {{ {change} }} }}"""
    data = await api(query, input={"userId": "2", "add": LONGEST_SLUGS, "ttlSeconds": 315_360_000})
    assert data["updateUserSegments"]["segmentsAdded"] == len(LONGEST_SLUGS)


@pytest.mark.parametrize("kind", LONGEST_DESCRIPTIONS)
async def test_the_longest_names_and_descriptions_inline_and_in_a_variable(
    api: Api, kind: str
) -> None:
    wanted = {
        "slug": LONGEST_SLUGS[0],
        "name": LONGEST_NAME,
        "description": LONGEST_DESCRIPTIONS[kind],
        "rollout": {"stages": STAGES},
    }
    answer = f"{{ segment {{ {ALL_OF_A_SEGMENT} }} errors {{ code message path }} }}"
    data = await api(f"mutation {{ createSegment(input: {inline(wanted)}) {answer} }}")
    assert data["createSegment"]["segment"]["description"] == LONGEST_DESCRIPTIONS[kind]
    data = await api(
        f"mutation($input: CreateSegmentInput!) {{ createSegment(input: $input) {answer} }}",
        input={**wanted, "slug": LONGEST_SLUGS[1]},
    )
    assert data["createSegment"]["segment"]["name"] == LONGEST_NAME


async def test_fifty_stages_inline_and_in_a_variable(api: Api) -> None:
    await make_segments(api, "A")
    wanted = {"slug": "A", "rollout": {"stages": STAGES}}
    answer = "{ rollout { stages { percent startsAt status } } errors { code message path } }"
    for data in (
        await api(f"mutation {{ setRollout(input: {inline(wanted)}) {answer} }}"),
        await api(f"mutation($i: SetRolloutInput!) {{ setRollout(input: $i) {answer} }}", i=wanted),
    ):
        assert len(data["setRollout"]["rollout"]["stages"]) == validators.MAX_STAGES


PAGES = {
    "segments": f"{{ {ALL_OF_A_SEGMENT} memberCount rollout {{ status stages {{ percent }} }} }}",
    "users": f"{{ {ALL_OF_A_USER} }}",
    "history": "{ id at operation cause actor recordedAt user { id } segment { slug } }",
    "reports": "{ id userId year month status downloadUrl user { id } }",
    "apiKeys": "{ id name role createdAt }",
}


@pytest.mark.parametrize("first", [100, 100.0])
@pytest.mark.parametrize("name", PAGES)
async def test_pages_of_a_hundred_with_nodes_and_edges(api: Api, name: str, first: float) -> None:
    fields = PAGES[name]
    body = f"{{ nodes {fields} edges {{ cursor node {{ id }} }} pageInfo {{ endCursor }} }}"
    await api(f"query($first: Int) {{ {name}(first: $first) {body} }}", first=first)
    await api(f"{{ {name}(first: 100) {body} }}")


async def test_pages_of_a_hundred_within_pages_of_a_hundred(api: Api) -> None:
    await api("{ users(first: 100) { nodes { history(first: 100) { nodes { at } } } } }")
    await api("{ segments(first: 100) { nodes { members(first: 100) { nodes { joinedAt } } } } }")


async def test_introspection_with_all_that_clients_ask_for(api: Api) -> None:
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
