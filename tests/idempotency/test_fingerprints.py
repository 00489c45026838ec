"""Null is the same as absent, except for fields that null clears."""

import re
from typing import Any

import pytest

from graphql import GraphQLInputObjectType, GraphQLNonNull, Undefined, get_named_type
from segmentql.graphql.execution.fingerprints import fingerprint
from tests.conftest import Api, Sql
from tests.graphql.executor_helpers import CORE
from tests.idempotency.cases import CASES, Case, every_row, send_with_key

MUTATIONS = CORE.mutation_type.fields  # type: ignore[union-attr]


def nullable_fields(input_type: GraphQLInputObjectType) -> list[str]:
    """Return the Python names of the fields that accept null and have no default."""
    return [
        field.out_name or name
        for name, field in input_type.fields.items()
        if not isinstance(field.type, GraphQLNonNull) and field.default_value is Undefined
    ]


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_only_documented_fields_distinguish_null(name: str) -> None:
    field = MUTATIONS[name]
    input_type = get_named_type(field.args["input"].type)
    assert isinstance(input_type, GraphQLInputObjectType)
    absent = fingerprint(name, field, {"input": {}})
    different = {
        nullable
        for nullable in nullable_fields(input_type)
        if fingerprint(name, field, {"input": {nullable: None}}) != absent
    }
    assert different == ({"name", "description"} if name == "updateSegment" else set())
    is_documented = re.search("null clears a field", input_type.description or "") is not None
    assert is_documented == bool(different)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("createUser", {}, {"id": None, "key": None}),
        ("deleteSegment", {"slug": "B"}, {"slug": "B", "expectedVersion": None}),
        (
            "setRollout",
            {"slug": "A", "rollout": {"percent": 1}},
            {"slug": "A", "rollout": {"percent": 1, "stages": None, "expiresAt": None}},
        ),
    ],
)
async def test_key_with_null_instead_of_no_value_is_the_same_call(
    filled: Api, sql: Sql, name: str, first: Any, second: Any
) -> None:
    case = Case(name, first, CASES[name].selection)
    payload = await send_with_key(filled, case, "k")
    assert payload["errors"] == []
    before = await every_row(sql)
    assert await send_with_key(filled, case._replace(input=second), "k") == payload
    assert await every_row(sql) == before
