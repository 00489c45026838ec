"""The GraphiQL page in a browser: its tabs and the operations that it runs."""

from pathlib import Path
from typing import Any

from playwright.async_api import Page

from segmentql.settings import raw_value
from tests.conftest import until


async def run_tab(page: Page, title: str) -> Any:
    """Click on a tab and its run button; return the response that the page then shows."""
    await page.locator("button.graphiql-tab-button", has_text=title).click()
    body: Any = {}

    async def answered() -> bool:
        # For a moment after the click GraphiQL still sends the last tab's operation; a person is
        # slower.
        nonlocal body
        async with page.expect_response(lambda r: r.request.method == "POST") as response:
            await page.locator("button.graphiql-execute-button:not([aria-haspopup])").click()
        answer = await response.value
        body = await answer.json()
        return bool((answer.request.post_data_json or {})["operationName"] == title)

    await until(answered)
    await page.locator(".result-window .view-line", has_text="data").wait_for()
    await picture(page, title)
    return body["data"]


async def run_operation(page: Page, name: str) -> Any:
    """Select an operation of the open tab, which has several; return the displayed response."""
    await page.locator("button.graphiql-execute-button[aria-haspopup=menu]").click()
    async with page.expect_response(lambda r: r.request.method == "POST") as response:
        await page.get_by_role("menuitem", name=name).click()
    body = await (await response.value).json()
    await page.locator(".result-window .view-line", has_text="data").wait_for()
    await picture(page, name)
    return body["data"]


async def picture(page: Page, name: str) -> None:
    folder = raw_value("test_screenshots")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png")
