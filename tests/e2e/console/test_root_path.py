"""The console and GraphiQL work below a path of nginx, which keeps or removes it."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.browser import needs_chromium
from tests.e2e.console.conftest import WIDE, Console
from tests.e2e.proxies import ROOT_PATH, documented_changes, running_proxy
from tests.e2e.up import running

pytestmark = [pytest.mark.e2e, needs_chromium]

JOIN = """
mutation($userId: ID!) {
  updateUserSegments(input: {userId: $userId, add: ["below-a-path"]}) { errors { code } }
}
"""


@pytest.mark.parametrize("nginx", ["keeps", "removes"])
async def test_pages_work_below_the_root_path(
    home: Path, browser: Browser, tmp_path: Path, nginx: str
) -> None:
    changes = documented_changes("nginx", is_path_kept=nginx == "keeps")
    async with running(home, SEGMENTQL_ROOT_PATH=ROOT_PATH) as up:
        await up.wait_for_output("curl ")
        assert f"Console:     http://127.0.0.1:{up.port}{ROOT_PATH}/\n" in up.output
        assert f"GraphiQL:    http://127.0.0.1:{up.port}{ROOT_PATH}/graphql\n" in up.output
        assert f"curl http://127.0.0.1:{up.port}{ROOT_PATH}/graphql" in up.output
        address, ready_path = f"127.0.0.1:{up.port}", f"{ROOT_PATH}/readyz"
        async with running_proxy(
            "nginx", tmp_path, (address, address), *changes, ready_path=ready_path
        ) as proxy:
            page = await browser.new_page(
                viewport=WIDE, locale="en-US", timezone_id="UTC", ignore_https_errors=True
            )
            console = Console(up, page)
            console.url = f"https://127.0.0.1:{proxy.port}{ROOT_PATH}"
            await _create_segment(console)
            await _watch_feed(console)
            await _use_graphiql(console)
            console.check_offline()
            await page.close()


async def _create_segment(console: Console) -> None:
    await console.open("/segments")
    await console.page.get_by_role("button", name="Create segment").first.click()
    dialog = console.page.get_by_role("dialog")
    await dialog.get_by_label("Slug").fill("below-a-path")
    await dialog.get_by_role("button", name="Create").click()
    await console.page.get_by_role("heading", name="below-a-path").wait_for()
    await console.take_screenshot("root-path-segment")


async def _watch_feed(console: Console) -> None:
    await console.open("/activity")
    await console.page.get_by_role("status").get_by_text("Live").wait_for()
    await console.execute(JOIN, userId="11111111")
    await console.page.get_by_role("row").filter(has_text="11111111").wait_for()
    await console.take_screenshot("root-path-activity")


async def _use_graphiql(console: Console) -> None:
    page = console.page
    await console.click("GraphiQL", "link")
    await expect(page).to_have_url(f"{console.url}/graphql")
    await page.locator(".graphiql-query-editor .view-line").first.wait_for()
    await page.locator("button.graphiql-tab-button", has_text="CreateSegments").click()
    await page.locator("button.graphiql-execute-button:not([aria-haspopup])").click()
    await page.locator(".result-window .view-line", has_text="AVITO_DISCOUNT_30").wait_for()
    await console.take_screenshot("root-path-graphiql")
    await page.get_by_role("link", name="SegmentQL").click()
    await page.get_by_role("link", name="AVITO_DISCOUNT_30").wait_for()
    await expect(page).to_have_url(f"{console.url}/#/segments")
