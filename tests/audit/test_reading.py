"""`auditLog` returns the entries that the caller may see and that match the filters, in pages."""

from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.tables import Role
from segmentql.validators import SLUG_ALLOWED
from tests.audit.clients import AUDIT_LOG, Client, log
from tests.back_dating import HOUR, NOON
from tests.conftest import Api, Sql, recorded_statements
from tests.keys.clients import make_key
from tests.query_plans import captured_statements, scanned_rows

INSERT = """
INSERT INTO audit_log (at, action, target, actor, segment_id)
VALUES ($1, 'segment.updated', $2, $3, $4)
"""

SEGMENTS = """
INSERT INTO segments (slug, created_at, updated_at, deleted_at)
VALUES ('A', '2024-01-01Z', '2024-01-01Z', '2024-02-01Z'),
    ('B', '2024-01-01Z', '2024-01-01Z', NULL),
    ('A', '2024-03-01Z', '2024-03-01Z', NULL)
"""
"""Segments 1, 2 and 3. Segment 3 has the slug of the deleted segment 1."""


@pytest.fixture
async def clients(auth_api: Api, database: Database, sql: Sql) -> dict[str, Client]:
    """A client with each role, and a log of six entries, one for each hour from noon on."""
    with_key = {role.value: Client(auth_api, await make_key(database, role.value)) for role in Role}
    await sql.execute("DELETE FROM audit_log")
    await sql.execute(SEGMENTS)
    for hours, (target, actor, segment_id) in enumerate(
        [
            ("seg_1", "ada", 1),
            ("key_1", "ada", None),
            ("seg_2", "bob", 2),
            ("rep_1", "bob", None),
            ("rol_3", None, 3),
            ("seg_3", "Ada", 3),
        ]
    ):
        await sql.execute(INSERT, NOON + hours * HOUR, target, actor, segment_id)
    return with_key


@pytest.fixture
async def admin(clients: dict[str, Client]) -> Client:
    return clients["ADMIN"]


async def targets(client: Client, **arguments: Any) -> list[str]:
    return [entry["target"] for entry in await log(client, **arguments)]


def hour(number: int) -> str:
    return (NOON + number * HOUR).isoformat()


async def test_entries_are_listed_newest_first(admin: Client, sql: Sql) -> None:
    await sql.execute(INSERT, NOON, "seg_9", None, None)  # the same time as the oldest, a later id
    assert await targets(admin) == ["seg_3", "rol_3", "rep_1", "seg_2", "key_1", "seg_9", "seg_1"]


async def test_editor_sees_only_entries_of_segments(clients: dict[str, Client]) -> None:
    editor = clients["EDITOR"]
    assert await targets(editor) == ["seg_3", "rol_3", "seg_2", "seg_1"]
    assert await targets(editor, actor="ada") == ["seg_1"]
    assert await targets(editor, actor="bob", slug="B") == ["seg_2"]
    assert await targets(editor, slug="A", **{"from": hour(1)}) == ["seg_3", "rol_3"]


async def test_reader_may_not_read_the_log(clients: dict[str, Client]) -> None:
    body = await clients["READER"].body(AUDIT_LOG)
    assert body["data"] == {"auditLog": None}
    (error,) = body["errors"]
    assert error["extensions"] == {"code": "FORBIDDEN", "needed": "EDITOR", "role": "READER"}


async def test_everything_is_visible_if_keys_are_off(clients: dict[str, Client], api: Api) -> None:
    assert len(await log(api)) == 6


async def test_slug_matches_every_segment_that_had_it(admin: Client) -> None:
    assert await targets(admin, slug="A") == ["seg_3", "rol_3", "seg_1"]
    assert await targets(admin, slug="B") == ["seg_2"]
    assert await targets(admin, slug="NONE") == []
    assert await targets(admin, slug="A", actor="ada") == ["seg_1"]


async def test_actor_is_an_exact_name(admin: Client) -> None:
    assert await targets(admin, actor="ada") == ["key_1", "seg_1"]
    assert await targets(admin, actor="Ada") == ["seg_3"]
    assert await targets(admin, actor="ad%") == []
    assert await targets(admin, actor=None) == await targets(admin)


async def test_from_is_inclusive_and_to_is_exclusive(admin: Client) -> None:
    assert await targets(admin, **{"from": hour(3)}) == ["seg_3", "rol_3", "rep_1"]
    assert await targets(admin, to=hour(3)) == ["seg_2", "key_1", "seg_1"]
    assert await targets(admin, **{"from": hour(1), "to": hour(4)}) == ["rep_1", "seg_2", "key_1"]
    assert await targets(admin, **{"from": hour(3), "to": hour(3)}) == []


@pytest.mark.parametrize(
    ("arguments", "argument", "allowed"),
    [
        ({"slug": ""}, "slug", SLUG_ALLOWED),
        ({"slug": "a b"}, "slug", SLUG_ALLOWED),
        ({"actor": ""}, "actor", "1 to 255 characters, without NUL and unpaired surrogates"),
        ({"actor": "a" * 256}, "actor", "1 to 255 characters, without NUL and unpaired surrogates"),
        ({"actor": "\0"}, "actor", "1 to 255 characters, without NUL and unpaired surrogates"),
        ({"from": hour(2), "to": hour(1)}, "from", "a time that is not after `to`"),
    ],
)
async def test_invalid_filter_is_rejected_by_name(
    admin: Client, arguments: dict[str, Any], argument: str, allowed: str
) -> None:
    body = await admin.body(AUDIT_LOG, **arguments)
    (error,) = body["errors"]
    assert error["extensions"] == {
        "code": "BAD_REQUEST",
        "argument": argument,
        "allowed": allowed,
    }


async def walk(client: Client, **arguments: Any) -> list[str]:
    """Return the targets of all pages of two entries."""
    found, after = [], None
    while True:
        page = (await client(AUDIT_LOG, first=2, after=after, **arguments))["auditLog"]
        found += [node["target"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return found


async def test_pages_continue_for_every_combination_of_filters(
    clients: dict[str, Client], sql: Sql
) -> None:
    for _ in range(2):  # more entries, some of them at the same times
        await sql.execute(
            "INSERT INTO audit_log (at, action, target, actor, segment_id)"
            " SELECT at, action, target, actor, segment_id FROM audit_log"
        )
    for role in ("EDITOR", "ADMIN"):
        for slug in (None, "A", "B"):
            for actor in (None, "ada", "bob"):
                for times in ({}, {"from": hour(1), "to": hour(5)}):
                    filters = {"slug": slug, "actor": actor, **times}
                    whole = await targets(clients[role], **filters)
                    assert await walk(clients[role], **filters) == whole, (role, filters)


async def test_new_entries_between_pages_cause_no_gap_or_repeat(admin: Client, sql: Sql) -> None:
    page = (await admin(AUDIT_LOG, first=2))["auditLog"]
    await sql.execute(INSERT, NOON + 9 * HOUR, "seg_9", None, None)
    rest = await targets(admin, after=page["pageInfo"]["endCursor"])
    assert rest == ["rep_1", "seg_2", "key_1", "seg_1"]


async def test_several_lists_of_one_kind_take_one_statement(admin: Client) -> None:
    query = """{ a: auditLog(slug: "A", first: 2) { nodes { target } }
        b: auditLog(slug: "B") { nodes { target } } }"""
    await admin(query)
    with recorded_statements() as statements:
        data = await admin(query)
    assert data == {
        "a": {"nodes": [{"target": "seg_3"}, {"target": "rol_3"}]},
        "b": {"nodes": [{"target": "seg_2"}]},
    }
    assert len([each for each in statements if "FROM audit_log" in each]) == 1


async def test_entry_has_an_opaque_id(admin: Client, sql: Sql) -> None:
    number = await sql.fetchval("SELECT max(id) FROM audit_log")
    assert (await log(admin))[0]["id"] == f"aud_{number}"


# --- Indexes --------------------------------------------------------------------------------------

MANY = """
INSERT INTO segments (slug, created_at, updated_at)
SELECT 'S' || n, '2024-01-01Z', '2024-01-01Z' FROM generate_series(1, 20) AS n;
INSERT INTO audit_log (at, action, target, actor, segment_id)
SELECT '2020-01-01Z'::timestamptz + n * interval '1 minute', 'x.y', 'seg_' || n,
    'actor ' || n % 50, CASE WHEN n % 4 = 0 THEN 4 + n / 4 % 20 END
FROM generate_series(1, 40000) AS n;
"""
"""A quarter of the entries concern segments, 500 each. Actor 7 has 800 entries, none of them."""


@pytest.fixture
async def many_entries(clients: dict[str, Client], sql: Sql) -> Sql:
    await sql.execute(MANY)
    await sql.execute("VACUUM ANALYZE audit_log, segments")
    return sql


async def test_every_combination_of_filters_uses_an_index(
    many_entries: Sql, clients: dict[str, Client]
) -> None:
    rows = {}
    for role in ("EDITOR", "ADMIN"):
        for actor in (None, "actor 0", "actor 7", "unknown"):
            for slug in (None, "S7", "UNKNOWN"):
                filters = {"actor": actor, "slug": slug, "to": "2020-01-20T00:00:00Z"}
                with captured_statements() as statements:
                    await log(clients[role], first=10, **filters)
                (statement,) = [each for each in statements if "FROM audit_log" in each[0]]
                rows[role, actor, slug] = await scanned_rows(many_entries, *statement)
    # A page of up to 101 entries, or for an actor and a slug the entries of one segment.
    assert {filters: read for filters, read in rows.items() if read > 600} == {}
