"""The example tabs of the GraphiQL page run in order, without network access.

`SEGMENTQL_TEST_SCREENSHOTS=DIR` keeps a screenshot of each tab.
"""

from datetime import UTC, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Browser

from segmentql.adapters.storage import Storage
from tests.conftest import Api, RunWorker, Sql, until
from tests.e2e.browser import needs_chromium
from tests.e2e.conftest import Serving
from tests.e2e.graphiql_page import picture, run_operation, run_tab
from tests.operations import make_segments, update_user_segments
from tests.rollouts.helpers import store_users
from tests.timeline import add_membership, make_segment

pytestmark = [pytest.mark.e2e, needs_chromium]


async def test_example_tabs_run_in_order_offline(
    serve: Serving, browser: Browser, run_worker: RunWorker, sql: Sql
) -> None:
    address = serve.address
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    requested_urls: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requested_urls.append(request.url))
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
        # The 30 seconds of the example pass at once: the test moves rows, not clocks.
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
        changed = await run_tab(page, "ChangeMembers")
        assert changed["updateSegmentMembers"]["counts"] == [
            {"outcome": "JOINED", "count": 4},
            {"outcome": "LEFT", "count": 1},
        ]
    assert {urlsplit(url).netloc for url in requested_urls if url.startswith("http")} == {
        urlsplit(address).netloc
    }
    # This excludes a run that was too fast, see `run_tab`.
    assert [text for text in complaints if "400 (Bad Request)" not in text] == []


async def move_second_stage(sql: Sql, until_then: timedelta) -> None:
    await sql.execute(
        "UPDATE rollout_stages SET starts_at = clock_timestamp() + $1::interval WHERE number = 2",
        until_then,
    )


async def test_rollout_tabs_run_in_order(
    serve: Serving, browser: Browser, run_worker: RunWorker, sql: Sql
) -> None:
    await store_users(sql, 200)
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    seen: Any = {}

    async def is_at(status: str, percent: float, enrolled: int) -> bool:
        nonlocal seen
        seen = (await run_tab(page, "WatchRollout"))["segment"]
        rollout = seen["rollout"]
        return bool(
            (rollout["status"], rollout["percent"], rollout["enrolled"])
            == (status, percent, enrolled)
        )

    async with run_worker():
        await page.goto(f"{serve.address}/graphql")
        await page.locator(".graphiql-query-editor .view-line").first.wait_for()

        started = (await run_tab(page, "StartRollout"))["createSegment"]
        assert started["errors"] == []
        assert [stage["percent"] for stage in started["segment"]["rollout"]["stages"]] == [10, 50]
        # The 30 seconds of the example pass now: the test moves rows, not clocks.
        await move_second_stage(sql, timedelta(hours=1))
        await until(lambda: is_at("WAITING", 10, 20))
        assert (seen["memberCount"], seen["rollout"]["usersSeen"]) == (20, 200)
        assert [stage["status"] for stage in seen["rollout"]["stages"]] == ["DONE", "PENDING"]

        # Its title is the operation that ran last.
        tab = page.locator("button.graphiql-tab-button", has_text="Rollout").last
        await tab.click()
        paused = (await run_operation(page, "PauseRollout"))["pauseRollout"]
        assert paused == {"rollout": {"status": "PAUSED", "percent": 10}, "errors": []}
        resumed = (await run_operation(page, "ResumeRollout"))["resumeRollout"]
        assert resumed == {"rollout": {"status": "WAITING", "percent": 10}, "errors": []}
        await move_second_stage(sql, timedelta(0))
        await until(lambda: is_at("COMPLETED", 50, 100))

        await tab.click()
        raised = (await run_operation(page, "RaiseRollout"))["setRollout"]
        assert raised == {"rollout": {"status": "RUNNING", "percent": 80}, "errors": []}
        await until(lambda: is_at("COMPLETED", 80, 160))

        await tab.click()
        withdrawn = (await run_operation(page, "WithdrawRollout"))["cancelRollout"]
        assert withdrawn == {"rollout": {"status": "WITHDRAWING", "percent": 0}, "errors": []}
        await until(lambda: is_at("CANCELLED", 0, 0))


async def test_report_tab_returns_a_downloadable_link(
    serve: Serving, browser: Browser, run_worker: RunWorker, storage: Storage, sql: Sql
) -> None:
    await add_membership(
        sql, 1, await make_segment(sql, "AVITO_NEW_SEARCH"), joined_ago=timedelta(0)
    )
    ((at,),) = await sql.fetch("SELECT at FROM history")
    expected = (
        "user_id,segment_slug,operation,executed_at\n"
        f"1,AVITO_NEW_SEARCH,I,{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}\n"
    )
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    async with run_worker():
        await page.goto(f"{serve.address}/graphql")
        await page.locator(".graphiql-query-editor .view-line").first.wait_for()
        report = (await run_tab(page, "ReportMonth"))["createReport"]
        assert report["errors"] == []
        report = report["report"]
        assert (report["status"], report["failure"]) == ("READY", None)
        assert (report["rowCount"], report["sizeBytes"]) == (1, len(expected))
        async with page.expect_download() as download_started:
            await page.evaluate("link => { location.href = link }", report["downloadUrl"])
        download = await download_started.value
    assert download.suggested_filename == f"segments-1-{at:%Y-%m}.csv" == report["fileName"]
    assert (await download.path()).read_bytes() == expected.encode()


async def test_list_tabs_run_in_order(
    serve: Serving, browser: Browser, run_worker: RunWorker, sql: Sql
) -> None:
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    async with run_worker():
        await page.goto(f"{serve.address}/graphql")
        await page.locator(".graphiql-query-editor .view-line").first.wait_for()
        await run_tab(page, "CreateSegments")
        changed = (await run_tab(page, "ChangeMembers"))["updateSegmentMembers"]
        assert changed["counts"] == [
            {"outcome": "JOINED", "count": 4},
            {"outcome": "UNKNOWN_USER", "count": 1},
        ]
        tab = page.locator("button.graphiql-tab-button", has_text="Import").last
        await tab.click()
        created = (await run_operation(page, "ImportList"))["createImport"]
        assert created == {"import": {"id": "imp_1", "status": "QUEUED"}, "errors": []}

        async def is_at(status: str) -> bool:
            await tab.click()
            (read,) = (await run_operation(page, "ReadImports"))["imports"]["nodes"]
            counts = [{"outcome": "JOINED", "count": 4}]
            return bool((read["status"], read["counts"]) == (status, counts))

        await until(lambda: is_at("VALIDATED"))
        await tab.click()
        applied = (await run_operation(page, "ApplyImport"))["applyImport"]
        assert applied["errors"] == []
        await until(lambda: is_at("COMPLETED"))

        explained = (await run_tab(page, "ExplainUser"))["explain"]
        assert (explained["isIn"], explained["reason"]) == (False, "USER_NOT_STORED")
        found = (await run_tab(page, "FindByKey"))["userByKey"]
        assert [segment["slug"] for segment in found["segments"]] == [
            "AVITO_DISCOUNT_30",
            "AVITO_DISCOUNT_50",
        ]
        log = (await run_tab(page, "ReadAuditLog"))["auditLog"]["nodes"]
        assert len(log) >= 4


async def test_subscription_tab_shows_changes_as_they_are_recorded(
    serve: Serving, browser: Browser
) -> None:
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    result = page.locator(".result-window .view-line")
    async with httpx.AsyncClient(base_url=serve.address) as http:
        api = Api(http)
        await make_segments(api, "AVITO_DISCOUNT_30")
        await page.goto(f"{serve.address}/graphql")
        await page.locator(".graphiql-query-editor .view-line").first.wait_for()
        await page.locator("button.graphiql-tab-button", has_text="Changes").last.click()
        await page.locator("button.graphiql-execute-button[aria-haspopup=menu]").click()
        await page.get_by_role("menuitem", name="WatchChanges").click()
        await result.filter(has_text='"caughtUp": true').wait_for()
        await update_user_segments(api, 1, add=["AVITO_DISCOUNT_30"])
        await result.filter(has_text='"JOINED"').wait_for()
        await picture(page, "WatchChanges")
        await update_user_segments(api, 1, remove=["AVITO_DISCOUNT_30"])
        await result.filter(has_text='"LEFT"').wait_for()
        await page.locator("button.graphiql-execute-button").click()  # stop
        read = (await run_operation(page, "ReadChanges"))["changes"]
    assert [event["entry"]["operation"] for event in read["events"]] == ["JOINED", "LEFT"]
