"""Results that a process of another version has stored, which happens during an upgrade."""

from typing import Any, Final

import pytest

from segmentql.graphql.context import Context
from segmentql.graphql.types.stored_results import decode_payload
from tests.conftest import Api, Sql
from tests.idempotency.cases import CASES, CORE, MUTATIONS, Case, send_with_key

MEMBERS: Final = Case(
    "updateSegmentMembers", {"slug": "A", "add": ["1"]}, "counts { outcome count }"
)
CREATE: Final = Case("createUser", {}, "user { id }")


async def change_result(sql: Sql, expression: str) -> None:
    await sql.execute(f"UPDATE idempotency_keys SET result = {expression}")


async def test_unknown_field_of_a_newer_version_is_ignored(api: Api, sql: Sql) -> None:
    first = await send_with_key(api, CREATE, "k")
    await change_result(sql, """result || '{"new": 1, "group": {"group": 7}}'""")
    assert await send_with_key(api, CREATE, "k") == first


async def test_missing_field_of_an_older_version_has_its_default(filled: Api, sql: Sql) -> None:
    case = CASES["updateUserSegments"]
    first = await send_with_key(filled, case, "k")
    await change_result(sql, "result - 'segments_added'")
    assert await send_with_key(filled, case, "k") == {**first, "segmentsAdded": 0}


async def test_record_of_an_unknown_kind_is_null(api: Api, sql: Sql) -> None:
    await send_with_key(api, CREATE, "k")
    await change_result(sql, """'{"user": {"person": 1}}'""")
    assert await send_with_key(api, CREATE, "k") == {"user": None, "errors": []}


async def test_unknown_records_of_a_list_are_omitted(filled: Api, sql: Sql) -> None:
    first = await send_with_key(filled, MEMBERS, "k")
    assert first["counts"] == [{"outcome": "JOINED", "count": 1}]
    await change_result(
        sql,
        """
        jsonb_set(result, '{counts}', result->'counts' || '[
            {"outcomeCount": ["NEW_OUTCOME", 1]},
            {"outcomeCount": {"outcome": "JOINED"}},
            {"outcomeCount": ["JOINED"]},
            {"newKind": 3}
        ]')
        """,
    )
    assert await send_with_key(filled, MEMBERS, "k") == first


@pytest.mark.parametrize("name", sorted(MUTATIONS))
async def test_each_payload_can_be_made_of_an_empty_result(name: str) -> None:
    payload_type: Any = CORE.get_type(str(MUTATIONS[name].type))
    payload = payload_type.extensions["strawberry-definition"].origin
    context: Any = object.__new__(Context)  # no entity is loaded
    assert (await decode_payload(payload, context, {})).errors == []
