"""The GraphiQL page asks for an API key if the service requires one.

`SEGMENTQL_TEST_SCREENSHOTS=DIR` keeps screenshots.
"""

import pytest
from playwright.async_api import Browser, Page

from segmentql.adapters.database import Database
from tests.conftest import Sql
from tests.e2e.browser import needs_chromium
from tests.e2e.conftest import RunServe, Serving
from tests.e2e.graphiql_page import picture, run_tab
from tests.keys.clients import bearer, make_key

pytestmark = [pytest.mark.e2e, needs_chromium]


async def use_key(page: Page, key: str) -> str:
    """Enter a key on the page as a person would; return what the page then shows about it."""
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Use key").click()
    status = page.locator("#key-status")
    await status.get_by_text("Checking the key ...", exact=True).wait_for(state="hidden")
    return await status.inner_text()


async def test_page_asks_for_a_required_key_and_does_not_store_it(
    run_serve: RunServe, browser: Browser, database: Database, sql: Sql
) -> None:
    editor = await make_key(database, "EDITOR", "Ada")
    reader = await make_key(database, "READER", "Bob")
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    complaints: list[str] = []
    authorizations: list[str | None] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on(
        "request",
        lambda r: (
            authorizations.append(r.headers.get("authorization")) if r.method == "POST" else None
        ),
    )
    async with run_serve(SEGMENTQL_AUTH="required") as serve:
        await page.goto(f"{serve.address}/graphql")
        await page.locator(".graphiql-query-editor .view-line").first.wait_for()
        status = page.locator("#key-status")
        assert await status.inner_text() == (
            "An API key is required. Create one with"
            " `segmentql keys create --role EDITOR --name NAME`, or ask an ADMIN for one."
        )
        await picture(page, "KeyNeeded")
        # No request is sent without a key, neither for the schema nor by the run button.
        await page.locator("button.graphiql-execute-button:not([aria-haspopup])").click()
        result = page.locator(".result-window .view-line", has_text="An API key is required")
        await result.wait_for()
        assert (authorizations, complaints) == ([], [])

        assert await use_key(page, editor.with_wrong_secret) == "This API key is not valid."
        await picture(page, "KeyRefused")
        assert [text for text in complaints if "401" not in text] == []

        async with page.expect_response(
            lambda r: "IntrospectionQuery" in (r.request.post_data or "")
        ) as introspected:
            assert await use_key(page, editor.token) == "You are Ada, EDITOR."
        assert (await (await introspected.value).json())["data"]["__schema"]
        assert await page.get_by_label("API key").input_value() == ""
        created = await run_tab(page, "CreateSegments")
        assert [payload["errors"] for payload in created.values()] == [[], []]
        added = await run_tab(page, "AddWithTtl")
        assert [payload["errors"] for payload in added.values()] == [[], []]
        await picture(page, "KeyUsed")
        assert set(authorizations) == {bearer(editor.with_wrong_secret), bearer(editor.token)}

        # A header of the tab takes precedence.
        await page.get_by_role("button", name="Headers").click()
        await page.locator(".graphiql-editor-tool .graphiql-editor:not(.hidden)").click()
        await page.keyboard.insert_text(f'{{"AUTHORIZATION": "{bearer(reader.token)}"}}')
        async with page.expect_response(lambda r: r.request.method == "POST") as response:
            await page.locator("button.graphiql-execute-button:not([aria-haspopup])").click()
        body = await (await response.value).json()
        assert {error["extensions"]["code"] for error in body["errors"]} == {"FORBIDDEN"}
        assert authorizations[-1] == bearer(reader.token)

        browser_storage = await page.evaluate(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        )
        assert [key for key in (editor, reader) if key.token in browser_storage] == []
        assert editor.token not in await page.content()
        await page.reload()
        await page.locator(".graphiql-query-editor .view-line").first.wait_for()
        assert (await status.inner_text()).startswith("An API key is required.")
    assert await sql.fetchval("SELECT array_agg(DISTINCT actor) FROM history") == ["Ada"]


async def test_page_asks_for_no_key_if_auth_is_off(serve: Serving, browser: Browser) -> None:
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    await page.goto(f"{serve.address}/graphql")
    await page.locator(".graphiql-query-editor .view-line").first.wait_for()
    assert await page.get_by_label("API key").count() == 0
    assert await page.get_by_text("API key").count() == 0
