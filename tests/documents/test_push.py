"""`segmentql documents push` stores the documents of a manifest, all or none."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import orjson
import pytest

from segmentql.document_ids import hash_document
from segmentql.settings import Settings
from tests.cli.api_process import CommandResult, run_command
from tests.conftest import Api, Sql, environment
from tests.documents.requests import CHANGES, CREATE, USERS, id_of, send

Push: TypeAlias = Callable[..., Coroutine[Any, Any, CommandResult]]

AUDIT = "SELECT actor, api_key_id, action, target, after FROM audit_log ORDER BY id"


@pytest.fixture
def push(settings: Settings, sql: Sql, tmp_path: Path) -> Push:
    """Return a function that pushes documents, which form a manifest with their hashes."""

    async def run(*documents: str, **variables: str) -> CommandResult:
        path = tmp_path / "documents.json"
        manifest = {hash_document(document).hex(): document for document in documents}
        path.write_bytes(orjson.dumps(manifest))
        return await run_command(
            *("documents", "push", str(path), "--data-dir", str(tmp_path)),
            stdin=None,
            **{**environment(settings), **variables},
        )

    return run


async def stored(sql: Sql) -> list[str]:
    return [row["text"] for row in await sql.fetch("SELECT text FROM documents ORDER BY text")]


async def test_pushed_documents_are_executed(push: Push, trusted: Api, sql: Sql) -> None:
    result = await push(USERS, CREATE, CHANGES)
    assert result == CommandResult(0, "3 documents stored; 0 were already stored\n", "")
    assert await stored(sql) == sorted([USERS, CREATE, CHANGES])
    assert (await send(trusted, documentId=id_of(CREATE)))[1] == {
        "data": {"createUser": {"user": {"id": "1"}}}
    }


async def test_push_is_safe_to_repeat(push: Push, sql: Sql) -> None:
    await push(USERS)
    first = await sql.fetch("SELECT * FROM documents")
    again = await push(USERS)
    assert again == CommandResult(0, "0 documents stored; 1 were already stored\n", "")
    assert await sql.fetch("SELECT * FROM documents") == first
    assert (await push(USERS, CREATE)).output == "1 documents stored; 1 were already stored\n"
    assert await stored(sql) == sorted([USERS, CREATE])


async def test_push_has_one_audit_entry_if_it_stores_documents(push: Push, sql: Sql) -> None:
    for documents in ((USERS, CREATE), (USERS, CREATE), (USERS, CHANGES)):
        await push(*documents)
    assert [tuple(row) for row in await sql.fetch(AUDIT)] == [
        (None, None, "documents.pushed", "documents", '{"stored": 2}'),
        (None, None, "documents.pushed", "documents", '{"stored": 1}'),
    ]


async def test_invalid_document_stores_nothing(push: Push, sql: Sql) -> None:
    unknown_field, cut_off = "query Bad { users { nodes { age } } }", "query Cut {"
    result = await push(USERS, unknown_field, CREATE, cut_off)
    assert (result.code, result.output) == (1, "")
    assert f"{id_of(unknown_field)} (Bad): Cannot query field 'age' on type 'User'" in result.errors
    assert f"{id_of(cut_off)} (Cut): Syntax Error" in result.errors
    assert "2 of 4 documents are not valid. Nothing was stored." in result.errors
    assert await stored(sql) == []
    assert await sql.fetch(AUDIT) == []


async def test_limits_and_introspection_follow_the_settings(push: Push, sql: Sql) -> None:
    introspection = "query All { __schema { types { name } } }"
    rejected = await push(introspection, SEGMENTQL_INTROSPECTION="off")
    assert "introspection" in rejected.errors
    deep = await push(USERS, SEGMENTQL_MAX_DEPTH="1")
    assert "exceeds the limit of 1" in deep.errors
    assert await stored(sql) == []
    assert (await push(introspection)).code == 0


async def test_manifest_errors_name_the_file(push: Push, tmp_path: Path, sql: Sql) -> None:
    path = tmp_path / "relay.json"
    path.write_bytes(orjson.dumps({"0" * 32: USERS}))
    result = await run_command("documents", "push", str(path))
    assert result.code == 1
    assert result.errors.startswith(f'Error: {path}: the id "{"0" * 32}" looks like a hash by MD5;')
    missing = await run_command("documents", "push", str(tmp_path / "missing.json"))
    assert missing.code == 2


async def test_database_accepts_only_the_hash_as_id(sql: Sql) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(
            "INSERT INTO documents (id, text, created_at) VALUES ($1, $2, now())",
            hash_document(USERS),
            CREATE,
        )


async def test_service_cannot_change_or_delete_documents(
    push: Push, settings: Settings, sql: Sql
) -> None:
    await push(USERS)
    connection = await asyncpg.connect(settings.database_url.replace("+asyncpg", ""))
    try:
        for statement in ("UPDATE documents SET text = 'x'", "DELETE FROM documents"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
    assert await stored(sql) == [USERS]
