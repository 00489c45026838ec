"""The console in Chromium, on a real `segmentql up` with its worker."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
import pytest
from playwright.async_api import Browser, Download, Locator, Page, Request, ViewportSize, expect

from segmentql.settings import child_environment, raw_value
from tests.e2e.up import Up, running

AXE = Path(__file__).parents[3] / "web" / "node_modules" / "axe-core" / "axe.min.js"
"""The accessibility checker, a development dependency of the pages."""

WIDE: ViewportSize = {"width": 1600, "height": 900}
NARROW: ViewportSize = {"width": 390, "height": 844}

SERIOUS = {"serious", "critical"}
"""The impacts of findings that a page must not have."""

PATIENCE_MILLISECONDS = 60_000
"""The limit of each wait, for slow machines."""

MAX_PAGE_SIZE = 100
"""The largest page that the server returns."""

PAGE_SIZE = re.compile(r"\b(?:first|last|points|batch): (\d+)")

LOADING = ".mantine-Skeleton-root, .mantine-Loader-root"
"""The elements that stand for data which have not arrived yet."""

# What Chromium prints for a response that the page expects and explains.
EXPECTED_MESSAGES = ("401 (Unauthorized)",)


class Console:
    """The console in a page of the browser. It records what the page requests and reports."""

    def __init__(self, up: Up, page: Page) -> None:
        self.up = up
        self.page = page
        self.url = f"http://127.0.0.1:{up.port}"
        self.token: str | None = None
        self.expected_messages = list(EXPECTED_MESSAGES)
        self.faults: list[str] = []
        self.hosts: set[str] = set()
        self.page_sizes: set[int] = set()
        page.set_default_timeout(PATIENCE_MILLISECONDS)
        expect.set_options(timeout=PATIENCE_MILLISECONDS)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        page.on("request", self._add_request)

    def _add_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"}:
            self.hosts.add(str(parts.hostname))
        if parts.path == "/graphql" and request.method == "POST":
            body = orjson.loads(request.post_data or "{}")
            self.page_sizes.update(map(int, PAGE_SIZE.findall(body.get("query", ""))))
            self.page_sizes.add((body.get("variables") or {}).get("first") or 0)

    async def open(self, path: str) -> None:
        """Open a page of the console, such as `/segments`."""
        await self.page.goto(f"{self.url}/#{path}")
        await self.page.get_by_role("heading", level=1).wait_for()

    async def click(self, name: str, role: Literal["button", "link", "tab"] = "button") -> None:
        await self.page.get_by_role(role, name=name, exact=True).click()

    async def open_dialog(self, button: str) -> Locator:
        """Click a button that opens a dialog, and return the dialog."""
        await self.click(button)
        dialog = self.page.get_by_role("dialog")
        await dialog.wait_for()
        return dialog

    async def download(self, link: Locator) -> str:
        """Click a link or button, and return the text of the file that the browser stores."""
        async with self.page.expect_download() as download:
            await link.click()
        return await read_download(await download.value)

    async def execute(self, query: str, **variables: Any) -> Any:
        """Return the data of a GraphQL operation, which is sent with the key of the console."""
        body = orjson.dumps({"query": query, "variables": variables}).decode()
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        response = orjson.loads(await self.up.send(body, **headers))
        assert "errors" not in response, response
        return response["data"]

    async def wait_until_loaded(self) -> None:
        """Wait until the page has data in all places."""
        await expect(self.page.locator(LOADING)).to_have_count(0)

    async def take_screenshot(self, name: str) -> None:
        """Store a picture in the folder `SEGMENTQL_TEST_SCREENSHOTS`, if it is set."""
        folder = raw_value("test_screenshots")
        if folder:
            await self.page.screenshot(path=Path(folder) / f"console-{name}.png")

    async def check_accessibility(self, name: str) -> None:
        """Check the page at both widths and in both color schemes, and take screenshots."""
        for width, viewport in (("wide", WIDE), ("narrow", NARROW)):
            await self.page.set_viewport_size(viewport)
            for scheme in ("light", "dark"):
                await self._emulate(scheme)
                await self.take_screenshot(f"{name}-{width}-{scheme}")
                barriers = await self._find_barriers()
                assert not barriers, (name, width, scheme, barriers)
                overflow = await self.page.evaluate(
                    "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                )
                assert overflow <= 0, (name, width)
        await self.page.set_viewport_size(WIDE)
        await self._emulate("light")

    async def _emulate(self, scheme: Literal["light", "dark"]) -> None:
        await self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await self.page.wait_for_timeout(300)  # the transition of colors

    async def _find_barriers(self) -> list[tuple[str, list[str]]]:
        """Return the rule and the elements of each serious finding."""
        await self.page.evaluate(AXE.read_text())
        findings = await self.page.evaluate("axe.run().then(result => result.violations)")
        return [
            (finding["id"], [node["html"][:200] for node in finding["nodes"]])
            for finding in findings
            if finding["impact"] in SERIOUS
        ]

    def check_offline(self) -> None:
        """Check that the page asked only this machine, no large pages, and had no faults."""
        assert self.hosts == {"127.0.0.1"}
        assert max(self.page_sizes, default=0) <= MAX_PAGE_SIZE
        expected = self.expected_messages
        assert [text for text in self.faults if not any(m in text for m in expected)] == []


async def read_download(download: Download) -> str:
    assert await download.failure() is None
    return (await download.path()).read_text()


@pytest.fixture(params=["off", "required"])
async def auth(request: pytest.FixtureRequest) -> str:
    """Whether the server requires API keys; each test runs with both."""
    return str(request.param)


@pytest.fixture
async def console(home: Path, browser: Browser, auth: str) -> AsyncIterator[Console]:
    """Yield the console, signed in as ADMIN if the server requires keys."""
    async with running(home, "--demo", SEGMENTQL_AUTH=auth) as up:
        await up.wait_for_output("curl ")
        page = await browser.new_page(viewport=WIDE, locale="en-US", timezone_id="UTC")
        console = Console(up, page)
        if auth == "required":
            console.token = await create_key(up, "ADMIN", "Ada")
            await sign_in(console, console.token)
        yield console
        console.check_offline()
        await page.close()  # its open streams would delay the end of the API


async def create_key(up: Up, role: str, name: str) -> str:
    """Return the token of a new API key."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "keys", "create", "--role", role, "--name", name),
        *("--data-dir", str(up.data)),
        env=child_environment({}),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return next(word for word in output.decode().split() if word.startswith("sgql_"))


async def sign_in(console: Console, token: str) -> None:
    await console.page.goto(console.url)
    await console.page.get_by_label("API key").fill(token)
    await console.page.get_by_role("button", name="Sign in").click()
    await console.page.get_by_role("heading", name="Segments", level=1).wait_for()
