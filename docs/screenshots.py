"""Take the screenshots of the GraphiQL page in `docs/images/` from a running service.

    make run                                   # in another terminal
    .venv/bin/python docs/screenshots.py --url http://127.0.0.1:8080

The service must run without API keys and with a worker, as `segmentql up` does. Chromium must be on
PATH (Debian: `apt-get install chromium`). The script creates the segments of the example tabs, so
use an empty data folder: `segmentql up --demo --data-dir FOLDER`.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

import click
import httpx
from playwright.async_api import Page, async_playwright

IMAGES: Final = Path(__file__).parent / "images"
VIEWPORT: Final = {"width": 1400, "height": 860}
TIMEOUT_SECONDS: Final = 60
CHROMIUM_OPTIONS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

CREATE_SEGMENTS: Final = """
mutation {
  a: createSegment(input: {slug: "AVITO_DISCOUNT_30"}) { errors { code } }
  b: createSegment(input: {slug: "AVITO_DISCOUNT_50"}) { errors { code } }
}
"""
ADD_MEMBERSHIPS: Final = """
mutation {
  a: updateUserSegments(input: {userId: 1, add: ["AVITO_DISCOUNT_30"]}) { errors { code } }
  b: updateUserSegments(
    input: {userId: 1, add: ["AVITO_DISCOUNT_50"], ttlSeconds: 1, onExisting: REPLACE}
  ) { errors { code } }
}
"""
READ_LAST_LEAVE: Final = """
{ history(userId: 1, slug: "AVITO_DISCOUNT_50", first: 1) { nodes { operation recordedAt } } }
"""
CREATE_ROLLOUT: Final = """
mutation {
  createSegment(input: {slug: "AVITO_NEW_SEARCH"}) { errors { code } }
  setRollout(input: {
    slug: "AVITO_NEW_SEARCH",
    rollout: {stages: [{percent: 10}, {percent: 50, afterSeconds: 3600}]}
  }) { errors { code } }
}
"""
READ_ROLLOUT: Final = '{ segment(slug: "AVITO_NEW_SEARCH") { rollout { status } } }'


class Service:
    """A client of the service under test."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query(self, document: str) -> Any:
        """Return the data of a GraphQL operation."""
        response = await self._client.post("/graphql", json={"query": document})
        response.raise_for_status()
        return response.json()["data"]

    async def wait_until_leave_is_recorded(self) -> None:
        """Poll until a worker has recorded the end of the one-second membership."""
        while True:
            nodes = (await self.query(READ_LAST_LEAVE))["history"]["nodes"]
            if nodes and nodes[0]["operation"] == "LEFT" and nodes[0]["recordedAt"]:
                return
            await asyncio.sleep(0.2)

    async def wait_until_stage_is_done(self) -> None:
        """Poll until the first stage of the rollout is done."""
        while True:
            rollout = (await self.query(READ_ROLLOUT))["segment"]["rollout"]
            if rollout["status"] == "WAITING":
                return
            await asyncio.sleep(0.2)


async def take_screenshot(page: Page, tab: str, file_name: str) -> None:
    """Run the operation of a tab and store a picture of the page."""
    await page.locator("button.graphiql-tab-button", has_text=tab).click()
    await page.locator(".graphiql-query-editor .view-line", has_text=tab).wait_for()
    async with page.expect_response(
        lambda response: (response.request.post_data_json or {}).get("operationName") == tab
    ):
        await page.locator("button.graphiql-execute-button:not([aria-haspopup])").click()
    await page.locator(".result-window .view-line", has_text="data").wait_for()
    await page.mouse.move(0, 0)  # no tooltip in the picture
    await page.wait_for_timeout(500)  # the editor colours the response after it shows it
    await page.screenshot(path=IMAGES / file_name)


async def take_screenshots(url: str) -> None:
    """Prepare the data, and take one picture of a history and one of a rollout."""
    async with (
        asyncio.timeout(TIMEOUT_SECONDS),
        httpx.AsyncClient(base_url=url) as client,
        async_playwright() as playwright,
    ):
        service = Service(client)
        await service.query(CREATE_SEGMENTS)
        await service.query(ADD_MEMBERSHIPS)
        await service.query(CREATE_ROLLOUT)
        await service.wait_until_leave_is_recorded()
        await service.wait_until_stage_is_done()
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_OPTIONS
        )
        page = await browser.new_page(viewport=VIEWPORT)
        await page.goto(f"{url}/graphql")
        await page.locator(".graphiql-query-editor .view-line").first.wait_for()
        await take_screenshot(page, "ReadHistory", "history.png")
        await take_screenshot(page, "WatchRollout", "rollout.png")
        await browser.close()


@click.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The service.")
def main(url: str) -> None:
    """Take the screenshots in docs/images/ from a running service."""
    IMAGES.mkdir(exist_ok=True)
    asyncio.run(take_screenshots(url))


if __name__ == "__main__":
    main()
