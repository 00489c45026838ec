"""Statements that fail or are cancelled have spans with their error, and without its message."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.settings import Settings
from segmentql.tables import SegmentRow
from segmentql.tracing import active
from tests.conftest import Sql
from tests.tracing.collector import Collector, ReceivedSpan


@pytest.fixture
async def traced_database(tracing: None, settings: Settings, sql: Sql) -> AsyncIterator[Database]:
    opened = Database(settings, name="traced", publish=lambda messages: None)
    yield opened
    await opened.dispose()


async def statements_of_job(collector: Collector) -> list[ReceivedSpan]:
    (job,) = await collector.wait_for("process test")
    return collector.children(job)


async def test_failed_statement_has_its_sqlstate_and_no_message(
    traced_database: Database, collector: Collector
) -> None:
    job = active.start_job("test", "tests", "1", {})
    with pytest.raises(DBAPIError):
        async with traced_database.read() as session:
            await session.scalar(text("SELECT 1 / CAST(:n AS integer)"), {"n": 0})
    job.end_job(None)
    (statement,) = await statements_of_job(collector)
    assert statement.is_error
    assert statement.attributes["error.type"] == "22012"
    assert statement.attributes["db.response.status_code"] == "22012"
    assert b"division by zero" not in b"".join(collector.bodies)


async def test_cancelled_statement_has_a_span(
    traced_database: Database, collector: Collector
) -> None:
    job = active.start_job("test", "tests", "1", {})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), traced_database.read() as session:
            await session.scalar(text("SELECT pg_sleep(30)"))
    job.end_job(TimeoutError())
    (statement,) = await statements_of_job(collector)
    assert statement.is_error
    assert statement.attributes["error.type"] == "CancelledError"


async def test_statements_of_sqlalchemy_have_spans(
    traced_database: Database, collector: Collector
) -> None:
    async def work(session: WriteSession) -> None:
        await session.execute(select(SegmentRow.id))

    job = active.start_job("test", "tests", "1", {})
    await traced_database.transaction(work)
    job.end_job(None)
    statements = await statements_of_job(collector)
    assert [statement.name for statement in statements] == ["SELECT", "COMMIT"]


async def test_task_that_outlives_its_request_has_no_spans(
    traced_database: Database, collector: Collector
) -> None:
    job = active.start_job("test", "tests", "1", {})
    may_read = asyncio.Event()

    async def read_later() -> None:
        await may_read.wait()
        async with traced_database.read() as session:
            await session.scalar(text("SELECT 1"))

    task = asyncio.create_task(read_later())
    job.end_job(None)
    may_read.set()
    await task
    assert await statements_of_job(collector) == []


async def test_jobs_of_a_job_have_the_trace_of_its_request(tracing: None) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    options = {"traceparent": f"00-{trace}-{parent}-01", "tracestate": "vendor=1"}
    job = active.start_job("test", "tests", "1", options)
    assert active.message_options() == options
    job.end_job(None)
    assert active.message_options() == {}
