"""The console explains faults of the service, and continues when the service is back."""

import os
import signal
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, expect

from tests.conftest import until
from tests.e2e.browser import needs_chromium
from tests.e2e.console.conftest import PATIENCE_MILLISECONDS, Console
from tests.e2e.up import running

pytestmark = [
    pytest.mark.e2e,
    needs_chromium,
    pytest.mark.parametrize("auth", ["off"], indirect=True),
]

SLUG = "AVITO_DISCOUNT_30"
FIRST_ID = 1_000_000
LONG_LIST = 200_000
"""The number of users in a list that takes some seconds to import."""

ADD_MEMBER = """
mutation ($slug: String!, $users: [ID!]!) {
  updateSegmentMembers(input: {slug: $slug, add: $users}) { errors { message } }
}
"""
READ_IMPORTS = """
query ($slug: String!) {
  segment(slug: $slug) { memberCount }
  imports(first: 1, slug: $slug) { nodes { status progress } }
}
"""
FAILED_REQUESTS = ("net::ERR_", "Failed to fetch", "503 (Service Unavailable)")
"""What Chromium prints for requests that fail."""


async def test_console_continues_after_the_api_was_stopped(
    console: Console, browser: Browser, home: Path
) -> None:
    console.expected_messages += FAILED_REQUESTS
    page = console.page
    feed = await browser.new_page()
    feed.set_default_timeout(PATIENCE_MILLISECONDS)
    await feed.goto(f"{console.url}/#/activity")
    await feed.get_by_role("status").get_by_text("Live").wait_for()
    await add_member(console, "11111111")
    await feed.get_by_role("row").filter(has_text="11111111").wait_for()
    await console.open("/segments")
    await page.get_by_role("link", name=SLUG).wait_for()

    assert await console.up.stop() == 0
    await feed.get_by_role("status").get_by_text("Interrupted").wait_for()
    await console.click("Users", "link")
    alert = page.get_by_role("alert").filter(has_text="The server does not respond.")
    await alert.wait_for()
    await console.take_screenshot("no-response")
    await alert.get_by_role("button", name="Try again").click()
    await alert.wait_for()

    async with running(home, port=console.up.port) as up:
        await up.wait_for_output("ready after")
        await add_member(console, "22222222")
        await alert.get_by_role("button", name="Try again").click()
        users = page.get_by_role("table", name="All users").get_by_role("row")
        await expect(users).to_have_count(51)
        await alert.wait_for(state="detached")
        await feed.get_by_role("status").get_by_text("Live").wait_for()
        await add_member(console, "33333333")
        rows = feed.get_by_role("table", name="Joins and leaves, newest first").locator("tbody tr")
        await expect(rows).to_contain_text(["33333333", "22222222", "11111111"])
        await expect(rows).to_have_count(3)
    await feed.close()


async def test_upload_is_repeated_after_the_store_was_down(console: Console) -> None:
    console.expected_messages += FAILED_REQUESTS
    page = console.page
    kills = 0

    async def kill_store(route: Route) -> None:
        nonlocal kills
        if route.request.method == "PUT" and not kills:
            kills += 1
            kill(console, "store")
        await route.continue_()

    await page.route(lambda url: "/imports/" in url and "/graphql" not in url, kill_store)
    await start_import(console, "1\n2\n3\n")
    await page.get_by_text("The upload did not succeed").wait_for()
    assert kills == 1
    alert = page.get_by_role("alert")
    await expect(alert).to_contain_text("does not accept the file. Check the connection")
    await console.take_screenshot("upload-failed")

    await console.up.wait_for_output("object store restarted")
    await console.click("Try again")
    await page.get_by_role("heading", name="Forecast").wait_for()


async def test_import_finishes_after_its_worker_was_killed(console: Console) -> None:
    page = console.page
    before = (await console.execute(READ_IMPORTS, slug=SLUG))["segment"]["memberCount"]
    text = "\n".join(map(str, range(FIRST_ID, FIRST_ID + LONG_LIST)))
    await start_import(console, text, check=False)
    progress = 0.0

    async def is_applied_in_part() -> bool:
        nonlocal progress
        nodes = (await console.execute(READ_IMPORTS, slug=SLUG))["imports"]["nodes"]
        if not nodes:
            return False
        assert nodes[0]["status"] != "COMPLETED"  # it was too fast
        progress = nodes[0]["progress"]
        return bool(nodes[0]["status"] == "APPLYING" and progress > 0)

    await until(is_applied_in_part, seconds=PATIENCE_MILLISECONDS / 1000)
    kill(console, "worker")
    assert progress < 1
    await console.take_screenshot("import-without-worker")
    await page.get_by_text(f"The import is complete. {LONG_LIST:,} users joined.").wait_for(
        timeout=3 * PATIENCE_MILLISECONDS  # the lease of the killed worker ends first
    )
    await console.up.wait_for_output("worker restarted")
    after = (await console.execute(READ_IMPORTS, slug=SLUG))["segment"]["memberCount"]
    assert after == before + LONG_LIST


async def start_import(console: Console, text: str, *, check: bool = True) -> None:
    """Upload a list for a segment."""
    page = console.page
    await console.open(f"/segments/{SLUG}/imports/new")
    await page.locator("input[type=file]").set_input_files(
        {"name": "users.csv", "mimeType": "text/csv", "buffer": text.encode()}
    )
    if not check:
        await page.get_by_label("Check first").uncheck()
    await console.click("Upload and check" if check else "Upload and import")


async def add_member(console: Console, user_id: str) -> None:
    added = await console.execute(ADD_MEMBER, slug=SLUG, users=[user_id])
    assert added == {"updateSegmentMembers": {"errors": []}}


def kill(console: Console, name: str) -> None:
    pid = console.up.pid_of(name)
    assert pid
    os.kill(pid, signal.SIGKILL)
