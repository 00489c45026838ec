"""Connections' arguments: `first` and cursors."""

import base64
import hashlib
import json
import string
from typing import Any

from segmentql.graphql.pagination import CURSOR_ALLOWED
from tests.conftest import Api, Sql
from tests.operations import change, make_segments

LISTS = {
    "users": "users({arguments}) {page}",
    "segments": "segments({arguments}) {page}",
    "history": "history({arguments}) {page}",
    "members": 'segment(slug: "A") {{ members({arguments}) {page} }}',
    "user's history": "user(id: 1) {{ history({arguments}) {page} }}",
}
PAGE = "{ nodes { id } edges { cursor } pageInfo { hasNextPage } }"


def query(name: str, arguments: str = "first: $first, after: $after") -> str:
    field = LISTS[name].format(arguments=arguments, page=PAGE)
    return f"query($first: Int = 2, $after: String) {{ __typename {field} }}"


def page(data: Any) -> Any:
    """The only connection of an answer."""
    (found,) = [value for key, value in data.items() if key != "__typename"]
    return found if "nodes" in found else page(found)


async def three_of_each(api: Api) -> None:
    """Three users, segments, members of A and entries of user 1's history."""
    await make_segments(api, "A", "B", "C")
    for user_id in (1, 2, 3):
        await change(api, user_id, add=["A"])
    await change(api, 1, add=["B", "C"])


async def cursors(api: Api, name: str) -> list[str]:
    return [edge["cursor"] for edge in page(await api(query(name)))["edges"]]


def refusal(argument: str, allowed: str) -> dict[str, str]:
    return {"code": "BAD_REQUEST", "argument": argument, "allowed": allowed}


async def test_first_is_how_many_and_null_is_the_default_of_fifty(api: Api) -> None:
    await three_of_each(api)
    for name in LISTS:
        for first in (1, 2, 3):
            assert len(page(await api(query(name), first=first))["nodes"]) == first
        absent = await api(query(name, "after: $after").replace("$first: Int = 2, ", ""))
        assert page(absent) == page(await api(query(name), first=50))
        assert page(absent) == page(await api(query(name), first=None))


async def test_the_default_page_has_fifty(api: Api, sql: Sql) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 101) AS n")
    for arguments in ({"first": None}, {"first": 50}):
        assert len(page(await api(query("users"), **arguments))["nodes"]) == 50
    assert len(page(await api(query("users"), first=100))["nodes"]) == 100


async def test_a_page_of_fewer_than_one_is_refused(api: Api) -> None:
    await three_of_each(api)
    for name in LISTS:
        for first in (0, -1, -(2**31)):
            error = await api.error(query(name), first=first)
            assert error["extensions"] == refusal("first", "1 to 100")


async def test_a_page_of_more_than_a_hundred_is_beyond_the_limit(api: Api) -> None:
    await three_of_each(api)
    for name in LISTS:
        assert (await api.error(query(name), first=101))["extensions"] == {
            "code": "LIMIT_EXCEEDED",
            "argument": "first",
            "limit": 100,
            "value": 101,
        }


async def test_a_cursor_leads_to_what_follows_it(api: Api) -> None:
    await three_of_each(api)
    for name in LISTS:
        whole = page(await api(query(name), first=3))
        rest = page(await api(query(name), first=2, after=whole["edges"][0]["cursor"]))
        assert rest["nodes"] == whole["nodes"][1:]


async def test_a_cursor_with_any_character_changed_is_refused(api: Api) -> None:
    await three_of_each(api)
    for name in LISTS:
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
                assert error["extensions"] == refusal("after", CURSOR_ALLOWED), tampered


async def test_the_last_character_of_a_cursor_has_one_spelling(api: Api) -> None:
    await three_of_each(api)
    cursor = (await cursors(api, "users"))[0]
    for other in set(string.ascii_letters + string.digits + "-_") - {cursor[-1]}:
        error = await api.error(query("users"), after=cursor[:-1] + other)
        assert error["extensions"] == refusal("after", CURSOR_ALLOWED), other


async def test_a_cursor_cut_or_added_to_is_refused(api: Api) -> None:
    await three_of_each(api)
    for name in LISTS:
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
            assert error["extensions"] == refusal("after", CURSOR_ALLOWED), tampered


async def test_what_never_was_a_cursor_is_refused(api: Api) -> None:
    await three_of_each(api)
    for name in LISTS:
        for text in ("", "1", "AAAA", "ö", "\0", "null", "A" * 100_000, "{}", "[]", "eyJpZCI6MX0="):
            error = await api.error(query(name), after=text)
            assert error["extensions"] == refusal("after", CURSOR_ALLOWED), ascii(text)[:50]


async def test_a_cursor_of_another_list_is_refused(api: Api) -> None:
    await three_of_each(api)
    for name in LISTS:
        for other in LISTS:
            if other.endswith("history") and name.endswith("history"):
                continue  # one order, so one kind of cursor
            (cursor, *_) = await cursors(api, other)
            if other != name:
                error = await api.error(query(name), after=cursor)
                assert error["extensions"] == refusal("after", CURSOR_ALLOWED), other


FORGED: tuple[tuple[object, ...], ...] = (
    ("users", 2**63),
    ("users", 2**64 - 1),
    ("users", 2**70),
    ("users", -(2**63) - 1),
    ("users", True),
    ("users", "1"),
    ("users",),
    ("users", 1, 1),
    (),
    ("members", 2**63),
    ("segments", 1),
    ("segments", "A\0"),
    ("segments", "not a slug"),
    ("history", 2**62, 1, "JOINED", "A", 1),
    ("history", -(2**62), 1, "JOINED", "A", 1),
    ("history", 0, 2**63, "JOINED", "A", 1),
    ("history", 0, 1, "NEITHER", "A", 1),
    ("history", 0, 1, "JOINED", "A\0", 1),
    ("history", 0, 1, "JOINED", "A", 2**63),
)
"""The list's kind and the sort key."""


def forged(*key: object) -> str:
    """A cursor with a true check sum, made by one who has read the code."""
    payload = json.dumps(key, separators=(",", ":")).encode()
    check = hashlib.blake2s(payload, digest_size=4).digest()
    return base64.urlsafe_b64encode(check + payload).rstrip(b"=").decode()


async def test_a_forged_cursor_is_refused_and_is_no_fault_of_ours(api: Api) -> None:
    await three_of_each(api)
    good = await api(query("users"), after=forged("users", 1))
    assert [node["id"] for node in page(good)["nodes"]] == ["2", "3"]
    for key in FORGED:
        for name in LISTS:
            error = await api.error(query(name), after=forged(*key))
            assert error["extensions"] == refusal("after", CURSOR_ALLOWED), key
