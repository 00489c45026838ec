"""The logs of the whole service at debug level are lines of JSON without secrets."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson
import pytest

from segmentql.adapters.database import Database
from segmentql.settings import Settings
from tests.conftest import RunWorker
from tests.e2e.conftest import RunServe
from tests.keys.clients import make_key

pytestmark = pytest.mark.e2e

REPORT = """
mutation Monthly {
  createUser(input: {id: 7}) { user { id } }
  createReport(input: {userId: 7, year: 2024, month: 3, waitSeconds: 30}) {
    report { status downloadUrl }
  }
}
"""


@pytest.mark.usefixtures("s3")
async def test_logs_of_all_processes_are_json_without_secrets(
    settings: Settings,
    database: Database,
    run_serve: RunServe,
    run_worker: RunWorker,
    tmp_path: Path,
) -> None:
    key = await make_key(database, "ADMIN", "ada")
    debug_settings = {"SEGMENTQL_AUTH": "required", "SEGMENTQL_LOG_LEVEL": "debug"}
    async with (
        run_worker(**debug_settings),
        run_serve("--workers", "2", **debug_settings) as serving,
    ):
        async with httpx.AsyncClient(base_url=serving.address, timeout=60) as client:
            response = await client.post(
                "/graphql",
                json={"query": REPORT},
                headers={"authorization": f"Bearer {key.token}", "x-request-id": "r-1"},
            )
            link = response.json()["data"]["createReport"]["report"]["downloadUrl"]
            assert (await client.get(link)).status_code == 200
        assert response.headers["x-request-id"] == "r-1"

    texts = {name: (tmp_path / name).read_bytes() for name in ("serve.log", "worker-1.log")}
    entries_by_process: dict[str, list[dict[str, Any]]] = {
        name: [orjson.loads(line) for line in text.splitlines()] for name, text in texts.items()
    }
    for line in (line for lines in entries_by_process.values() for line in lines):
        assert {"event", "level", "timestamp"} <= line.keys()
    (request,) = [line for line in entries_by_process["serve.log"] if line["event"] == "request"]
    assert (request["operation"], request["outcome"]) == ("Monthly", "done")
    assert (request["request_id"], request["key"]) == ("r-1", "ada")
    assert "r-1" in {line.get("request_id") for line in entries_by_process["worker-1.log"]}
    assert any("parent process" in line["event"] for line in entries_by_process["serve.log"])
    (signature,) = parse_qs(urlsplit(link).query)["X-Amz-Signature"]
    secrets = [key.token, signature, "createReport(input"]
    for secret in (settings.s3_secret_key, settings.database_url, settings.redis_url, *secrets):
        assert secret is not None
        for text in texts.values():
            assert secret.encode() not in text
