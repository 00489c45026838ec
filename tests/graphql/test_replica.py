"""`SEGMENTQL_DATABASE_READ_URL` serves reads that may lag.

A database without replication stands for a replica with infinite lag.
"""

from collections.abc import AsyncIterator

import pytest

from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import Api, Sql, make_database, serving, without_cost

USER = {"query": "{ user(id: 1) { id } users { nodes { id } } }"}
CREATE = "mutation { createUser(input: {id: 1}) { user { id segments { slug } } } }"


@pytest.fixture
async def lagging(servers: LocalServers, settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    await make_database(servers, "lagging", template="segmentql")
    replica = servers.settings("lagging").database_url
    try:
        async with serving(
            settings.model_copy(update={"database_read_url": replica, "replica_max_lag_seconds": 0})
        ) as api:
            yield api
    finally:
        await sql.execute("DROP DATABASE lagging")


async def test_reads_use_the_replica_unless_the_primary_is_requested(lagging: Api) -> None:
    assert (await lagging(CREATE))["createUser"] == {"user": {"id": "1", "segments": []}}
    lagging_response = await lagging.http.post("/graphql", json=USER)
    assert without_cost(lagging_response.json()) == {"data": {"user": None, "users": {"nodes": []}}}
    primary_response = await lagging.http.post(
        "/graphql", json=USER, headers={"SegmentQL-Read": "primary"}
    )
    assert without_cost(primary_response.json()) == {
        "data": {"user": {"id": "1"}, "users": {"nodes": [{"id": "1"}]}}
    }


async def test_reads_by_key_use_the_replica_unless_the_primary_is_requested(lagging: Api) -> None:
    await lagging('mutation { createUser(input: {id: 1, key: "a"}) { user { id } } }')
    for selection in ("{ key }", "{ key segments { slug } }"):
        query = (
            f'{{ userByKey(key: "a") {selection} usersByKey(keys: ["a"]) {selection} '
            f"history {{ nodes {{ userKey }} }} }}"
        )
        body = {"query": query}
        lagging_response = await lagging.http.post("/graphql", json=body)
        assert without_cost(lagging_response.json())["data"] == {
            "userByKey": None,
            "usersByKey": [None],
            "history": {"nodes": []},
        }
        primary_response = await lagging.http.post(
            "/graphql", json=body, headers={"SegmentQL-Read": "primary"}
        )
        assert primary_response.json()["data"]["userByKey"]["key"] == "a"
        assert primary_response.json()["data"]["usersByKey"][0]["key"] == "a"


async def test_change_by_a_key_that_the_replica_lacks_finds_the_user(lagging: Api) -> None:
    await lagging('mutation { createUser(input: {id: 1, key: "a"}) { user { id } } }')
    data = await lagging(
        'mutation { updateUserSegments(input: {userKey: "a"}) { user { id segments { slug } } } }'
    )
    assert data["updateUserSegments"]["user"] == {"id": "1", "segments": []}


async def test_mutation_payload_is_read_from_the_primary(lagging: Api) -> None:
    await lagging('mutation { createSegment(input: {slug: "A"}) { segment { id } } }')
    data = await lagging(
        'mutation { updateUserSegments(input: {userId: 1, add: ["A"]})'
        ' { user { segments { slug memberCount } membership(slug: "A") { segment { slug } } } } }'
    )
    assert data["updateUserSegments"]["user"] == {
        "segments": [{"slug": "A", "memberCount": 1}],
        "membership": {"segment": {"slug": "A"}},
    }


async def test_changes_and_their_nested_fields_are_read_from_the_primary(lagging: Api) -> None:
    await lagging('mutation { createSegment(input: {slug: "A"}) { segment { id } } }')
    await lagging('mutation { createUser(input: {id: 1, key: "ada"}) { user { id } } }')
    await lagging(
        'mutation { updateUserSegments(input: {userId: 1, add: ["A"]}) { segmentsAdded } }'
    )
    data = await lagging(
        "{ changes(start: EARLIEST) { events { ... on MembershipEvent { entry {"
        " segment { slug memberCount } userKey user { key segments { slug } } } } } } }"
    )
    assert [event["entry"] for event in data["changes"]["events"]] == [
        {
            "segment": {"slug": "A", "memberCount": 1},
            "userKey": "ada",
            "user": {"key": "ada", "segments": [{"slug": "A"}]},
        }
    ]
