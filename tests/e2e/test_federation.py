"""A gateway of Apollo composes the subgraph with another one, and joins both in its queries."""

import pytest

from segmentql.adapters.database import Database
from tests.back_dating import insert_membership
from tests.clients.node import run_json
from tests.conftest import Sql
from tests.e2e.conftest import RunServe
from tests.keys.clients import make_key
from tests.timeline import make_segment

pytestmark = pytest.mark.e2e


async def test_gateway_joins_users_and_segments_with_another_subgraph(
    run_serve: RunServe, database: Database, sql: Sql
) -> None:
    """Users 1 and 2 are stored; the other subgraph also has an order of user 99."""
    for slug in "AB":
        await make_segment(sql, slug)
    for user_id, slug in ((1, "A"), (1, "B"), (2, "B")):
        await insert_membership(sql, user_id, slug)
    key = await make_key(database, "READER")
    settings = {"SEGMENTQL_AUTH": "required", "SEGMENTQL_FEDERATION": "on"}
    async with run_serve(**settings) as serving:
        results = await run_json("federation.mjs", f"{serving.address}/federation", key.token)
    a, b = ({"slug": slug, "campaign": f"campaign of {slug}"} for slug in "AB")
    assert results["hints"] == []
    # A user who is not stored, and a segment that does not exist, are null. The gateway sends one
    # request for all users and one for all segments.
    assert results["fromOrders"] == {
        "data": {
            "orders": [
                {
                    "number": 1,
                    "buyer": {"id": "1", "isIn": True, "segments": [a, b]},
                    "audience": {**a, "version": 1},
                },
                {
                    "number": 2,
                    "buyer": {"id": "2", "isIn": False, "segments": [b]},
                    "audience": None,
                },
                {"number": 3, "buyer": None, "audience": None},
            ]
        },
        "codes": [],
        "requests": 2,
    }
    assert results["fromUsers"] == {
        "data": {
            "user": {"id": "1", "orders": [{"number": 1, "audience": {"campaign": a["campaign"]}}]}
        },
        "codes": [],
        "requests": 1,
    }
    assert results["fromPages"] == {
        "data": {"segments": {"nodes": [a], "pageInfo": {"hasNextPage": True}}},
        "codes": [],
        "requests": 1,
    }
