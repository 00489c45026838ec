"""The tasks of an analyst: create a segment, load a list, roll out in stages, watch, export."""

import csv
import re
from typing import Any

import pytest
from playwright.async_api import expect

from tests.e2e.browser import needs_chromium
from tests.e2e.console.conftest import Console, read_download

pytestmark = [pytest.mark.e2e, needs_chromium]

SLUG, NAME = "CHECKOUT_BETA", "New checkout"
PATH = f"/segments/{SLUG}"

USERS = 5000
"""The number of users in the demo data."""
LISTED = range(1, 121)
"""The ids of stored users in the list."""
BAD_ROWS = ["ada@example.com", "-7", "99999999999999999999"]
ROWS = ["user_id", *map(str, LISTED), *BAD_ROWS, "1", "2"]
"""A header, the users, three rejected rows, and two repeated rows."""

READ_MEMBERS = """
query ($slug: String!, $after: String) {
  segment(slug: $slug) {
    memberCount
    rollout { status percent enrolled }
    members(first: 100, after: $after) {
      nodes { user { id } }
      pageInfo { hasNextPage endCursor }
    }
  }
}
"""
ADD_MEMBER = """
mutation ($slug: String!, $users: [ID!]!) {
  updateSegmentMembers(input: {slug: $slug, add: $users}) { errors { message } }
}
"""


async def test_analyst_creates_fills_rolls_out_watches_and_exports_a_segment(
    console: Console,
) -> None:
    await create_segment(console)
    await load_list(console)
    await roll_out_in_stages(console)
    await watch(console)
    await export(console)


async def create_segment(console: Console) -> None:
    """Create a segment after a first attempt with the slug of another one."""
    await console.open("/segments")
    dialog = await console.open_dialog("Create segment")
    slug = dialog.get_by_label("Slug")
    await slug.fill("AVITO_DISCOUNT_30")
    await dialog.get_by_role("button", name="Create segment").click()
    await expect(slug).to_have_attribute("aria-invalid", "true")
    await expect(slug).to_have_accessible_description(re.compile("AVITO_DISCOUNT_30"))
    await console.take_screenshot("create-segment-error")

    await slug.fill(SLUG)
    await dialog.get_by_label("Name").fill(NAME)
    await dialog.get_by_role("button", name="Create segment").click()
    await console.page.get_by_role("heading", name=NAME, level=1).wait_for()


async def load_list(console: Console) -> None:
    """Import a file with some bad rows: check it, accept the bad rows, and apply it."""
    page = console.page
    await console.click("Imports", "tab")
    await console.click("Import a list", "link")
    await page.locator("input[type=file]").set_input_files(
        {"name": "users.csv", "mimeType": "text/csv", "buffer": "\n".join(ROWS).encode()}
    )
    await console.click("Upload and check")
    await page.get_by_text("Correct the rejected rows").wait_for()
    rejected = page.get_by_role("table", name="Rejected rows").locator("tbody tr")
    await expect(rejected).to_have_count(len(BAD_ROWS))
    assert (await read_segment(console))["memberCount"] == 0
    await console.take_screenshot("import-refused")

    await console.click("Import again")
    await console.click("More options")
    await page.get_by_label("Rejected rows to accept").fill(str(len(BAD_ROWS)))
    await console.click("Upload and check")
    await page.get_by_role("heading", name="Forecast").wait_for()
    forecast = f"{len(LISTED)} users join."
    await page.get_by_text(f"If you apply the import: {forecast}").wait_for()
    await console.take_screenshot("import-forecast")
    dialog = await console.open_dialog("Apply")
    await expect(dialog).to_contain_text(f"Segment {SLUG}: {forecast}")
    await dialog.get_by_role("button", name="Apply the import").click()

    await page.get_by_text(f"The import is complete. {len(LISTED)} users joined.").wait_for()
    counts = await read_counts(console)
    assert counts == {
        "Join": len(LISTED),
        "Repeated": 2,
        "Malformed": 2,
        "Id too large": 1,
        "Header": 1,
        "All rows": len(ROWS),
    }
    assert sum(counts.values()) == 2 * len(ROWS)
    assert (await read_segment(console))["memberCount"] == len(LISTED)
    text = await console.download(page.get_by_role("button", name="Download the rejected rows"))
    assert sorted(row["value"] for row in csv.DictReader(text.splitlines())) == sorted(BAD_ROWS)
    await console.take_screenshot("import-completed")


async def read_counts(console: Console) -> dict[str, int]:
    """Return the numbers of rows by outcome, as the page shows them, with their total."""
    rows = console.page.get_by_role("table", name="Outcome of each row").locator("tr")
    cells = [(await row.inner_text()).split("\t") for row in await rows.all()]
    return {row[0].strip(): int(row[2].replace(",", "")) for row in cells[1:]}


async def roll_out_in_stages(console: Console) -> None:
    page = console.page
    await console.click("Rollout", "tab")
    dialog = await console.open_dialog("Set a rollout")
    await dialog.get_by_text("Stages", exact=True).click()
    await dialog.get_by_role("textbox", name="Percentage").nth(0).fill("10")
    await dialog.get_by_role("textbox", name="Percentage").nth(1).fill("50")
    await dialog.get_by_role("button", name="Review").click()
    joining = await read_joining(console)
    assert is_sample(joining, 50)
    await console.take_screenshot("rollout-review")
    await dialog.get_by_role("button", name="Set the rollout").click()

    summary = page.locator("#rollout-summary")
    await page.get_by_text("The current stage is done.").wait_for()
    stages = page.get_by_role("list", name="Stages of the rollout").get_by_role("listitem")
    await expect(stages).to_contain_text(["10%", "50%"])
    await expect(stages.first).to_contain_text("Done")
    first = await read_segment(console)
    assert (first["rollout"]["status"], first["rollout"]["percent"]) == ("WAITING", 10)
    assert first["memberCount"] == len(LISTED) + first["rollout"]["enrolled"]
    assert is_sample(first["rollout"]["enrolled"], 10)
    await console.take_screenshot("rollout-waiting")

    effect = "No member leaves. New users still join, at the percentage of the current stage."
    await confirm(console, "Pause", effect)
    await expect(summary).to_contain_text("Paused")
    await confirm(console, "Resume", "users join and no user leaves.")
    await expect(summary).to_contain_text("Waiting")

    dialog = await console.open_dialog("Change the plan")
    await dialog.get_by_text("One percentage, now").click()
    await dialog.get_by_label("Percentage of all users").fill("30")
    await dialog.get_by_role("button", name="Review").click()
    joining = await read_joining(console)
    await dialog.get_by_role("button", name="Set the rollout").click()
    await page.get_by_text("The last stage is done.").wait_for()
    raised = await read_segment(console)
    assert (raised["rollout"]["status"], raised["rollout"]["percent"]) == ("COMPLETED", 30)
    assert raised["memberCount"] == first["memberCount"] + joining
    assert is_sample(raised["rollout"]["enrolled"], 30)
    await console.take_screenshot("rollout-completed")

    leaving = raised["memberCount"] - len(LISTED)
    await confirm(console, "Withdraw the rollout", f"No user joins and {leaving:,} users leave.")
    await expect(summary).to_contain_text("Cancelled")
    withdrawn = await read_segment(console)
    assert (withdrawn["memberCount"], withdrawn["rollout"]["enrolled"]) == (len(LISTED), 0)


def is_sample(enrolled: int, percent: int) -> bool:
    """Return whether a number is a percentage of all users, without those who were members."""
    sample = USERS * percent // 100
    return sample - len(LISTED) <= enrolled <= sample


async def confirm(console: Console, action: str, effect: str) -> None:
    """Click the button of an action of the rollout, read its effect, and confirm it."""
    dialog = await console.open_dialog(action)
    await expect(dialog).to_contain_text(effect)
    await dialog.get_by_role("button", name=action).click()
    await dialog.wait_for(state="detached")


async def read_joining(console: Console) -> int:
    """Return the number in a sentence such as "1,000 users join and no user leaves." """
    text = console.page.get_by_role("dialog").get_by_text("users join and no user leaves.")
    found = re.search(r"([\d,]+) users join", await text.inner_text())
    assert found
    return int(found[1].replace(",", ""))


async def watch(console: Console) -> None:
    """Follow the size of the segment, and a join of another person in the change feed."""
    page = console.page
    await console.click("Overview", "tab")
    await page.locator(".recharts-surface").first.wait_for()
    await console.click("Show as table")
    newest = page.get_by_role("table", name="Members over time").locator("tbody tr").first
    await expect(newest).to_contain_text(f"{len(LISTED)}")
    await console.take_screenshot("size")

    await console.open("/activity")
    await page.get_by_role("status").get_by_text("Live").wait_for()
    await console.execute(ADD_MEMBER, slug=SLUG, users=["4242"])
    row = page.get_by_role("row").filter(has_text="4242")
    await expect(row).to_contain_text("Joined")
    await expect(row).to_contain_text(SLUG)
    await console.take_screenshot("changes")


async def export(console: Console) -> None:
    page = console.page
    await console.open(f"{PATH}/exports")
    await console.click("Create export")
    row = page.get_by_role("table", name="Exports").get_by_role("row").nth(1)
    await expect(row).to_contain_text("Ready")
    await console.take_screenshot("exports")
    async with page.expect_download() as download:
        await row.get_by_role("link", name="Download CSV").click()
    file = await download.value
    assert SLUG in file.suggested_filename
    rows = csv.DictReader((await read_download(file)).splitlines())
    assert sorted(row["user_id"] for row in rows) == sorted(await read_members(console))


async def read_segment(console: Console) -> Any:
    return (await console.execute(READ_MEMBERS, slug=SLUG))["segment"]


async def read_members(console: Console) -> list[str]:
    """Return the ids of all members, as the API has them."""
    members: list[str] = []
    after = None
    while True:
        page = (await console.execute(READ_MEMBERS, slug=SLUG, after=after))["segment"]["members"]
        members += [node["user"]["id"] for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            return members
        after = page["pageInfo"]["endCursor"]
