"""The console works if the server executes only stored documents."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Request

from tests.e2e.browser import needs_chromium
from tests.e2e.console.conftest import WIDE, Console
from tests.e2e.up import running

pytestmark = [pytest.mark.e2e, needs_chromium]


@pytest.fixture
async def console(home: Path, browser: Browser) -> AsyncIterator[Console]:
    async with running(
        home, "--demo", SEGMENTQL_DOCUMENTS="trusted", SEGMENTQL_GRAPHIQL="off"
    ) as up:
        await up.wait_for_output("segmentql documents push FILE")
        console = Console(up, await browser.new_page(viewport=WIDE, locale="en-US"))
        yield console
        console.check_offline()


async def test_pages_send_ids_and_get_results(console: Console) -> None:
    bodies: list[Any] = []

    def record(request: Request) -> None:
        if request.url.endswith("/graphql"):
            bodies.append(request.post_data_json)

    console.page.on("request", record)
    await console.open("/segments")
    await console.page.get_by_role("button", name="Create segment").first.click()
    dialog = console.page.get_by_role("dialog")
    await dialog.get_by_label("Slug").fill("stored-documents")
    await dialog.get_by_role("button", name="Create").click()
    await console.page.get_by_role("heading", name="stored-documents").wait_for()
    async with console.page.expect_response(
        lambda response: "event-stream" in response.headers.get("content-type", "")
    ):
        await console.page.goto(f"{console.url}/#/activity")
    assert len(bodies) > 3
    assert [body for body in bodies if "query" in body or "documentId" not in body] == []
    rejected = await console.up.send('{"query": "{ __typename }"}')
    assert "DOCUMENT_ID_REQUIRED" in rejected
