"""A job continues the trace of the request that enqueued it, as far as its calls to the store."""

from pathlib import Path

import pytest

from segmentql.adapters.storage import Storage
from tests.back_dating import insert_past_membership
from tests.conftest import Api, RunWorker, Sql, until
from tests.operations import create_user, make_segments
from tests.reports.test_report_worker import MARCH
from tests.tracing.collector import Collector

CONSUMER = 5
REPORT = """
mutation Report {
  createReport(input: {userId: 7, year: 2024, month: 3, waitSeconds: 30}) { report { status } }
}
"""


@pytest.fixture
async def march_membership(api: Api, sql: Sql, storage: Storage) -> None:
    """Store a membership of user 7 in March 2024, by an application that does not trace."""
    await storage.set_up()
    await make_segments(api, "a")
    await create_user(api, id="7")
    await insert_past_membership(sql, 7, "a", joined_at=MARCH, left_at=MARCH.replace(day=2))


async def test_report_has_the_trace_of_its_request(
    traced_api: Api,
    march_membership: None,
    run_worker: RunWorker,
    collector: Collector,
    tmp_path: Path,
) -> None:
    async with run_worker():
        response = await traced_api.http.post(
            "/graphql", json={"query": REPORT}, headers={"x-request-id": "req-1"}
        )
        assert response.json()["data"]["createReport"]["report"]["status"] == "READY"
        (request,) = await collector.wait_for("mutation Report")
        (job,) = await collector.wait_for("process make_report")
    assert (job.trace_id, job.parent_id) == (request.trace_id, request.id)
    assert (job.kind, job.service) == (CONSUMER, "segmentql-worker")
    assert job.attributes.pop("messaging.message.id")  # type: ignore[attr-defined]
    assert job.attributes == {
        "messaging.system": "dramatiq",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "reports",
        "segmentql.job": "make_report",
        "segmentql.retries": 0,
        "segmentql.request_id": "req-1",
    }
    # The statement that polls for the report is not in the trace.
    names = [span.name for span in collector.children(request)]
    assert names.count("COMMIT") == 1
    assert names.count("SELECT") == 0
    children = {span.name: span for span in collector.children(job)}
    assert {"SELECT", "UPDATE", "COMMIT", "S3.PutObject"} <= {*children}
    put = children["S3.PutObject"]
    assert put.attributes["rpc.method"] == "PutObject"
    assert put.attributes["http.response.status_code"] == 200
    assert not put.is_error
    lines = (tmp_path / "worker-1.log").read_text().splitlines()
    (line,) = [line for line in lines if '"job_done"' in line and "make_report" in line]
    assert f'"trace_id": "{request.trace_id}"' in line


async def test_job_without_a_traced_request_starts_a_trace(
    api: Api, march_membership: None, run_worker: RunWorker, collector: Collector
) -> None:
    async with run_worker():
        await api(REPORT)
        (job,) = await collector.wait_for("process make_report")
    assert job.parent_id == ""
    assert collector.children(job)
    # Periodic checks and their statements have no spans.
    roots = {span.name for span in collector.spans if not span.parent_id}
    assert [name for name in roots if not name.startswith("process ")] == []


async def test_failed_store_call_and_retried_job_are_in_the_trace(
    traced_api: Api,
    march_membership: None,
    run_worker: RunWorker,
    collector: Collector,
) -> None:
    async with run_worker(SEGMENTQL_S3_SECRET_KEY="wrong"):
        query = REPORT.replace("30", "0")
        await traced_api(query)
        (request,) = await collector.wait_for("mutation Report")

        async def has_failed() -> bool:
            return any(span.is_error for span in collector.spans if span.name.startswith("S3.Put"))

        await until(has_failed)
        (job, *_) = await collector.wait_for("process make_report")
    assert job.trace_id == request.trace_id
    failed = [span for span in collector.children(job) if span.is_error]
    assert failed[0].attributes["error.type"] == "SignatureDoesNotMatch"
    assert failed[0].attributes["http.response.status_code"] == 403
