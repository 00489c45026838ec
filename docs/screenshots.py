"""Take the screenshots of the console and of GraphiQL in `docs/images/` from a running service.

    segmentql up --demo --data-dir FOLDER      # in another terminal; the folder is empty
    .venv/bin/python docs/screenshots.py --url http://127.0.0.1:8080

The service must run without API keys and with a worker, as `segmentql up` does. Chromium must be on
PATH (Debian: `apt-get install chromium`). The script creates the segments of the example tabs, and
imports 200,000 more users, so that the rollout takes some seconds.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

import click
import httpx
from playwright.async_api import Page, ViewportSize, async_playwright

IMAGES: Final = Path(__file__).parent / "images"
VIEWPORT: Final[ViewportSize] = {"width": 1400, "height": 860}
TIMEOUT_SECONDS: Final = 300
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
LIST: Final = "LOYALTY_PROGRAM"
SEGMENTS: Final = {LIST: "Loyalty programme", "CHECKOUT_BETA": "New checkout"}
IMPORTED_IDS: Final = range(1_000_000, 1_200_000)

CREATE_SEGMENT: Final = """
mutation ($slug: String!, $name: String!) {
  createSegment(input: {slug: $slug, name: $name}) { errors { code } }
}
"""
CREATE_IMPORT: Final = """
mutation ($slug: String!, $bytes: BigInt!) {
  createImport(input: {slug: $slug, source: {upload: {sizeBytes: $bytes}}}) {
    import { id }
    upload { method url headers { name value } }
    errors { message }
  }
}
"""
START_IMPORT: Final = "mutation ($id: ID!) { startImport(input: {id: $id}) { errors { message } } }"
READ_IMPORT: Final = "query ($id: ID!) { import(id: $id) { status } }"
SET_STAGES: Final = """
mutation {
  setRollout(input: {
    slug: "CHECKOUT_BETA",
    rollout: {stages: [
      {percent: 20}, {percent: 50, afterSeconds: 86400}, {percent: 100, afterSeconds: 604800}
    ]}
  }) { errors { message } }
}
"""
READ_MEMBER: Final = """
{ segment(slug: "AVITO_NEW_SEARCH") { members(first: 1) { nodes { user { id } } } } }
"""
PROGRESS: Final = """() => {
  const bar = document.querySelector("#rollout-summary [role=progressbar]");
  return bar && Number(bar.ariaValueNow ?? bar.getAttribute("aria-valuenow")) >= 40;
}"""

READ_ROLLOUT: Final = '{ segment(slug: "AVITO_NEW_SEARCH") { rollout { status } } }'


class Service:
    """A client of the service under test."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query(self, document: str, **variables: Any) -> Any:
        """Return the data of a GraphQL operation."""
        body = {"query": document, "variables": variables}
        response = await self._client.post("/graphql", json=body)
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

    async def import_users(self) -> None:
        """Store many users, who join a segment."""
        for slug, name in SEGMENTS.items():
            await self.query(CREATE_SEGMENT, slug=slug, name=name)
        text = "\n".join(map(str, IMPORTED_IDS)).encode()
        created = (await self.query(CREATE_IMPORT, slug=LIST, bytes=len(text)))["createImport"]
        upload = created["upload"]
        headers = {header["name"]: header["value"] for header in upload["headers"]}
        response = await self._client.request(
            upload["method"], upload["url"], headers=headers, content=text
        )
        response.raise_for_status()
        import_id = created["import"]["id"]
        await self.query(START_IMPORT, id=import_id)
        while True:
            if (await self.query(READ_IMPORT, id=import_id))["import"]["status"] == "COMPLETED":
                return
            await asyncio.sleep(0.5)


async def take_console_screenshots(page: Page, service: Service, url: str) -> None:
    """Take the pictures of the console."""
    await service.import_users()
    await open_page(page, f"{url}/#/segments/AVITO_VOICE_MESSAGES")
    await page.get_by_text("12 months").click()
    await page.get_by_text("more members than at").wait_for()
    await store(page, "console-size.png")

    await open_page(page, f"{url}/#/segments/CHECKOUT_BETA/rollout")
    await service.query(SET_STAGES)
    await page.reload()
    await page.wait_for_function(PROGRESS)
    await store(page, "console-rollout.png")

    member = (await service.query(READ_MEMBER))["segment"]["members"]["nodes"][0]["user"]["id"]
    await open_page(page, f"{url}/#/users/{member}/explain/AVITO_NEW_SEARCH")
    await page.get_by_role("list", name="Checks").wait_for()
    await store(page, "console-explanation.png")

    await open_page(page, f"{url}/#/segments")
    await page.get_by_role("link", name="CHECKOUT_BETA").wait_for()
    await store(page, "console-segments.png")


async def open_page(page: Page, address: str) -> None:
    await page.goto(address)
    await page.get_by_role("heading", level=1).wait_for()


async def store(page: Page, file_name: str) -> None:
    """Store a picture of the page when it has loaded all data."""
    await page.locator(".mantine-Skeleton-root, .mantine-Loader-root").first.wait_for(
        state="detached"
    )
    await page.mouse.move(0, 0)  # no tooltip in the picture
    await page.wait_for_timeout(300)  # the chart draws its line
    await page.screenshot(path=IMAGES / file_name)


async def take_screenshot(page: Page, tab: str, file_name: str) -> None:
    """Run the operation of a tab and store a picture of the page."""
    await page.locator("button.graphiql-tab-button", has_text=tab).click()
    await page.locator(".graphiql-query-editor .view-line", has_text=tab).wait_for()
    while True:
        # For a moment after the click GraphiQL still sends the last tab's operation.
        async with page.expect_response(lambda r: r.request.method == "POST") as response:
            await page.locator("button.graphiql-execute-button:not([aria-haspopup])").click()
        request = (await response.value).request
        if (request.post_data_json or {}).get("operationName") == tab:
            break
    await page.locator(".result-window .view-line", has_text="data").wait_for()
    await page.mouse.move(0, 0)  # no tooltip in the picture
    await page.wait_for_timeout(500)  # the editor colours the response after it shows it
    await page.screenshot(path=IMAGES / file_name)


async def take_screenshots(url: str) -> None:
    """Prepare the data, and take the pictures of GraphiQL and of the console."""
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
        await take_console_screenshots(page, service, url)
        await browser.close()


@click.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The service.")
def main(url: str) -> None:
    """Take the screenshots in docs/images/ from a running service."""
    IMAGES.mkdir(exist_ok=True)
    asyncio.run(take_screenshots(url))


if __name__ == "__main__":
    main()
