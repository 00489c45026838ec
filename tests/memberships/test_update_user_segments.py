"""`updateUserSegments`: adding, removing and re-adding by hand."""

from tests.conftest import Api, Sql

UPDATE = """
mutation Update($input: UpdateUserSegmentsInput!) {
  updateUserSegments(input: $input) {
    user { id segments { slug } memberships { joinedAt expiresAt cause segment { slug } } }
    segmentsAdded segmentsRemoved segmentsExtended
    errors { __typename code message path
      ... on SegmentNotFound { slugs } ... on InvalidInput { allowed } }
  }
}
"""


async def make_segments(api: Api, *slugs: str) -> None:
    for slug in slugs:
        await api("mutation($s: String!) { createSegment(input: {slug: $s}) { errors { code } } }", s=slug)


async def test_adds_and_removes_at_once_and_stores_the_user(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B", "C")
    first = (await api(UPDATE, input={"userId": "7", "add": ["B", "A"]}))["updateUserSegments"]
    assert [s["slug"] for s in first["user"]["segments"]] == ["A", "B"]
    assert first["segmentsAdded"] == 2
    second = (await api(UPDATE, input={"userId": "7", "add": ["C"], "remove": ["A"]}))[
        "updateUserSegments"
    ]
    assert [s["slug"] for s in second["user"]["segments"]] == ["B", "C"]
    assert (second["segmentsAdded"], second["segmentsRemoved"]) == (1, 1)
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_an_unknown_slug_changes_nothing_and_is_named(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    payload = (await api(UPDATE, input={"userId": "7", "add": ["A", "NOPE"], "remove": ["NEITHER"]}))[
        "updateUserSegments"
    ]
    assert payload["user"] is None
    assert payload["errors"] == [
        {
            "__typename": "SegmentNotFound",
            "code": "SEGMENT_NOT_FOUND",
            "message": "No segment bears: NOPE, NEITHER.",
            "path": ["add", "1"],
            "slugs": ["NOPE", "NEITHER"],
        }
    ]
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 0
