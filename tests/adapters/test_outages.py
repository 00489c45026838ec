"""An outage is one line in the log; another error has its traceback."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from segmentql.adapters.database import Database
from segmentql.adapters.outages import log_error, outage_reason
from segmentql.adapters.scheduler import Scheduler
from segmentql.errors import StoreRejected, StoreUnavailable
from segmentql.settings import Settings
from tests.conftest import RunWorker, until
from tests.test_logs import lines

NOWHERE = "127.0.0.1:1"

log = structlog.get_logger(__name__)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            StoreUnavailable("the object store cannot be reached"),
            "the object store cannot be reached",
        ),
        (StoreRejected("the object store rejects the credentials"), None),
        (KeyError("key"), None),
    ],
)
def test_only_outages_have_a_reason(error: Exception, reason: str | None) -> None:
    assert outage_reason(error) == reason
    with structlog.testing.capture_logs() as logged:
        log_error(log, "failed", error, check="a")
    cause = {"log_level": "warning", "reason": reason} if reason else {"log_level": "error"}
    assert logged == [
        {"event": "failed", "check": "a", **cause, **({} if reason else {"exc_info": error})}
    ]


async def test_scheduler_without_a_database_logs_the_reason(settings: Settings) -> None:
    away = settings.model_copy(
        update={"database_url": f"postgresql+asyncpg://u:secret@{NOWHERE}/d"}
    )
    database = Database(away, name="tests", publish=lambda messages: None)
    running = asyncio.create_task(Scheduler(database, (), lambda messages: None).run())

    async def failed() -> bool:
        return bool(logged)

    try:
        with structlog.testing.capture_logs() as logged:
            await until(failed)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await database.dispose()
    assert (logged[0]["event"], logged[0]["log_level"]) == ("scheduler_failed", "warning")
    assert "Connect call failed" in logged[0]["reason"]
    assert "exc_info" not in logged[0]


@pytest.mark.slow  # it starts a worker
async def test_job_without_a_store_logs_the_reason(run_worker: RunWorker, tmp_path: Path) -> None:
    def log_lines() -> list[dict[str, Any]]:
        return lines((tmp_path / "worker-1.log").read_bytes())

    def logged(event: str) -> Callable[[], Awaitable[bool]]:
        async def is_logged() -> bool:
            return event in {line["event"] for line in log_lines()}

        return is_logged

    async with run_worker(SEGMENTQL_S3_ENDPOINT_URL=f"http://{NOWHERE}"):
        await until(logged("job_failed"))
    failures = [line for line in log_lines() if line["event"] == "job_failed"]
    assert {line["reason"] for line in failures} == {"the object store cannot be reached"}
    assert [line for line in log_lines() if "exception" in line] == []
