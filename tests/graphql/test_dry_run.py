"""A dry run returns the counts and errors of the mutation, and changes nothing."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from graphql import GraphQLInputObjectType, get_named_type
from segmentql.adapters.database import Database
from segmentql.local import LocalServers, with_database
from segmentql.rollouts.actors import advance_rollout
from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving, until
from tests.databases import every_row
from tests.graphql.executor_helpers import CORE
from tests.idempotency.cases import Case, send_with_key
from tests.keys.clients import bearer, make_key, send_query
from tests.operations import (
    ERRORS,
    create_segment,
    create_user,
    make_segments,
    update_user_segments,
)
from tests.rollouts.helpers import store_users
from tests.timeline import HOUR, add_membership, make_segment

PAYLOADS = {
    "createUser": "user { id }",
    "updateUser": "user { id }",
    "deleteUser": "deletedId",
    "createSegment": "segment { id }",
    "updateSegment": "segment { id }",
    "deleteSegment": "deletedId",
    "updateUserSegments": "user { id } segmentsAdded segmentsRemoved segmentsExtended",
    "updateSegmentMembers": "segment { id } counts { outcome count }",
    "setRollout": "segment { id } rollout { id } joining leaving",
    "pauseRollout": "segment { id } rollout { id }",
    "resumeRollout": "segment { id } rollout { id }",
    "cancelRollout": "segment { id } rollout { id } joining leaving",
}
"""Every mutation with `dryRun`, and the fields of its payload besides `errors`."""

ENTITIES = {"user", "deletedId", "segment", "rollout"}

FORECAST = {"joining", "leaving"}
"""Counts that only a dry run has."""


async def mutate(api: Api, name: str, /, **fields: Any) -> dict[str, Any]:
    kind = f"{name[0].upper()}{name[1:]}Input"
    document = f"""
    mutation Change($input: {kind}!) {{ {name}(input: $input) {{ {PAYLOADS[name]} {ERRORS} }} }}
    """
    payload: dict[str, Any] = (await api(document, input=fields))[name]
    return payload


@pytest.fixture
async def filled(api: Api, sql: Sql, database: Database) -> Api:
    """The application with users 1 to 20 and segments.

    A has a rollout with ten members and a stage to come, and user 1 by hand. B has user 2 until
    tomorrow and user 3, whose membership has expired. C has a paused rollout.
    """
    await store_users(sql, 20)
    stages = [{"percent": 50}, {"percent": 75, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})
    await advance_rollout(database, 1)
    await make_segments(api, "B")
    await create_segment(api, slug="C", rollout={"percent": 10})
    await update_user_segments(api, 1, add=["A"], remove=["B"])
    await update_user_segments(api, 2, add=["B"], ttlSeconds=86400)
    await add_membership(sql, 3, 2, ends_in=-HOUR)
    await create_user(api, id="500", key="known")
    assert (await mutate(api, "pauseRollout", slug="C"))["errors"] == []
    return api


ACCEPTED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("createUser", {}, {}),
    ("createUser", {"id": "600", "key": "new"}, {}),
    ("createUser", {"key": "new"}, {}),
    ("updateUser", {"id": "1", "key": "new"}, {}),
    ("deleteUser", {"id": "1"}, {}),
    ("deleteUser", {"key": "known", "eraseKey": True}, {}),
    ("createSegment", {"slug": "NEW", "rollout": {"percent": 10}}, {}),
    ("updateSegment", {"slug": "A", "name": "Another", "expectedVersion": 1}, {}),
    ("deleteSegment", {"slug": "A"}, {}),
    (
        "updateUserSegments",
        {"userId": "2", "add": ["A", "B", "C"], "ttlSeconds": 172800},
        {"segmentsAdded": 2, "segmentsRemoved": 0, "segmentsExtended": 1},
    ),
    (
        "updateUserSegments",
        {"userKey": "new", "add": ["B"], "remove": ["A"]},
        {"segmentsAdded": 1, "segmentsRemoved": 0, "segmentsExtended": 0},
    ),
    (
        "updateUserSegments",
        {"userId": "1", "remove": ["A"]},
        {"segmentsAdded": 0, "segmentsRemoved": 1, "segmentsExtended": 0},
    ),
    (
        "updateSegmentMembers",
        {"slug": "B", "add": ["3", "4", "4", "700"], "addKeys": ["new"], "remove": ["2", "800"]},
        {
            "counts": [
                {"outcome": "JOINED", "count": 4},
                {"outcome": "LEFT", "count": 1},
                {"outcome": "DUPLICATE", "count": 1},
                {"outcome": "UNKNOWN_USER", "count": 1},
            ]
        },
    ),
    # of 21 users, 10 are members by the rollout, and user 1 is a member by hand
    ("setRollout", {"slug": "A", "rollout": {"percent": 100}}, {"joining": 10, "leaving": 0}),
    ("setRollout", {"slug": "A", "rollout": {"percent": 0}}, {"joining": 0, "leaving": 10}),
    ("pauseRollout", {"slug": "A"}, {}),
    ("resumeRollout", {"slug": "C"}, {}),
    ("cancelRollout", {"slug": "A"}, {"joining": 0, "leaving": 0}),
    ("cancelRollout", {"slug": "A", "withdraw": True}, {"joining": 0, "leaving": 10}),
]


@pytest.mark.parametrize(("name", "fields", "counts"), ACCEPTED)
async def test_dry_run_returns_counts_and_changes_nothing(
    filled: Api, sql: Sql, name: str, fields: dict[str, Any], counts: dict[str, Any]
) -> None:
    before = await every_row(sql)
    payload = await mutate(filled, name, **fields, dryRun=True)
    assert await every_row(sql) == before
    entities = dict.fromkeys(ENTITIES & payload.keys())
    assert payload == {**entities, **counts, "errors": []}

    # the mutation has the same counts, and entities
    payload = await mutate(filled, name, **fields, dryRun=False)
    assert await every_row(sql) != before
    forecast = dict.fromkeys(FORECAST & payload.keys())
    assert {field: value for field, value in payload.items() if field not in ENTITIES} == {
        **counts,
        **forecast,
        "errors": [],
    }
    assert None not in [payload[field] for field in entities]


REJECTED: list[tuple[str, dict[str, Any]]] = [
    ("createUser", {"id": "1"}),
    ("createUser", {"id": "0"}),
    ("updateUser", {"id": "500", "key": "other"}),
    ("updateUser", {"id": "1", "key": "known"}),
    ("deleteUser", {"key": "unknown"}),
    ("createSegment", {"slug": "A"}),
    ("createSegment", {"slug": "NEW", "rollout": {"stages": []}}),
    ("updateSegment", {"slug": "A", "name": "Another", "expectedVersion": 7}),
    ("deleteSegment", {"slug": "NOPE"}),
    ("updateUserSegments", {"userId": "2", "add": ["A", "NOPE"]}),
    ("updateUserSegments", {"userId": "2", "add": ["A"], "ttlSeconds": 0}),
    ("updateSegmentMembers", {"slug": "NOPE", "add": ["1"]}),
    ("updateSegmentMembers", {"slug": "A", "add": ["500"], "removeKeys": ["known"]}),
    ("setRollout", {"slug": "A", "rollout": {"percent": 101}}),
    ("setRollout", {"slug": "A", "rollout": {"percent": 1}, "expectedVersion": 7}),
    ("setRollout", {"slug": "NOPE", "rollout": {"percent": 1}}),
    ("pauseRollout", {"slug": "C"}),
    ("resumeRollout", {"slug": "A"}),
    ("cancelRollout", {"slug": "B"}),
]


@pytest.mark.parametrize(("name", "fields"), REJECTED)
async def test_dry_run_is_rejected_with_the_same_errors(
    filled: Api, sql: Sql, name: str, fields: dict[str, Any]
) -> None:
    before = await every_row(sql)
    payload = await mutate(filled, name, **fields, dryRun=True)
    assert await every_row(sql) == before
    assert payload["errors"] != []
    assert payload == await mutate(filled, name, **fields)


def test_every_mutation_with_a_dry_run_is_tested() -> None:
    assert CORE.mutation_type is not None
    with_dry_run = set()
    for name, field in CORE.mutation_type.fields.items():
        kind = get_named_type(field.args["input"].type)
        assert isinstance(kind, GraphQLInputObjectType)
        if "dryRun" in kind.fields:
            with_dry_run.add(name)
    with_dry_run.remove("createImport")  # its dry run is an import that stops early
    assert with_dry_run == set(PAYLOADS)
    assert {name for name, *_ in ACCEPTED} == {name for name, _ in REJECTED} == with_dry_run


async def test_null_is_no_dry_run(api: Api) -> None:
    assert (await mutate(api, "createUser", dryRun=None))["user"] == {"id": "1"}


async def test_dry_run_allocates_no_id(api: Api) -> None:
    for _ in range(3):
        assert (await mutate(api, "createUser", dryRun=True))["errors"] == []
    assert (await mutate(api, "createUser"))["user"] == {"id": "1"}


async def test_dry_run_keeps_the_version(filled: Api) -> None:
    for name, fields in (
        ("updateSegment", {"description": "Another"}),
        ("setRollout", {"rollout": {"percent": 5}}),
    ):
        assert (await mutate(filled, name, slug="A", **fields, dryRun=True))["errors"] == []
    assert await filled('{ segment(slug: "A") { version } }') == {"segment": {"version": 1}}


@pytest.mark.parametrize(("name", "fields", "counts"), ACCEPTED)
async def test_dry_run_stores_nothing_under_its_idempotency_key(
    filled: Api, sql: Sql, name: str, fields: dict[str, Any], counts: dict[str, Any]
) -> None:
    case = Case(name, fields, PAYLOADS[name])
    before = await every_row(sql)
    payload = await send_with_key(filled, case._replace(input={**fields, "dryRun": True}), "k")
    assert payload["errors"] == []
    assert await every_row(sql) == before

    # the key can be used for the mutation, or for anything else
    executed = await send_with_key(filled, case, "k")
    assert executed["errors"] == []
    assert None not in [executed[field] for field in ENTITIES & executed.keys()]
    assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == 1


async def test_dry_run_needs_no_redis(settings: Settings, sql: Sql) -> None:
    await store_users(sql, 10)
    without_redis = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with serving(without_redis) as api:
        await make_segments(api, "A")
        before = await every_row(sql)
        payload = await mutate(api, "setRollout", slug="A", rollout={"percent": 50}, dryRun=True)
        assert (payload["joining"], payload["leaving"], payload["errors"]) == (5, 0, [])
        payload = await mutate(
            api, "updateUserSegments", userId="1", add=["A"], ttlSeconds=1, dryRun=True
        )
        assert (payload["segmentsAdded"], payload["errors"]) == (1, [])
        assert await every_row(sql) == before


@pytest.mark.slow  # the statement waits 5 seconds for the lock
async def test_forecast_beyond_its_time_limit_is_null(filled: Api, servers: LocalServers) -> None:
    blocker = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        payload = await mutate(filled, "setRollout", slug="A", rollout={"percent": 9}, dryRun=True)
    await blocker.close()
    assert payload == {
        "segment": None,
        "rollout": None,
        "joining": None,
        "leaving": None,
        "errors": [],
    }


DRY_RUN = 'setRollout(input: {slug: "A", rollout: {percent: 9}, dryRun: true}) { joining }'


async def test_document_with_many_forecasts_is_too_expensive(filled: Api) -> None:
    aliased = (f"f{number}: {DRY_RUN}" for number in range(20))
    error = await filled.error(f"mutation {{ {' '.join(aliased)} }}")
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert error["extensions"]["argument"] == "cost"


async def test_forecasts_of_one_key_run_one_after_the_other(
    auth_api: Api, sql: Sql, database: Database, servers: LocalServers
) -> None:
    keys = [await make_key(database, "EDITOR"), await make_key(database, "EDITOR")]
    await make_segment(sql, "A")
    blocker = await asyncpg.connect(with_database(servers.superuser_url, "run"))

    def start(key_number: int, percent: int) -> asyncio.Task[httpx.Response]:
        authorization = bearer(keys[key_number].token)
        query = f"mutation {{ {DRY_RUN.replace('9', str(percent))} }}"
        return asyncio.create_task(send_query(auth_api, authorization, query))

    async def is_waiting(column: str) -> bool:
        """Return whether a single forecast is waiting whose statement has this column."""
        count = await sql.fetchval(
            """
            SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
              AND datname = current_database() AND query LIKE '%AS ' || $1 || ',%'
            """,
            column,
        )
        return bool(count == 1)

    async with blocker.transaction():
        await blocker.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        same_key = [start(0, 9) for _ in range(3)]
        await until(lambda: is_waiting("users_total"))
        # its statement differs, because a sample of 0 % needs no users
        other_key = start(1, 0)
        await until(lambda: is_waiting("enrolled"))
        assert await is_waiting("users_total")
    await blocker.close()
    for response in [*same_key, other_key]:
        assert (await response).json()["data"] == {"setRollout": {"joining": 0}}
