"""The GraphiQL page as a newcomer meets it: the example tabs tell the story, without a network.

`SEGMENTQL_TEST_SCREENSHOTS=DIR` keeps a picture of each tab.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, async_playwright

from segmentql.settings import outside_value
from tests.conftest import RunWorker, Sql, until
from tests.e2e.conftest import Serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: chromium)"),
]

QUIET = [
    "--no-sandbox",  # root's Chromium has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        await browser.close()


async def run_tab(page: Page, title: str) -> Any:
    """Click on a tab and its run button; the answer that the page then shows."""
    await page.locator("button.graphiql-tab-button", has_text=title).click()
    body: Any = {}

    async def answered() -> bool:
        # For a moment after the click GraphiQL still asks for the last tab's operation: a person
        # is slower than that.
        nonlocal body
        async with page.expect_response(lambda r: r.request.method == "POST") as response:
            await page.locator("button.graphiql-execute-button").click()
        answer = await response.value
        body = await answer.json()
        return bool((answer.request.post_data_json or {})["operationName"] == title)

    await until(answered)
    await page.locator(".result-window .view-line", has_text="data").wait_for()
    await picture(page, title)
    return body["data"]


async def picture(page: Page, name: str) -> None:
    folder = outside_value("test_screenshots")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png")


async def test_the_example_tabs_tell_the_story_offline(
    serve: Serving, browser: Browser, run_worker: RunWorker, sql: Sql
) -> None:
    address = serve.address
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    async with run_worker():
        await page.goto(f"{address}/graphql")
        await page.locator(".graphiql-query-editor .view-line").first.wait_for()

        created = await run_tab(page, "CreateSegments")
        assert sorted(p["segment"]["slug"] for p in created.values()) == [
            "AVITO_DISCOUNT_30",
            "AVITO_DISCOUNT_50",
        ]
        added = await run_tab(page, "AddWithTtl")
        assert [payload["errors"] for payload in added.values()] == [[], []]

        read = await run_tab(page, "ReadUser")
        assert [s["slug"] for s in read["user"]["segments"]] == [
            "AVITO_DISCOUNT_30",
            "AVITO_DISCOUNT_50",
        ]
        # The 30 seconds of the example are over at once: rows are moved, not clocks.
        await sql.execute(
            "SET session_replication_role = replica;"
            "UPDATE memberships SET expires_at = now(), joined_at = now() - interval '1 minute'"
            " WHERE expires_at IS NOT NULL;"
            "SET session_replication_role = DEFAULT"
        )
        await until(lambda: sql.fetchval("SELECT count(*) FROM history WHERE cause = 'TTL'"))
        history = await run_tab(page, "ReadHistory")
        assert [
            (entry["operation"], entry["cause"], entry["segment"]["slug"])
            for entry in history["history"]["nodes"]
        ] == [
            ("LEFT", "TTL", "AVITO_DISCOUNT_50"),
            ("JOINED", "MANUAL", "AVITO_DISCOUNT_50"),
            ("JOINED", "MANUAL", "AVITO_DISCOUNT_30"),
        ]
    assert {urlsplit(url).netloc for url in asked if url.startswith("http")} == {
        urlsplit(address).netloc
    }
    # But for a run that was too fast, see `run_tab`.
    assert [text for text in complaints if "400 (Bad Request)" not in text] == []
