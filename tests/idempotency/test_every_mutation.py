"""A retry of a mutation with its idempotency key changes nothing and returns the same payload."""

import json
from typing import Any, Final

import pytest
import strawberry

from graphql import parse
from segmentql.graphql.execution.compiler import compile_operation
from segmentql.graphql.execution.plans import MutationPlan
from segmentql.graphql.types.stored_results import encode_payload
from tests.conftest import Api, Sql
from tests.idempotency.cases import (
    CASES,
    CORE,
    MUTATIONS,
    Case,
    every_row,
    send,
    send_with_key,
)

DIRECTIVE = '@idempotent(key: "the key")'
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_mutation_has_a_case() -> None:
    assert sorted(CASES) == sorted(MUTATIONS)


@each_case
async def test_retry_changes_nothing(filled: Api, sql: Sql, case: Case) -> None:
    before = await every_row(sql)
    first = await send_with_key(filled, case, "the key")
    assert first["errors"] == []
    after = await every_row(sql)
    assert after != before
    assert await send_with_key(filled, case, "the key") == first
    assert await every_row(sql) == after
    (stored,) = await sql.fetch("SELECT api_key_id, key, result FROM idempotency_keys")
    assert (stored["api_key_id"], stored["key"]) == (None, "the key")


@each_case
async def test_header_and_directive_have_the_same_key(filled: Api, sql: Sql, case: Case) -> None:
    """The third form is executed by graphql-core, which coerces the input in its own way."""
    first = await send_with_key(filled, case, "the key")
    after = await every_row(sql)
    for document in (case.document(DIRECTIVE), case.document(DIRECTIVE, before="__typename")):
        body = await send(filled, document, {"input": case.input})
        assert body["data"]["payload"] == first
    assert await every_row(sql) == after


@each_case
def test_mutation_with_the_directive_has_a_plan(case: Case) -> None:
    document = parse(case.document(DIRECTIVE))
    plan = compile_operation(CORE, document, document.definitions[0])  # type: ignore[arg-type]
    assert isinstance(plan, MutationPlan)


RESULTS: Final[dict[str, Any]] = {
    "createUser": {"user": {"user": 2}},
    "updateUser": {"user": {"user": 9}},
    "deleteUser": {"deleted_id": "1"},
    "createSegment": {"segment": {"segment": 6}},
    "updateSegment": {"segment": {"segment": 1}},
    "deleteSegment": {"deleted_id": "seg_2"},
    "updateUserSegments": {
        "user": {"user": 1},
        "segments_added": 1,
        "segments_removed": 1,
        "segments_extended": 0,
    },
    "updateSegmentMembers": {
        "segment": {"segment": 2},
        "counts": [
            {"outcomeCount": ["JOINED", 1]},
            {"outcomeCount": ["ALREADY_IN", 1]},
            {"outcomeCount": ["DUPLICATE", 1]},
            {"outcomeCount": ["UNKNOWN_USER", 1]},
        ],
    },
    "setRollout": {"segment": {"segment": 1}, "rollout": {"rollout": 1}},
    "pauseRollout": {"segment": {"segment": 3}, "rollout": {"rollout": 3}},
    "resumeRollout": {"segment": {"segment": 4}, "rollout": {"rollout": 4}},
    "cancelRollout": {"segment": {"segment": 5}, "rollout": {"rollout": 5}},
    "createReport": {"report": {"report": 1}},
    "createImport": {"import_": {"import": 4}},
    "startImport": {"import_": {"import": 3}},
    "applyImport": {"import_": {"import": 1}},
    "cancelImport": {"import_": {"import": 2}},
    "createExport": {"export": {"export": 1}},
    "createApiKey": {"api_key": {"apiKey": 2}},
    "revokeApiKey": {"api_key": {"apiKey": 1}},
}


@each_case
async def test_stored_result_has_ids_and_counts_only(filled: Api, sql: Sql, case: Case) -> None:
    await send_with_key(filled, case, "the key")
    stored = await sql.fetchval("SELECT result::text FROM idempotency_keys")
    assert json.loads(stored) == RESULTS[case.field]


@strawberry.type
class TextPayload:
    text: str


def test_text_cannot_be_stored() -> None:
    """A new field of a payload must be an id, a count or an entity, or be marked `NOT_STORED`."""
    with pytest.raises(TypeError, match="text: str cannot be stored"):
        encode_payload(TextPayload(text="secret"))


async def test_token_of_an_api_key_is_returned_once(api: Api, sql: Sql) -> None:
    create = Case("createApiKey", {"name": "new", "role": "READER"}, "apiKey { id } token")
    first = await send_with_key(api, create, "the key")
    assert first["token"].startswith("sgql_")
    replayed = await send_with_key(api, create, "the key")
    assert replayed == {**first, "token": None}
    rows = str(await every_row(sql))
    assert first["token"] not in rows
    assert first["token"].split("_")[2] not in rows
