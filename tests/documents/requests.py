"""Stored documents, and requests that name them."""

from collections.abc import Sequence
from typing import Any

from segmentql.adapters.database import Database
from segmentql.document_ids import format_document_id, hash_document
from segmentql.documents.service import store_documents
from segmentql.principal import NO_ACTOR
from tests.conftest import Api, without_cost

USERS = "query Users($first: Int = 2) { users(first: $first) { nodes { id } } }"
CREATE = "mutation Create { createUser(input: {}) { user { id } } }"
CHANGES = "subscription Changes { changes(start: EARLIEST) { events { cursor } } }"
UNKNOWN = "{ __typename }"
NO_USERS: dict[str, Any] = {"data": {"users": {"nodes": []}}}


def id_of(document: str) -> str:
    return format_document_id(hash_document(document))


async def store(database: Database, *documents: str) -> int:
    """Store documents; return how many of them were not stored before."""
    return await database.transaction(
        lambda session: store_documents(session, documents, actor=NO_ACTOR)
    )


async def send(api: Api, accept: str = "application/json", **parameters: Any) -> tuple[int, Any]:
    """Send a request; return its status and its body without the cost."""
    response = await api.http.post("/graphql", json=parameters, headers={"accept": accept})
    return response.status_code, without_cost(response.json())


def codes(body: Any) -> Sequence[str]:
    """Return the codes of the errors of a request that was not executed."""
    assert list(body) == ["errors"]
    return [error["extensions"]["code"] for error in body["errors"]]
