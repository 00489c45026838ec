"""The services of compose.yaml run together, as processes with the commands of the file.

Grafana is not among them, because no package registry has it.
"""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose_file import STORES, write_env
from tests.conftest import until
from tests.e2e.compose_up import Project
from tests.e2e.containers import TOOLS, Response
from tests.test_monitoring import RULES

ORIGIN = "http://127.0.0.1:8080"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.getuid() != 0 or not all(map(shutil.which, TOOLS)),
        reason="as root on Linux, with iproute2 and util-linux",
    ),
    pytest.mark.skipif(
        not all(map(shutil.which, ("prometheus", "wget"))),
        reason="no Prometheus or wget on PATH (Debian: apt-get install prometheus wget)",
    ),
]
needs_minio = pytest.mark.skipif(
    not all(map(shutil.which, ("minio", "mc"))), reason="no minio and mc on PATH"
)

MUTATION = """
mutation {
  createUser(input: {id: 7}) { user { id } }
  createReport(input: {userId: 7, year: 2024, month: 3, waitSeconds: 30}) {
    report { status downloadUrl }
  }
}
"""

# Prints the operations that the service's key can do with its bucket and with others.
PERMISSIONS = """
import json, os, boto3
from botocore.exceptions import ClientError
client = boto3.client(
    "s3", endpoint_url=os.environ["SEGMENTQL_S3_ENDPOINT_URL"], region_name="us-east-1",
    aws_access_key_id=os.environ["SEGMENTQL_S3_ACCESS_KEY"],
    aws_secret_access_key=os.environ["SEGMENTQL_S3_SECRET_KEY"],
)
mine = os.environ["SEGMENTQL_S3_BUCKET"]
attempts = {
    "put": lambda: client.put_object(Bucket=mine, Key="tried", Body=b"1"),
    "delete": lambda: client.delete_object(Bucket=mine, Key="tried"),
    "create bucket": lambda: client.create_bucket(Bucket="another"),
    "delete bucket": lambda: client.delete_bucket(Bucket=mine),
    "put elsewhere": lambda: client.put_object(Bucket="elsewhere", Key="tried", Body=b"1"),
    "list elsewhere": lambda: client.list_objects_v2(Bucket="elsewhere"),
    "policy": lambda: client.put_bucket_policy(Bucket=mine, Policy="{}"),
}
results = {}
for name, attempt in attempts.items():
    try:
        attempt()
        results[name] = "allowed"
    except ClientError as error:
        results[name] = error.response["Error"]["Code"]
print(json.dumps(results))
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(store, marks=[needs_minio] if store == "minio" else []) for store in STORES
    ],
)
async def project(request: pytest.FixtureRequest) -> AsyncIterator[Project]:
    """Start all services except Grafana, as `make compose` does."""
    with tempfile.TemporaryDirectory(prefix="segmentql-compose-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with Project(folder, request.param, write_env(folder / ".env")) as running:
            for service in running.services:
                if service != "grafana":
                    await running.start(service)
            yield running


async def test_requests_reports_and_links_work(project: Project) -> None:
    rejected = await _graphql(project, "{ viewer { role } }", key=None)
    assert rejected.status == 401
    response = await _graphql(project, MUTATION, key=project.variables["FIRST_KEY"])
    report = response.json()["data"]["createReport"]["report"]
    assert report["status"] == "READY"
    assert report["downloadUrl"].startswith("http://127.0.0.1:9000/segmentql-reports/")
    csv = "user_id,segment_slug,operation,executed_at\n"
    file = await project.machine.fetch(report["downloadUrl"])
    assert (file.status, file.text) == (200, csv)
    unsigned = report["downloadUrl"].partition("?")[0]
    assert (await project.machine.fetch(unsigned)).status == 403
    await project.restart("store")
    await until(lambda: _is(project, report["downloadUrl"], csv))


async def test_service_key_has_only_the_permissions_for_files(project: Project) -> None:
    printed = await project.run_program("worker", "python3", "-c", PERMISSIONS)
    results = json.loads(printed)
    assert {name for name, result in results.items() if result == "allowed"} == {"put", "delete"}
    assert set(results.values()) <= {"allowed", "AccessDenied", "NoSuchBucket", "MalformedPolicy"}


@pytest.mark.parametrize(("origin", "allowed"), [(ORIGIN, ORIGIN), ("https://example.org", None)])
async def test_only_pages_of_the_service_may_read_files(
    project: Project, origin: str, allowed: str | None
) -> None:
    response = await project.machine.fetch(
        "http://127.0.0.1:9000/segmentql-reports/any",
        method="OPTIONS",
        headers={"origin": origin, "access-control-request-method": "PUT"},
    )
    assert response.headers.get("access-control-allow-origin") == allowed


async def test_prometheus_scrapes_the_api_and_the_worker(project: Project) -> None:
    async def up() -> bool:
        samples = (await _prometheus(project, "query?query=up"))["result"]
        values = {sample["metric"]["job"]: sample["value"][1] for sample in samples}
        return values == {"segmentql-api": "1", "segmentql-worker": "1"}

    await until(up)
    groups = (await _prometheus(project, "rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in RULES]
    without_token = await project.machine.fetch(f"{ORIGIN}/metrics")
    assert without_token.status == 401


async def test_services_stop_by_their_signals(project: Project) -> None:
    for name in ("worker", "api", "prometheus"):
        assert await project.machine.stop_container(name) == 0, name
    assert await project.machine.stop_container("postgres", signal.SIGINT) == 0
    assert await project.machine.stop_container("redis") == 0


async def _graphql(project: Project, query: str, *, key: str | None) -> Response:
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    body = json.dumps({"query": query})
    url = f"{ORIGIN}/graphql"
    return await project.machine.fetch(url, method="POST", headers=headers, body=body)


async def _is(project: Project, url: str, text: str) -> bool:
    response = await project.machine.fetch(url)
    return (response.status, response.text) == (200, text)


async def _prometheus(project: Project, path: str) -> Any:
    response = await project.machine.fetch(f"http://127.0.0.1:9090/api/v1/{path}")
    body = response.json()
    assert body["status"] == "success", body
    return body["data"]
