"""Connections accept `first` and cursors, and reject wrong ones."""

import base64
import hashlib
import json
import string
from typing import Any

import pytest

from graphql import get_named_type
from segmentql.graphql.types.pagination import CURSOR_ALLOWED
from tests.conftest import Api, Sql
from tests.graphql.schema_walk import object_type_paths
from tests.operations import make_segments, update_user_segments
from tests.sample_data import INSERT_IMPORT

MARCH = 'from: "2024-03-01T00:00:00Z"'
FAR = 'to: "2100-01-01T00:00:00Z"'
LISTS = {
    "users": "users({arguments}) {page}",
    "segments": "segments({arguments}) {page}",
    "segments by prefix": 'segments({arguments}, prefix: "A") {page}',
    "segments by search": 'segments({arguments}, search: "a") {page}',
    "segments by another search": 'segments({arguments}, search: "A") {page}',
    "segments by prefix and search": 'segments({arguments}, prefix: "A", search: "a") {page}',
    "segments with deleted ones": "segments({arguments}, includeDeleted: true) {page}",
    "segments with deleted ones by search": (
        'segments({arguments}, includeDeleted: true, search: "a") {page}'
    ),
    "history": "history({arguments}) {page}",
    "history of a user": "history({arguments}, userId: 2) {page}",
    "history of a slug": 'history({arguments}, slug: "A") {page}',
    "history of another slug": 'history({arguments}, slug: "AB") {page}',
    "history from a moment": f"history({{arguments}}, {MARCH}) {{page}}",
    "history to a moment": f"history({{arguments}}, {FAR}) {{page}}",
    "members": 'segment(slug: "A") {{ members({arguments}) {page} }}',
    "members of another segment": 'segment(slug: "AB") {{ members({arguments}) {page} }}',
    "user's history": "user(id: 1) {{ history({arguments}) {page} }}",
    "user's history of a slug": 'user(id: 1) {{ history({arguments}, slug: "A") {page} }}',
    "another user's history": "user(id: 3) {{ history({arguments}) {page} }}",
    "reports": "reports({arguments}) {page}",
    "reports of a user": "reports({arguments}, userId: 1) {page}",
    "reports of another user": "reports({arguments}, userId: 2) {page}",
    "imports": "imports({arguments}) {page}",
    "imports of a slug": 'imports({arguments}, slug: "AB") {page}',
    "exports": "exports({arguments}) {page}",
    "exports of a slug": 'exports({arguments}, slug: "AB") {page}',
    "keys": "apiKeys({arguments}) {page}",
    "audit log": "auditLog({arguments}) {page}",
    "audit log of a slug": 'auditLog({arguments}, slug: "A") {page}',
    "audit log of an actor": 'auditLog({arguments}, actor: "A") {page}',
    "audit log from a moment": f"auditLog({{arguments}}, {MARCH}) {{page}}",
    "audit log to a moment": f"auditLog({{arguments}}, {FAR}) {{page}}",
}
"""Every connection with and without filters; no two entries are the same list."""

SAME = {
    "segments": [
        "segments({arguments}, prefix: null) {page}",
        'segments({arguments}, prefix: "") {page}',
        'segments({arguments}, search: "") {page}',
        "segments({arguments}, search: null, includeDeleted: null) {page}",
        "segments({arguments}, includeDeleted: false) {page}",
    ],
    "audit log": [
        "auditLog({arguments}, slug: null, actor: null, from: null, to: null) {page}",
    ],
    "audit log from a moment": [
        'auditLog({arguments}, from: "2024-03-01T03:00:00.000+03:00") {page}',
    ],
    "history of a user": [
        'history(userId: "2", {arguments}) {page}',
        "history({arguments}, userId: 2, slug: null, from: null, to: null) {page}",
        "user(id: 2) {{ history({arguments}) {page} }}",
    ],
    "history from a moment": [
        'history({arguments}, from: "2024-03-01T03:00:00.000+03:00") {page}',
    ],
    "reports": ["reports({arguments}, userId: null) {page}"],
    "reports of a user": ['reports({arguments}, userId: "1") {page}'],
}
"""Equivalent requests for the same list."""

ONE_OF_EACH_SHAPE = (
    "users",
    "segments",
    "segments with deleted ones",
    "history",
    "members",
    "user's history",
    "audit log",
)
"""One list of each shape, for tests that would take too long with all lists."""

NO_FILTERS = (None, None, None, None)
"""The filters of history (user, slug) and of the audit log (slug, actor), and `from` and `to`."""

PAGE = "{ nodes { id } edges { cursor } pageInfo { hasNextPage } }"


def query(name: str, arguments: str = "first: $first, after: $after") -> str:
    return query_of(LISTS[name], arguments)


def query_of(template: str, arguments: str = "first: $first, after: $after") -> str:
    field = template.format(arguments=arguments, page=PAGE)
    return f"query($first: Int = 2, $after: String) {{ __typename {field} }}"


def page(data: Any) -> Any:
    """Return the only connection of a response."""
    (connection,) = [value for key, value in data.items() if key != "__typename"]
    return connection if "nodes" in connection else page(connection)


@pytest.fixture(autouse=True)
async def three_of_each(api: Api, sql: Sql) -> None:
    """Store at least three nodes of each list."""
    await make_segments(api, "A", "AB", "AC")
    for user_id in (1, 2, 3):
        await update_user_segments(api, user_id, add=["A", "AB"])
        await update_user_segments(api, user_id, remove=["A"])
        await update_user_segments(api, user_id, add=["A"])
    await sql.execute(
        """
        INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
        SELECT user_id, 2024, month, 'QUEUED', '2025-01-01Z', '2025-01-01Z'
        FROM generate_series(1, 2) AS user_id, generate_series(1, 3) AS month;
        INSERT INTO exports (segment_id, status, as_of, cursor, gzip, created_at, next_attempt_at)
        SELECT segment_id, 'QUEUED', '2025-01-01Z', 'chg_MDo=', false, '2025-01-01Z', '2025-01-01Z'
        FROM generate_series(1, 2) AS segment_id, generate_series(1, 3) AS n;
        INSERT INTO api_keys (public_id, secret_hash, name, role, created_at)
        SELECT 'aaaaaaaaaaa' || n, sha256(n::text::bytea), 'key', 'READER', '2024-01-01Z'
        FROM generate_series(1, 3) AS n;
        INSERT INTO audit_log (action, target, actor, segment_id)
        SELECT 'segment.updated', 'seg_1', 'A', 1 FROM generate_series(1, 3) AS n;
        """
    )
    for _ in range(3):
        await sql.execute(INSERT_IMPORT.format(slug="A", status="COMPLETED"))
        await sql.execute(INSERT_IMPORT.format(slug="AB", status="VALIDATED"))


async def cursors(api: Api, name: str) -> list[str]:
    return [edge["cursor"] for edge in page(await api(query(name)))["edges"]]


def rejection(argument: str, allowed: str) -> dict[str, str]:
    return {"code": "BAD_REQUEST", "argument": argument, "allowed": allowed}


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


async def test_cursor_with_any_changed_character_is_rejected(api: Api) -> None:
    # This takes some seconds: a thousand requests, one for each wrong character.
    for name in ONE_OF_EACH_SHAPE:
        cursor = (await cursors(api, name))[0]
        alphabet = string.ascii_letters + string.digits + "-_"
        for position, character in enumerate(cursor):
            # The neighbours differ in the last bits, which the last character may not use.
            place = alphabet.index(character)
            for other in {alphabet[place - 1], alphabet[(place + 1) % 64], "A", "=", "+"}:
                if other == character:
                    continue
                tampered = cursor[:position] + other + cursor[position + 1 :]
                error = await api.error(query(name), after=tampered)
                assert error["extensions"] == rejection("after", CURSOR_ALLOWED), tampered


async def test_last_character_of_a_cursor_has_one_spelling(api: Api) -> None:
    cursor = (await cursors(api, "users"))[0]
    for other in set(string.ascii_letters + string.digits + "-_") - {cursor[-1]}:
        error = await api.error(query("users"), after=cursor[:-1] + other)
        assert error["extensions"] == rejection("after", CURSOR_ALLOWED), other


async def test_truncated_or_extended_cursor_is_rejected(api: Api) -> None:
    for name in ONE_OF_EACH_SHAPE:
        cursor = (await cursors(api, name))[0]
        for tampered in (
            cursor[1:],
            cursor[:-1],
            cursor + "A",
            cursor + "=",
            " " + cursor,
            cursor * 2,
        ):
            error = await api.error(query(name), after=tampered)
            assert error["extensions"] == rejection("after", CURSOR_ALLOWED), tampered


async def test_invalid_cursor_is_rejected(api: Api) -> None:
    for name in ONE_OF_EACH_SHAPE:
        for text in ("", "1", "AAAA", "ö", "\0", "null", "A" * 100_000, "{}", "[]", "eyJpZCI6MX0="):
            error = await api.error(query(name), after=text)
            assert error["extensions"] == rejection("after", CURSOR_ALLOWED), ascii(text)[:50]


async def test_cursor_of_another_list_or_filter_is_rejected(api: Api) -> None:
    first_cursors = {name: (await cursors(api, name))[0] for name in LISTS}
    assert len(set(first_cursors.values())) == len(LISTS)
    for name in LISTS:
        for other, cursor in first_cursors.items():
            if other != name:
                error = await api.error(query(name), after=cursor)
                assert error["extensions"] == rejection("after", CURSOR_ALLOWED), (name, other)


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


FORGED: tuple[tuple[str, tuple[object, ...], object], ...] = (
    ("users", (), [2**63]),
    ("users", (), [2**64 - 1]),
    ("users", (), [2**70]),
    ("users", (), [-(2**63) - 1]),
    ("users", (), [True]),
    ("users", (), ["1"]),
    ("users", (), []),
    ("users", (), [1, 1]),
    ("users", (), 1),
    ("users", (), None),
    ("users", (), {"id": 1}),
    ("members", (1,), [2**63]),
    ("segments", ("", ""), [1]),
    ("segments", ("", ""), ["A", 1]),
    ("segments", ("", ""), ["A\0"]),
    ("segments", ("", ""), ["not a slug"]),
    ("segments with deleted ones", ("", ""), ["A"]),
    ("segments with deleted ones", ("", ""), ["A", 0]),
    ("segments with deleted ones", ("", ""), ["A", "1"]),
    ("segments with deleted ones", ("", ""), ["A\0", 1]),
    ("audit log", NO_FILTERS, [0]),
    ("audit log", NO_FILTERS, [0, 0]),
    ("audit log", NO_FILTERS, [0, 2**63]),
    ("audit log", NO_FILTERS, [2**62, 1]),
    ("audit log", NO_FILTERS, ["0", 1]),
    ("history", NO_FILTERS, [2**62, 1, "JOINED", "A", 1]),
    ("history", NO_FILTERS, [-(2**62), 1, "JOINED", "A", 1]),
    ("history", NO_FILTERS, [0, 2**63, "JOINED", "A", 1]),
    ("history", NO_FILTERS, [0, 1, "NEITHER", "A", 1]),
    ("history", NO_FILTERS, [0, 1, "JOINED", "A\0", 1]),
    ("history", NO_FILTERS, [0, 1, "JOINED", "A", 2**63]),
)
"""The list, its filters, and the sort key."""


def forged(kind: str, filters: tuple[object, ...], key: object) -> str:
    """Return a cursor with a valid checksum, as a client could compute from the source code."""

    def to_json(value: object) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode()

    payload = to_json(key)
    check = hashlib.blake2s(to_json([kind, *filters]) + payload, digest_size=6).digest()
    return base64.urlsafe_b64encode(check + payload).rstrip(b"=").decode()


async def test_forged_cursor_is_rejected_without_a_fault(api: Api) -> None:
    data = await api(query("users"), after=forged("users", (), [1]))
    assert [node["id"] for node in page(data)["nodes"]] == ["2", "3"]
    data = await api(query("segments"), after=forged("segments", ("", ""), ["A"]))
    assert len(page(data)["nodes"]) == 2
    data = await api(
        query("segments with deleted ones"),
        after=forged("segments with deleted ones", ("", ""), ["A", 1]),
    )
    assert len(page(data)["nodes"]) == 2
    data = await api(query("audit log"), after=forged("audit log", NO_FILTERS, [0, 1]))
    assert page(data)["nodes"] == []
    data = await api(
        query("history"), after=forged("history", NO_FILTERS, [0, 1, "JOINED", "A", 1])
    )
    assert page(data)["nodes"] == []
    for forgery in FORGED:
        for name in ONE_OF_EACH_SHAPE:
            error = await api.error(query(name), after=forged(*forgery))
            assert error["extensions"] == rejection("after", CURSOR_ALLOWED), forgery
