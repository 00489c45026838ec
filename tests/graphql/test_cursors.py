"""Connections accept `first` and cursors."""

import pytest

from graphql import get_named_type
from tests.conftest import Api, Sql
from tests.graphql.cursor_lists import (
    LISTS,
    ONE_OF_EACH_SHAPE,
    SAME,
    cursors,
    page,
    query,
    query_of,
    rejection,
)
from tests.graphql.schema_walk import object_type_paths

pytestmark = pytest.mark.usefixtures("three_of_each")


async def test_first_limits_the_page_and_null_means_fifty(api: Api) -> None:
    for name in ONE_OF_EACH_SHAPE:
        for first in (1, 2, 3):
            assert len(page(await api(query(name), first=first))["nodes"]) == first
        absent = await api(query(name, "after: $after").replace("$first: Int = 2, ", ""))
        assert page(absent) == page(await api(query(name), first=50))
        assert page(absent) == page(await api(query(name), first=None))


FILTERS_BY_FIELD = {
    "Query.users": set(),
    "Query.segments": {"prefix", "search", "includeDeleted"},
    "Query.auditLog": {"slug", "actor", "from", "to"},
    "Query.history": {"userId", "slug", "from", "to"},
    "Query.reports": {"userId"},
    "Query.imports": {"slug"},
    "Query.exports": {"slug"},
    "Query.apiKeys": set(),
    "User.history": {"slug", "from", "to"},
    "Segment.members": set(),
}


def test_every_list_and_filter_of_the_schema_is_covered() -> None:
    """If this fails, add the new list, or the list with the new filter, to `LISTS`."""
    assert {
        f"{parent.name}.{name}": field.args.keys() - {"first", "after"}
        for parent, _ in object_type_paths()
        for name, field in parent.fields.items()
        if get_named_type(field.type).name.endswith("Connection")
    } == FILTERS_BY_FIELD


async def test_default_page_has_fifty_nodes(api: Api, sql: Sql) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(4, 101) AS n")
    for arguments in ({"first": None}, {"first": 50}):
        assert len(page(await api(query("users"), **arguments))["nodes"]) == 50
    assert len(page(await api(query("users"), first=100))["nodes"]) == 100


async def test_first_below_one_is_rejected(api: Api) -> None:
    for name in LISTS:
        for first in (0, -1, -(2**31)):
            error = await api.error(query(name), first=first)
            assert error["extensions"] == rejection("first", "1 to 100")


async def test_first_above_one_hundred_exceeds_the_limit(api: Api) -> None:
    for name in LISTS:
        assert (await api.error(query(name), first=101))["extensions"] == {
            "code": "LIMIT_EXCEEDED",
            "argument": "first",
            "limit": 100,
            "value": 101,
        }


@pytest.mark.parametrize("name", LISTS)
async def test_cursor_continues_its_list(api: Api, name: str) -> None:
    # The cursors of `pageInfo` are those of the edges.
    template = query(name).replace("hasNextPage", "startCursor endCursor hasPreviousPage")
    whole = page(await api(template, first=3))
    ends = (whole["pageInfo"]["startCursor"], whole["pageInfo"]["endCursor"])
    assert ends == (whole["edges"][0]["cursor"], whole["edges"][-1]["cursor"])
    rest = page(await api(template, first=2, after=ends[0]))
    assert rest["nodes"] == whole["nodes"][1:]
    assert [edge["cursor"] for edge in rest["edges"]] == [
        edge["cursor"] for edge in whole["edges"][1:]
    ]
    assert rest["pageInfo"]["hasPreviousPage"] is True


@pytest.mark.parametrize("name", SAME)
async def test_equivalent_request_accepts_the_cursor(api: Api, name: str) -> None:
    (cursor, *_) = await cursors(api, name)
    expected = page(await api(query(name), after=cursor))
    for other in SAME[name]:
        assert page(await api(query_of(other), after=cursor)) == expected, other


async def test_cursor_is_short(api: Api) -> None:
    for name, most in {
        "users": 16,
        "members": 16,
        "segments": 16,
        "history": 64,
        "audit log": 40,
    }.items():
        for cursor in await cursors(api, name):
            assert len(cursor) <= most, name
