"""`segments` finds a text in slugs and names, and lists deleted segments on request."""

import random
from typing import Any

import pytest

from segmentql.segments.pages import MAX_SEARCH_CANDIDATES
from tests.conftest import Api, Sql
from tests.operations import create_segment, delete_segment, make_segments, update_segment
from tests.query_plans import captured_statements, scanned_rows

SEARCH = """
query($first: Int, $after: String, $prefix: String, $search: String, $deleted: Boolean) {
  segments(
    first: $first, after: $after, prefix: $prefix, search: $search, includeDeleted: $deleted
  ) {
    nodes { id slug name deletedAt } pageInfo { hasNextPage endCursor }
  }
}
"""


async def page(api: Api, **arguments: Any) -> Any:
    return (await api(SEARCH, **arguments))["segments"]


async def slugs(api: Api, **arguments: Any) -> list[str]:
    return [node["slug"] for node in (await page(api, **arguments))["nodes"]]


async def walk(api: Api, **arguments: Any) -> list[str]:
    """Return the ids of all pages of three segments."""
    found: list[str] = []
    after = None
    while True:
        next_page = await page(api, first=3, after=after, **arguments)
        found += [node["id"] for node in next_page["nodes"]]
        after = next_page["pageInfo"]["endCursor"]
        if not next_page["pageInfo"]["hasNextPage"]:
            return found


async def make_named(api: Api, names: dict[str, str | None]) -> None:
    for slug, name in names.items():
        assert (await create_segment(api, slug=slug, name=name))["errors"] == []


# --- Search ---------------------------------------------------------------------------------------


async def test_search_finds_a_part_of_the_slug_or_of_the_name(api: Api) -> None:
    names = {"checkout-v2": None, "c": "New checkout", "other": "Payment", "x": "CHECK the outlet"}
    await make_named(api, names)
    assert await slugs(api, search="checkout") == ["c", "checkout-v2"]
    assert await slugs(api, search="ckout-v") == ["checkout-v2"]
    assert await slugs(api, search="out") == ["c", "checkout-v2", "x"]
    assert await slugs(api, search="t") == ["c", "checkout-v2", "other", "x"]
    assert await slugs(api, search="w ch") == ["c"]
    assert await slugs(api, search="checkoutt") == []


async def test_search_does_not_join_the_slug_and_the_name(api: Api) -> None:
    await make_named(api, {"ab": "cd"})
    assert await slugs(api, search="bc") == await slugs(api, search="abcd") == []


async def test_trigrams_in_another_order_are_no_match(api: Api) -> None:
    await make_named(api, {"x": "bcdab-abc", "y": "abcd"})  # x has the trigrams of abcd
    assert await slugs(api, search="abcd") == ["y"]


@pytest.mark.parametrize(
    ("name", "searches"),
    [
        ("Checkout", ["checkout", "CHECKOUT", "cHeCk"]),
        ("Ärger in ÅLESUND", ["ärger", "ÄRGER", "ålesund"]),
        ("Straße", ["strasse", "STRASSE", "STRAẞE", "straße"]),
        ("ΟΔΟΣ", ["οδος", "οδοσ", "Οδος"]),
        ("Щипцы", ["ЩИПЦЫ", "иПц"]),
        ("中文名", ["中文", "文", "中文名"]),
        ("party 🎉!", ["🎉", "Y 🎉!"]),
    ],
)
async def test_search_ignores_the_case_of_every_script(
    api: Api, name: str, searches: list[str]
) -> None:
    await make_named(api, {"S": name, "T": None})
    for search in searches:
        assert await slugs(api, search=search) == ["S"], search


async def test_search_keeps_accents(api: Api) -> None:
    await make_named(api, {"S": "Café"})
    assert await slugs(api, search="cafe") == []
    assert await slugs(api, search="cafe\u0301") == []  # the accent as a combining character
    assert await slugs(api, search="CAFÉ") == ["S"]


SPECIAL = "%_\\'\":*&|!()<-> \t"


@pytest.mark.parametrize("character", SPECIAL)
async def test_every_character_of_a_search_is_literal(api: Api, character: str) -> None:
    await make_named(api, {"plain": "a plain name", "S": f"x{character}y{character}{character}z"})
    assert await slugs(api, search=character) == (["S", "plain"] if character == " " else ["S"])
    assert await slugs(api, search=f"x{character}y") == ["S"]
    assert await slugs(api, search=character * 2) == ["S"]
    assert await slugs(api, search=f"{character}y{character}{character}z") == ["S"]
    assert await slugs(api, search=character * 3) == []


async def test_empty_or_null_search_selects_all(api: Api) -> None:
    await make_segments(api, "A", "b")
    assert await slugs(api, search="") == await slugs(api, search=None) == ["A", "b"]


@pytest.mark.parametrize("search", ["a" * 256, "a\0b"])
async def test_invalid_search_is_rejected_by_name(api: Api, search: str) -> None:
    assert (await api.error(SEARCH, search=search))["extensions"] == {
        "code": "BAD_REQUEST",
        "argument": "search",
        "allowed": "0 to 255 characters, without NUL and unpaired surrogates",
    }


async def test_longest_name_is_found_by_itself(api: Api) -> None:
    name = "".join(chr(0x4E00 + number) for number in range(255))
    await make_named(api, {"S": name, "T": name[1:]})
    assert await slugs(api, search=name) == ["S"]
    assert await slugs(api, search=name[1:]) == ["S", "T"]


async def test_search_follows_the_name(api: Api) -> None:
    await make_named(api, {"S": "before"})
    await update_segment(api, slug="S", name="after")
    assert await slugs(api, search="before") == []
    assert await slugs(api, search="after") == ["S"]
    await update_segment(api, slug="S", name=None)
    assert await slugs(api, search="after") == []


async def test_search_and_prefix_combine(api: Api) -> None:
    await make_named(api, {"A1": "red", "A2": "blue", "B1": "red", "a3": "red"})
    assert await slugs(api, search="RED", prefix="A") == ["A1"]
    assert await slugs(api, search="1", prefix="A") == ["A1"]


async def test_random_searches_find_what_a_scan_finds(api: Api) -> None:
    dice = random.Random(5)  # noqa: S311 - the same names each time

    def text(alphabet: str, longest: int) -> str:
        return "".join(dice.choice(alphabet) for _ in range(dice.randint(1, longest)))

    names = {f"{text('abAB', 8)}{number}": text("abAB %'\\ßé", 12) for number in range(60)}
    await make_named(api, dict(names))
    for _ in range(150):
        search = text("abAB1 %'\\ßé", 5)
        folded = search.casefold()
        expected = sorted(
            slug
            for slug, name in names.items()
            if folded in slug.casefold() or folded in name.casefold()
        )
        assert await slugs(api, search=search, first=100) == expected, search


# --- Deleted segments -----------------------------------------------------------------------------


async def test_deleted_segments_are_listed_only_on_request(api: Api) -> None:
    await make_segments(api, "A", "B")
    await delete_segment(api, "A")
    assert await slugs(api) == await slugs(api, deleted=False) == await slugs(api, deleted=None)
    assert await slugs(api) == ["B"]
    assert [
        (node["slug"], node["deletedAt"] is None)
        for node in (await page(api, deleted=True))["nodes"]
    ] == [("A", False), ("B", True)]


async def reuse_slugs(api: Api) -> None:
    """Create segments 1 to 9 with two slugs. Only the last two are not deleted."""
    for slug in ("A", "B", "A", "A", "B", "A", "A"):
        await make_segments(api, slug)
        await delete_segment(api, slug)
    await make_segments(api, "A", "B")


async def test_segments_with_one_slug_are_ordered_by_age(api: Api) -> None:
    await reuse_slugs(api)
    expected = [f"seg_{number}" for number in (1, 3, 4, 6, 7, 8, 2, 5, 9)]
    assert [node["id"] for node in (await page(api, deleted=True))["nodes"]] == expected
    assert await walk(api, deleted=True) == expected
    assert await walk(api, deleted=True, prefix="B") == expected[6:]
    assert await walk(api, deleted=True, search="a") == expected[:6]


async def test_deleted_segments_are_found_by_their_name(api: Api) -> None:
    await make_named(api, {"A": "old name"})
    await delete_segment(api, "A")
    await make_named(api, {"A": "new name"})
    assert await walk(api, search="OLD") == []
    assert await walk(api, search="OLD", deleted=True) == ["seg_1"]
    assert await walk(api, search="NAME", deleted=True) == ["seg_1", "seg_2"]


# --- Many segments --------------------------------------------------------------------------------

MANY = 9_000


async def store_many(sql: Sql) -> None:
    """Store segments of which one has the name "rare", and every third the name "common ..."."""
    await sql.execute(
        """
        INSERT INTO segments (slug, name, created_at, updated_at)
        SELECT 's' || lpad(n::text, 5, '0'),
            CASE WHEN n = 8000 THEN 'A rare one' WHEN n % 3 = 0 THEN 'common ' || n END,
            '2024-01-01Z', '2024-01-01Z'
        FROM generate_series(1, $1::integer) AS n
        """,
        MANY,
    )
    await sql.execute("VACUUM ANALYZE segments")


async def test_search_reads_few_of_many_segments(api: Api, sql: Sql) -> None:
    await store_many(sql)
    limits = {
        "rare": 1,  # only the row that is found
        "s08000": 1,
        "none of them": 0,
        "zz": 0,
        # Candidates up to the maximum, and then the first page in order.
        "common": MAX_SEARCH_CANDIDATES + 1 + 3 * 11,
        "m": MAX_SEARCH_CANDIDATES + 1 + 3 * 11,
    }
    for deleted in (False, True):
        for search, limit in limits.items():
            with captured_statements() as statements:
                found = await slugs(api, search=search, deleted=deleted, first=10)
            ((statement, parameters),) = statements
            assert len(found) == min(10, limit), search
            assert await scanned_rows(sql, statement, parameters) <= limit, search


@pytest.mark.parametrize("deleted", [False, True])
async def test_pages_of_a_common_text_continue(api: Api, sql: Sql, *, deleted: bool) -> None:
    await store_many(sql)
    expected = [f"s{number:05}" for number in range(3, MANY + 1, 3)]
    found: list[str] = []
    after = None
    while len(found) < 300:
        next_page = await page(api, first=100, after=after, search="COMMON", deleted=deleted)
        found += [node["slug"] for node in next_page["nodes"]]
        after = next_page["pageInfo"]["endCursor"]
    assert found == expected[:300]
    assert (
        await slugs(api, search="common", prefix="s08", deleted=deleted, first=100)
        == [slug for slug in expected if slug.startswith("s08")][:100]
    )


async def test_page_with_deleted_segments_reads_only_its_rows(api: Api, sql: Sql) -> None:
    """Ten thousand segments had the same slug."""
    await sql.execute(
        """
        INSERT INTO segments (slug, created_at, updated_at, deleted_at)
        SELECT 'A', '2024-01-01Z', '2024-01-01Z', '2024-01-02Z' FROM generate_series(1, 10000)
        """
    )
    await sql.execute("VACUUM ANALYZE segments")
    first = await page(api, first=10, deleted=True)
    with captured_statements() as statements:
        second = await page(api, first=10, deleted=True, after=first["pageInfo"]["endCursor"])
    assert [node["id"] for node in second["nodes"]] == [f"seg_{n}" for n in range(11, 21)]
    ((statement, parameters),) = statements
    assert await scanned_rows(sql, statement, parameters) <= 11
