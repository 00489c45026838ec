"""Clients read compressed responses from a separate server, which takes some two seconds to start.

The large responses take up to a second each.
"""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from segmentql.settings import Settings
from tests.conftest import Sql
from tests.graphql.test_compression import ENCODINGS, decoded, many_names
from tests.graphql.test_unread_responses import USERS, large_query, running

pytestmark = pytest.mark.slow


def request_body(megabytes: float) -> dict[str, Any]:
    """Return a request whose response has about `megabytes`, or if 0, 2 KB."""
    if not megabytes:
        return {"query": many_names(45)}
    query, variables = large_query(megabytes)
    return {"query": query, "variables": variables}


@pytest.fixture
async def many_users(sql: Sql) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, $1) AS n", USERS)


async def test_bodies_of_each_size_and_encoding_on_one_connection(
    settings: Settings, many_users: None, tmp_path: Path
) -> None:
    async with (
        running(settings, tmp_path / "log") as server,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", limits=httpx.Limits(max_connections=1)
        ) as client,
    ):
        for megabytes in (0, 1, 0, 5, 0):
            bodies = []
            for encoding in ("identity", *ENCODINGS):
                response = await client.post(
                    "/graphql",
                    json=request_body(megabytes),
                    headers={"accept-encoding": encoding},
                )
                assert response.headers.get("content-encoding", "identity") == encoding
                assert len(response.headers.get_list("content-length")) == 1
                bodies.append(decoded(response))
            assert bodies[0] == bodies[1] == bodies[2]
            assert "errors" not in json.loads(bodies[0])


async def test_connection_is_used_again_after_each_kind_of_response(
    settings: Settings, many_users: None, tmp_path: Path
) -> None:
    async with (
        running(settings, tmp_path / "log") as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client,
    ):
        ports = set()
        for query in ("{ user(id: 1) { id } }", many_names(45)):
            for encoding in ("identity", *ENCODINGS):
                headers = {"accept-encoding": encoding}
                for status in (200, 304):
                    async with client.stream(
                        "GET", "/graphql", params={"query": query}, headers=headers
                    ) as response:
                        stream = response.extensions["network_stream"]
                        ports.add(stream.get_extra_info("client_addr")[1])
                        await response.aread()
                    assert response.status_code == status
                    headers["if-none-match"] = response.headers["etag"]
        assert len(ports) == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_reads_compressed_responses(
    settings: Settings, many_users: None, tmp_path: Path
) -> None:
    async with running(settings, tmp_path / "log") as server:
        for megabytes, names in ((0, 45), (3, 4)):
            for options in ([], ["--compressed"], ["--compressed", "-H", "accept-encoding: gzip"]):
                process = await asyncio.create_subprocess_exec(
                    *("curl", "-s", *options, f"http://127.0.0.1:{server.port}/graphql"),
                    *("-H", "content-type: application/json", "--data", "@-"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
                body = json.dumps(request_body(megabytes)).encode()
                output, _ = await process.communicate(body)
                assert len(json.loads(output)["data"]) == names
