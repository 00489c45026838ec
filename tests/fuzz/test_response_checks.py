"""The judge sees harm where there is some, and keeps the request that did it."""

from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from tests.conftest import Sql
from tests.fuzz.requests import Sent, asking, read
from tests.fuzz.response_checks import Harm, Judge

SEGMENT = asking('{ segment(slug: "A") { description } }')
REFUSED = asking("{ nope }")


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is found is kept meanwhile."""
    monkeypatch.setattr("tests.fuzz.requests.CORPUS", tmp_path)
    return tmp_path


async def test_a_masked_fault_is_harm(judge: Judge, sql: Sql, corpus: Path) -> None:
    await sql.execute("ALTER TABLE segments RENAME COLUMN description TO lost")
    try:
        with pytest.raises(Harm, match="INTERNAL"):
            await judge.send(SEGMENT)
    finally:
        await sql.execute("ALTER TABLE segments RENAME COLUMN lost TO description")
    assert [read(file) for file in corpus.iterdir()] == [SEGMENT]


async def test_an_answer_of_500_is_harm(sql: Sql, corpus: Path) -> None:
    broken = httpx.ASGITransport(PlainTextResponse("Internal Server Error", status_code=500))
    async with httpx.AsyncClient(transport=broken, base_url="http://broken") as client:
        with pytest.raises(Harm, match="status 500"):
            await Judge(client, sql).send(SEGMENT)
    assert [read(file) for file in corpus.iterdir()] == [SEGMENT]


async def test_a_row_that_changes_where_it_is_refused_is_harm(judge: Judge, sql: Sql) -> None:
    await judge.send(REFUSED)
    await sql.execute("INSERT INTO users VALUES (77, '2024-01-01Z')")
    with pytest.raises(Harm, match="refused, and yet rows were changed"):
        await judge.send(REFUSED)


async def test_a_query_that_changes_a_row_is_harm(judge: Judge, sql: Sql) -> None:
    await judge.send(SEGMENT)
    await sql.execute("INSERT INTO users VALUES (77, '2024-01-01Z')")
    with pytest.raises(Harm, match="refused, and yet rows were changed"):
        await judge.send(SEGMENT)


async def test_a_mutation_changes_rows_or_says_that_it_does_not(judge: Judge) -> None:
    create = asking(
        'mutation { createSegment(input: {slug: "NEW"}) { refusals: errors { __typename } } }'
    )
    await judge.send(create)
    assert (judge.changes, judge.refused) == (1, 0)
    await judge.send(create)
    assert (judge.changes, judge.refused) == (1, 1)


async def test_the_last_request_that_did_harm_is_kept_alone(
    judge: Judge, sql: Sql, corpus: Path
) -> None:
    for sent in (REFUSED, Sent(b"5")):
        await judge.send(sent)
        await sql.execute("INSERT INTO users SELECT max(id) + 1, '2024-01-01Z' FROM users")
        with pytest.raises(Harm):
            await judge.send(sent)
    assert [read(file) for file in corpus.iterdir()] == [Sent(b"5")]
