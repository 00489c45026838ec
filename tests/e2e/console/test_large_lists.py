"""Lists of 10,000 segments and of many members show at once and have pages.

The members are 100,000; SEGMENTQL_TEST_MEMBERS=1000000 is the long form.
"""

from typing import Any

import asyncpg
import pytest
from playwright.async_api import Error, Response, expect

from segmentql.settings import raw_value
from tests.e2e.browser import needs_chromium
from tests.e2e.console.conftest import MAX_PAGE_SIZE, Console
from tests.e2e.test_chaos import superuser_url
from tests.timeline import add_members

pytestmark = [
    pytest.mark.e2e,
    needs_chromium,
    pytest.mark.parametrize("auth", ["off"], indirect=True),
]

SEGMENTS = 10_000
MEMBERS = int(raw_value("test_members") or 100_000)
FIRST_USER_ID = 1_000_000
LARGE = "LARGE"

SEGMENTS_A_PAGE, MEMBERS_A_PAGE = 25, 50
PAGES = 4


async def test_large_lists_have_pages(console: Console) -> None:
    await store(console)
    responses: list[Response] = []
    console.page.on("response", lambda r: responses.append(r))  # noqa: PLW0108 (no built-in)
    await page_through_segments(console)
    await page_through_members(console)
    bodies = [await read_body(response) for response in responses]
    assert len([body for body in bodies if '"pageInfo"' in body]) >= 2 * PAGES
    assert [body for body in bodies if "LIMIT_EXCEEDED" in body or '"errors":[{' in body] == []
    assert max(console.page_sizes) <= MAX_PAGE_SIZE


async def read_body(response: Response) -> str:
    """Return the body, which is empty if the page has cancelled the request."""
    try:
        return await response.text() if response.url.endswith("/graphql") else ""
    except Error:
        return ""


async def store(console: Console) -> None:
    """Store the segments, and the members of one of them."""
    sql = await asyncpg.connect(superuser_url(console.up))
    await sql.execute(
        "INSERT INTO segments (slug, name, created_at, updated_at)"
        " SELECT 'SEGMENT_' || lpad(n::text, 5, '0'), 'Segment ' || n, now(), now()"
        " FROM generate_series(1, $1::int) AS n",
        SEGMENTS,
    )
    large = await sql.fetchval(
        "INSERT INTO segments (slug, created_at, updated_at)"
        " VALUES ($1, now() - interval '1 day', now()) RETURNING id",
        LARGE,
    )
    await add_members(sql, large, MEMBERS, first_user_id=FIRST_USER_ID)
    await sql.execute("ANALYZE users, segments, memberships")
    await sql.close()


async def page_through_segments(console: Console) -> None:
    page = console.page
    await console.open("/segments")
    rows = page.get_by_role("table", name="Segments").locator("tbody tr")
    seen = await page_through(console, rows, SEGMENTS_A_PAGE)
    assert len(seen) == PAGES * SEGMENTS_A_PAGE
    await console.click("Previous")
    await expect(rows.first).not_to_contain_text(seen[-SEGMENTS_A_PAGE])
    await expect(rows).to_have_count(SEGMENTS_A_PAGE)

    await page.get_by_label("Search segments").fill("segment 9999")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("SEGMENT_09999")
    await console.wait_until_loaded()
    await console.take_screenshot("large-search")


async def page_through_members(console: Console) -> None:
    page = console.page
    await console.open(f"/segments/{LARGE}")
    await page.get_by_text(f"{MEMBERS:,}", exact=True).first.wait_for()
    await console.wait_until_loaded()
    await console.take_screenshot("large-segment")
    await console.click("Members", "tab")
    await page.get_by_text(f"{MEMBERS:,} members").wait_for()
    rows = page.get_by_role("table", name="Members").locator("tbody tr")
    seen = await page_through(console, rows, MEMBERS_A_PAGE)
    assert len(seen) == PAGES * MEMBERS_A_PAGE
    await console.take_screenshot("large-members")

    last = str(FIRST_USER_ID + MEMBERS - 1)
    await page.get_by_label("Find a member").fill(last)
    await console.click("Find")
    await page.get_by_text(f"User {last} is a member.").wait_for()


async def page_through(console: Console, rows: Any, size: int) -> list[str]:
    """Show the first pages of a list, and return the first word of each row, without repeats."""
    seen: dict[str, None] = {}
    for number in range(PAGES):
        await expect(rows).to_have_count(size)
        texts = await rows.all_inner_texts()
        seen |= dict.fromkeys(text.split()[0] for text in texts)
        if number < PAGES - 1:
            first = texts[0].split()[0]
            await console.click("Next")
            await expect(rows.first).not_to_contain_text(first)
    return list(seen)
