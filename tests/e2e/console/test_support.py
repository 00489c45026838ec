"""The three tasks of support: find a user, explain, and get a report."""

import csv
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Locator, expect

from tests.conftest import until
from tests.e2e.browser import needs_chromium
from tests.e2e.console.conftest import PATIENCE_MILLISECONDS, Console

pytestmark = [pytest.mark.e2e, needs_chromium]

KEY = "ada@example.com"
STAYS, LEAVES, RETURNS = "AVITO_DISCOUNT_30", "AVITO_DISCOUNT_50", "AVITO_VOICE_MESSAGES"
TTL_MINUTES = 0.05
"""The TTL that the test enters, 3 seconds."""

CREATE_USER = """
mutation ($key: String!) {
  createUser(input: {key: $key}) { user { id } errors { message } }
}
"""
ADD = """
mutation ($id: ID!, $slugs: [String!]!) {
  updateUserSegments(input: {userId: $id, add: $slugs}) { errors { message } }
}
"""
READ_HISTORY = """
query ($id: ID!) {
  history(first: 100, userId: $id) { nodes { at operation cause segment { slug } } }
}
"""


async def test_support_finds_a_user_explains_and_gets_a_report(console: Console) -> None:
    user_id = await store_user(console)
    await find_user(console, user_id)
    await explain(console, user_id)
    await remove_and_add(console, user_id)
    await get_report(console, user_id)


async def store_user(console: Console) -> str:
    """Return the id of a new user, who is in two segments."""
    created = await console.execute(CREATE_USER, key=KEY)
    user_id = str(created["createUser"]["user"]["id"])
    added = await console.execute(ADD, id=user_id, slugs=[STAYS, LEAVES])
    assert added == {"updateUserSegments": {"errors": []}}
    return user_id


async def find_user(console: Console, user_id: str) -> None:
    """Find the user by an id, by a key, and not by an unknown key."""
    page = console.page
    await console.open("/users")
    search = page.get_by_label("User id or key")
    await search.fill("nobody@example.com")
    await console.click("Find")
    await page.get_by_text("No user has the key").wait_for()

    await search.fill(user_id)
    await search.press("Enter")
    await page.get_by_role("heading", name=f"User {user_id}", level=1).wait_for()
    await page.get_by_text(f"Key {KEY}").wait_for()

    await console.open("/users")
    await search.fill(KEY)
    await search.press("Enter")
    await page.get_by_role("heading", name=f"User {user_id}", level=1).wait_for()
    rows = segments_of_user(console).locator("tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows).to_contain_text([STAYS, LEAVES])
    await expect(rows).to_contain_text(["By hand", "By hand"])
    history = section(console, "History")
    await expect(history.get_by_text(f"Joined {STAYS}")).to_be_visible()
    await expect(history.get_by_text(f"Joined {LEAVES}")).to_be_visible()
    await console.take_screenshot("user")


async def explain(console: Console, user_id: str) -> None:
    """Explain a membership now, and before the user joined."""
    page = console.page
    await page.get_by_role("link", name=f"Explain why the user is in {STAYS}").click()
    explanation = section(console, "Why is the user in a segment, or not?")
    await expect(explanation).to_contain_text(f"The user is in {STAYS}")
    await expect(explanation).to_contain_text("Added by hand on")
    await console.take_screenshot("explain-now")

    await explanation.get_by_text("In the past").click()
    past = datetime.now(UTC) - timedelta(days=1)
    await explanation.get_by_label("At", exact=True).fill(past.strftime("%Y-%m-%dT%H:%M:%S"))
    await explanation.get_by_role("button", name="Explain").click()
    await expect(explanation).to_contain_text(f"The user was not in {STAYS}")
    await console.take_screenshot("explain-past")

    await console.open(f"/users/{user_id}")
    await explanation.get_by_label("Segment").fill(RETURNS)
    await explanation.get_by_role("button", name="Explain").click()
    await expect(explanation).to_contain_text(f"The user is not in {RETURNS}")


async def remove_and_add(console: Console, user_id: str) -> None:
    """Remove the user from a segment, and add the user to another one for some seconds."""
    page = console.page
    await console.open(f"/users/{user_id}")
    table = segments_of_user(console)
    dialog = await console.open_dialog(f"Remove the user from {LEAVES}")
    await expect(dialog).to_contain_text(f"User {user_id} leaves {LEAVES} now.")
    await dialog.get_by_role("button", name="Remove the user").click()
    await page.get_by_text(f"User {user_id} left {LEAVES}.").wait_for()
    await expect(table.locator("tbody tr")).to_have_count(1)
    await expect(section(console, "History").get_by_text(f"Left {LEAVES}")).to_be_visible()

    dialog = await console.open_dialog("Add to segments")
    await dialog.get_by_label("Segments").fill("voice")
    await page.get_by_role("option", name=RETURNS).click()
    await page.keyboard.press("Tab")  # closes the list
    await dialog.get_by_role("radio", name="After a duration").check()
    await dialog.get_by_label("Duration", exact=True).fill(str(TTL_MINUTES))
    await dialog.get_by_role("combobox", name="Unit").click()
    await page.get_by_role("option", name="minutes").click()
    await dialog.get_by_role("button", name="Add to segments").click()
    await page.get_by_text("The user joined 1 segment.").wait_for()
    history = section(console, "History")
    await expect(history.get_by_text(f"Joined {RETURNS}")).to_be_visible()

    async def has_ended() -> bool:
        await page.get_by_role("link", name="Users", exact=True).click()
        await console.open(f"/users/{user_id}")
        await history.get_by_text("Joined").first.wait_for()
        return await history.get_by_text(f"Left {RETURNS}").count() == 1

    await until(has_ended, seconds=PATIENCE_MILLISECONDS / 1000)
    await expect(history.get_by_text("Time limit")).to_be_visible()
    await expect(table.locator("tbody tr")).to_have_count(1)
    await console.take_screenshot("user-after-ttl")


async def get_report(console: Console, user_id: str) -> None:
    """Create a report on the user and this month, and compare its rows with the history."""
    page = console.page
    nodes = (await console.execute(READ_HISTORY, id=user_id))["history"]["nodes"]
    now = datetime.fromisoformat(nodes[0]["at"].replace("Z", "+00:00"))
    await console.open("/reports")
    await page.get_by_label("User id").fill(user_id)
    await page.get_by_label("Month").select_option(str(now.month))
    await page.get_by_label("Year").fill(str(now.year))
    await console.click("Create report")
    row = page.get_by_role("table", name="Reports").get_by_role("row").nth(1)
    await expect(row).to_contain_text("Ready")
    await expect(row).to_contain_text(f"{now:%Y-%m}")
    await console.take_screenshot("reports")
    text = await console.download(row.get_by_role("link", name=re.compile("csv", re.IGNORECASE)))
    rows = [
        (row["user_id"], row["segment_slug"], row["operation"], row["executed_at"])
        for row in csv.DictReader(text.splitlines())
    ]
    assert sorted(rows) == sorted(expected_row(user_id, node) for node in nodes)
    assert len(rows) == 5


def expected_row(user_id: str, node: Any) -> tuple[str, ...]:
    """Return the row of the report for an entry of the history."""
    at = node["at"].replace("T", " ")[:19]
    return user_id, node["segment"]["slug"], node["operation"].translate(OPERATIONS)[:1], at


OPERATIONS = str.maketrans({"J": "I", "L": "D"})
"""The report says I for JOINED, and D for LEFT."""


def section(console: Console, title: str) -> Locator:
    return console.page.get_by_role("region", name=title)


def segments_of_user(console: Console) -> Locator:
    return console.page.get_by_role("table", name="Segments of the user")
