"""The texts of stored documents are read and prepared once by each process."""

import pytest

from graphql import DocumentNode
from segmentql.adapters.database import Database
from segmentql.document_ids import hash_document
from segmentql.graphql.cost.document_limits import DocumentLimits, parse_within_limits
from segmentql.graphql.execution import document_cache
from segmentql.graphql.execution.document_cache import MAX_CACHED_DOCUMENT_CHARACTERS
from segmentql.settings import Settings
from tests.conftest import Api, Sql, recorded_statements, serving
from tests.documents.requests import NO_USERS, USERS, codes, id_of, send, store


async def test_document_works_after_its_push_without_restart(
    database: Database, trusted: Api
) -> None:
    document = f"{USERS} # of this test"
    assert codes((await send(trusted, documentId=id_of(document)))[1]) == ["DOCUMENT_NOT_FOUND"]
    await store(database, document)
    assert await send(trusted, documentId=id_of(document)) == (200, NO_USERS)


async def test_stored_document_is_read_once(database: Database, trusted: Api) -> None:
    document = f"{USERS} # of another test"
    await store(database, document)
    reads = []
    for _ in range(2):
        with recorded_statements() as statements:
            await send(trusted, documentId=id_of(document))
        reads.append(sum("FROM documents" in statement for statement in statements))
    assert reads == [1, 0]


async def test_long_stored_document_is_prepared_once(
    database: Database, trusted: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of a client is not cached if it is so long."""
    document = f"{USERS} # {'x' * MAX_CACHED_DOCUMENT_CHARACTERS}"
    await store(database, document)
    parsed = []

    def parse(text: str, limits: DocumentLimits) -> DocumentNode:
        parsed.append(text)
        return parse_within_limits(text, limits)

    monkeypatch.setattr(document_cache, "parse_within_limits", parse)
    for _ in range(2):
        assert await send(trusted, documentId=id_of(document)) == (200, NO_USERS)
    assert parsed == [document]


async def test_deleted_document_is_not_executed_after_a_restart(
    database: Database, trusted: Api, trusted_settings: Settings, sql: Sql
) -> None:
    document = f"{USERS} # to delete"
    await store(database, document)
    assert await send(trusted, documentId=id_of(document)) == (200, NO_USERS)
    await sql.execute("DELETE FROM documents WHERE id = $1", hash_document(document))
    async with serving(trusted_settings) as restarted:
        _, body = await send(restarted, documentId=id_of(document))
    assert codes(body) == ["DOCUMENT_NOT_FOUND"]
