"""The monitor detects harm and stores the request that did it."""

from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from tests.conftest import Sql
from tests.fuzz.requests import HttpRequest, graphql_request, read
from tests.fuzz.response_checks import EffectMonitor, Harm

SEGMENT = graphql_request('{ segment(slug: "A") { description } }')
REFUSED = graphql_request("{ nope }")


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store harmful requests in a temporary folder."""
    monkeypatch.setattr("tests.fuzz.requests.CORPUS", tmp_path)
    return tmp_path


async def test_masked_fault_is_harm(monitor: EffectMonitor, sql: Sql, corpus: Path) -> None:
    await sql.execute("ALTER TABLE segments RENAME COLUMN description TO lost")
    try:
        with pytest.raises(Harm, match="INTERNAL"):
            await monitor.send(SEGMENT)
    finally:
        await sql.execute("ALTER TABLE segments RENAME COLUMN lost TO description")
    assert [read(file) for file in corpus.iterdir()] == [SEGMENT]


async def test_status_500_is_harm(sql: Sql, corpus: Path) -> None:
    broken = httpx.ASGITransport(PlainTextResponse("Internal Server Error", status_code=500))
    async with httpx.AsyncClient(transport=broken, base_url="http://broken") as client:
        with pytest.raises(Harm, match="status 500"):
            await EffectMonitor(client, sql).send(SEGMENT)
    assert [read(file) for file in corpus.iterdir()] == [SEGMENT]


async def test_rejected_request_that_changes_a_row_is_harm(
    monitor: EffectMonitor, sql: Sql
) -> None:
    await monitor.send(REFUSED)
    await sql.execute("INSERT INTO users VALUES (77, '2024-01-01Z')")
    with pytest.raises(Harm, match="rejected, but rows of"):
        await monitor.send(REFUSED)


async def test_query_that_changes_a_row_is_harm(monitor: EffectMonitor, sql: Sql) -> None:
    await monitor.send(SEGMENT)
    await sql.execute("INSERT INTO users VALUES (77, '2024-01-01Z')")
    with pytest.raises(Harm, match="rejected, but rows of"):
        await monitor.send(SEGMENT)


async def test_mutation_changes_rows_or_returns_errors(monitor: EffectMonitor) -> None:
    create = graphql_request(
        'mutation { createSegment(input: {slug: "NEW"}) { refusals: errors { __typename } } }'
    )
    await monitor.send(create)
    assert (monitor.changes, monitor.rejected) == (1, 0)
    await monitor.send(create)
    assert (monitor.changes, monitor.rejected) == (1, 1)


async def test_only_the_harmful_request_is_stored(
    monitor: EffectMonitor, sql: Sql, corpus: Path
) -> None:
    for sent in (REFUSED, HttpRequest(b"5")):
        await monitor.send(sent)
        await sql.execute("INSERT INTO users SELECT max(id) + 1, '2024-01-01Z' FROM users")
        with pytest.raises(Harm):
            await monitor.send(sent)
    assert [read(file) for file in corpus.iterdir()] == [HttpRequest(b"5")]
