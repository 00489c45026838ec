"""Requests for imports, decisions about them and their outcomes leave one audit entry each."""

from typing import Any, cast

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.imports import attempts
from segmentql.imports.actors import ImportContext
from tests.audit.clients import Client, log, summary
from tests.audit.entries import assert_documented
from tests.conftest import Api, Sql
from tests.imports.lists import APPLY, CANCEL, START, Imports
from tests.keys.clients import make_key
from tests.operations import make_segments


@pytest.fixture
async def ada(auth_api: Api, database: Database, sql: Sql) -> Client:
    client = Client(auth_api, await make_key(database, "ADMIN", "ada"))
    await make_segments(cast("Api", client), "a")
    await sql.execute("DELETE FROM audit_log")
    return client


@pytest.fixture
async def imports(ada: Client, import_context: ImportContext, sent: list[Message]) -> Imports:
    return Imports(cast("Api", ada), import_context, sent)


async def entries(ada: Client, sql: Sql) -> list[Any]:
    """Return and delete the entries, oldest first, after a check of their documented fields."""
    found = (await log(ada))[::-1]
    assert_documented(found)
    await sql.execute("DELETE FROM audit_log")
    return found


def actions(found: list[Any]) -> list[tuple[str, str | None]]:
    """Return the action and the actor of each entry."""
    return [(entry["action"], entry["actor"]) for entry in found]


async def test_completed_import(ada: Client, sql: Sql, imports: Imports) -> None:
    await imports.run(b"5\n6\n5\n")
    found = await entries(ada, sql)
    assert [summary(entry) for entry in found] == [
        ("import.created", "imp_1", "ada", "req-1"),
        ("import.started", "imp_1", "ada", "req-1"),
        ("import.completed", "imp_1", None, None),
    ]
    assert found[0]["after"] == {
        "slug": "a",
        "mode": "ADD",
        "status": "AWAITING_UPLOAD",
        "rows": None,
        "removals": None,
        "counts": {},
    }
    assert found[-1]["after"]["status"] == "COMPLETED"
    assert found[-1]["after"]["counts"] == {"JOINED": 2, "DUPLICATE": 1}


async def test_refused_imports(ada: Client, sql: Sql, imports: Imports) -> None:
    for data in (b"5\nx\n", b"PK\x03\x04 not a list"):
        refused = await imports.run(data)
        assert refused["status"] == "REFUSED"
        assert actions(await entries(ada, sql))[2:] == [("import.refused", None)]


async def test_held_and_applied_import(ada: Client, sql: Sql, imports: Imports) -> None:
    await imports.run(b"5\n6\n")
    await entries(ada, sql)
    held = await imports.run(b"", mode="REPLACE")
    assert held["status"] == "HELD"
    assert actions(await entries(ada, sql))[2:] == [("import.held", None)]
    await imports.send(APPLY, id=held["id"], allowRemovals=1)
    assert await entries(ada, sql) == []
    await imports.send(APPLY, id=held["id"], allowRemovals=2)
    await imports.work(held["id"])
    found = await entries(ada, sql)
    assert actions(found) == [("import.applied", "ada"), ("import.completed", None)]
    assert found[0]["before"]["status"] == "HELD"
    assert found[1]["after"]["removals"] == 2


async def test_validated_import_that_the_client_holds_and_cancels(
    ada: Client, sql: Sql, imports: Imports
) -> None:
    await imports.run(b"5\n6\n")
    await entries(ada, sql)
    validated = await imports.run(b"6\n", mode="REPLACE", dryRun=True)
    assert actions(await entries(ada, sql)) == [
        ("import.created", "ada"),
        ("import.started", "ada"),
    ]
    await imports.send(APPLY, id=validated["id"], allowRemovals=0)
    await imports.send(CANCEL, id=validated["id"])
    assert actions(await entries(ada, sql)) == [("import.held", "ada"), ("import.cancelled", "ada")]


async def test_failed_import(ada: Client, sql: Sql, imports: Imports) -> None:
    created = await imports.create(b"5\n")
    await imports.send(START, id=created["id"])
    await sql.execute("UPDATE imports SET attempts = $1, status = 'VALIDATING'", 8)
    assert attempts.MAX_ATTEMPTS == 8
    await imports.work(created["id"])
    assert (await imports.read(created["id"]))["status"] == "FAILED"
    assert actions(await entries(ada, sql))[2:] == [("import.failed", None)]
