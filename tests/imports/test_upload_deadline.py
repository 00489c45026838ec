"""An upload link expires before its import is cancelled."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import Api, Sql
from tests.imports.lists import CREATE
from tests.operations import make_segments

INPUT = {"slug": "A", "source": {"upload": {"sizeBytes": 3}}}


async def create(api: Api) -> Any:
    """Create an import with an idempotency key; return its upload."""
    response = await api.http.post(
        "/graphql",
        content=json.dumps({"query": CREATE, "variables": {"input": INPUT}}),
        headers={"content-type": "application/json", "idempotency-key": "k"},
    )
    payload = response.json()["data"]["createImport"]
    assert payload["errors"] == []
    assert payload["import"]["status"] == "AWAITING_UPLOAD"
    return payload["upload"]


@pytest.mark.parametrize("seconds_left", [24 * 3600, 100])
async def test_link_expires_at_the_deadline(api: Api, sql: Sql, seconds_left: int) -> None:
    await make_segments(api, "A")
    upload = await create(api)
    if seconds_left < 24 * 3600:
        await sql.execute(
            "UPDATE imports SET deadline_at = now() + make_interval(secs => $1)", seconds_left
        )
        upload = await create(api)
    deadline = await sql.fetchval("SELECT deadline_at FROM imports")
    expires_at = datetime.fromisoformat(upload["expiresAt"])
    assert deadline - timedelta(seconds=60) < expires_at <= deadline
    query = parse_qs(urlsplit(upload["url"]).query)
    signed_at = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%S%z")
    lifetime = timedelta(seconds=int(query["X-Amz-Expires"][0]))
    assert signed_at.astimezone(UTC) + lifetime == expires_at


async def test_import_whose_deadline_has_passed_has_no_link(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    assert await create(api)
    await sql.execute("UPDATE imports SET deadline_at = now()")
    assert await create(api) is None
