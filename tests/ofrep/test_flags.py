"""The evaluation of all flags: which segments are in it, and its entity tag."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from segmentql.ofrep.service import MAX_FLAGS
from segmentql.settings import Settings
from tests.back_dating import insert_membership
from tests.conftest import Api, Sql, serving
from tests.ofrep.client import (
    BY_HAND,
    BY_ROLLOUT,
    EXPIRED,
    FLAGS,
    UNSTORED,
    body_of,
    evaluate,
    false_flag,
    store_memberships,
)
from tests.operations import delete_segment, make_segments

pytestmark = pytest.mark.usefixtures("long_connection_timeout")


async def flags_of(api: Api, targeting_key: str = "1") -> list[dict[str, Any]]:
    response = await evaluate(api, None, targeting_key)
    assert response.status_code == 200
    flags: list[dict[str, Any]] = response.json()["flags"]
    return flags


@pytest.fixture
async def prefix_api(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """Run a service whose responses with all flags have the segments that begin with `web.`."""
    async with serving(settings.model_copy(update={"ofrep_prefix": "web."})) as api:
        yield api


async def test_all_live_segments_are_in_order_of_their_slugs(api: Api, sql: Sql) -> None:
    assert (await evaluate(api, None, "1")).json() == {
        "flags": [],
        "metadata": {"truncated": False},
    }
    await store_memberships(api, sql)
    await make_segments(api, "GONE")
    await insert_membership(sql, 1, "GONE")
    await delete_segment(api, slug="GONE")
    assert (await evaluate(api, None, "1")).json() == {
        "flags": [BY_HAND, BY_ROLLOUT, EXPIRED],
        "metadata": {"truncated": False},
    }
    assert await flags_of(api, UNSTORED) == [false_flag(slug) for slug in "ABC"]


async def test_flags_of_a_user_key(key_api: Api, sql: Sql) -> None:
    await store_memberships(key_api, sql)
    assert await flags_of(key_api, "ada") == [BY_HAND, BY_ROLLOUT, EXPIRED]
    assert await flags_of(key_api, "eve") == [false_flag(slug) for slug in "ABC"]


async def test_prefix_selects_the_segments(prefix_api: Api, sql: Sql) -> None:
    await make_segments(prefix_api, "web.b", "web.a", "web", "wea", "webb", "Web.a")
    await insert_membership(sql, 1, "web.b")
    await insert_membership(sql, 1, "webb")
    assert [(flag["key"], flag["value"]) for flag in await flags_of(prefix_api)] == [
        ("web.a", False),
        ("web.b", True),
    ]
    assert (await evaluate(prefix_api, "webb", "1")).json()["value"] is True


async def test_segment_beyond_the_maximum_does_not_displace_an_older_one(
    api: Api, sql: Sql
) -> None:
    await sql.execute(
        """
        INSERT INTO segments (slug, created_at, updated_at)
        SELECT 'S' || n, now(), now() FROM generate_series(1, $1) AS n
        """,
        MAX_FLAGS,
    )
    full = await evaluate(api, None, "1")
    assert full.json()["metadata"] == {"truncated": False}
    assert len(full.json()["flags"]) == MAX_FLAGS
    await make_segments(api, "A")
    await insert_membership(sql, 1, "A")
    truncated = await evaluate(api, None, "1")
    assert truncated.json() == {"flags": full.json()["flags"], "metadata": {"truncated": True}}


async def test_unchanged_flags_are_not_sent_again(api: Api, sql: Sql) -> None:
    await store_memberships(api, sql)
    first = await evaluate(api, None, "1")
    tag = first.headers["etag"]
    for header, same_tag in (
        (tag, tag),
        (f"W/{tag}", f"W/{tag}"),
        (f'"other", {tag}', tag),
        ("*", tag),
    ):
        same = await evaluate(api, None, "1", **{"if-none-match": header})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", same_tag)
        assert "content-length" not in same.headers
        assert same.headers["x-request-id"]
    lines = [("if-none-match", tag), ("if-none-match", '"other"')]
    same = await api.http.post(FLAGS, json=body_of("1"), headers=lines)
    assert same.status_code == 304
    for header in ('"other"', tag.strip('"'), ""):
        response = await evaluate(api, None, "1", **{"if-none-match": header})
        assert (response.status_code, response.json()) == (200, first.json())


async def test_each_change_has_another_entity_tag(api: Api, sql: Sql) -> None:
    await store_memberships(api, sql)
    tags = [(await evaluate(api, None, UNSTORED)).headers["etag"]]

    async def note_change() -> None:
        response = await evaluate(api, None, "1", **{"if-none-match": tags[-1]})
        assert response.status_code == 200
        tags.append(response.headers["etag"])

    await note_change()
    # No worker records this leave.
    await sql.execute(
        "UPDATE memberships SET expires_at = joined_at + interval '1 hour' WHERE expires_at IS NULL"
    )
    await note_change()
    await make_segments(api, "D")
    await note_change()
    await delete_segment(api, slug="B")
    await note_change()
    assert len(set(tags)) == 5
