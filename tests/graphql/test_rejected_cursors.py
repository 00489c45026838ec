"""Connections reject cursors that were changed, forged or made for another list."""

import base64
import hashlib
import json
import string

import pytest

from segmentql.graphql.types.pagination import CURSOR_ALLOWED
from tests.conftest import Api
from tests.graphql.cursor_lists import (
    LISTS,
    NO_FILTERS,
    ONE_OF_EACH_SHAPE,
    cursors,
    page,
    query,
    rejection,
)

pytestmark = pytest.mark.usefixtures("three_of_each")


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
