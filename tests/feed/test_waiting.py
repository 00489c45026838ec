"""`changes` with `waitSeconds` waits for the first event and holds nothing meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY

from segmentql.adapters.database import Database
from segmentql.app import create_app
from segmentql.settings import Settings
from tests.cli.api_process import listening
from tests.conftest import Api, Sql, recorded_statements, serving, until
from tests.feed.queries import CHANGES, changes
from tests.history.test_tracker import polling_has_ended
from tests.history.writers import join
from tests.keys.clients import bearer, make_key, revoke, send_query


async def begin_wait(api: Api, **variables: Any) -> "asyncio.Task[Any]":
    """Start a call that waits at the newest change, and return when it polls."""
    after = (await changes(api))["cursor"]
    with recorded_statements() as statements:
        task = asyncio.create_task(changes(api, after=after, wait=30, **variables))

        async def polls() -> bool:
            return len(statements) > 4

        await until(polls)
    return task


async def test_wait_ends_with_the_first_matching_event(
    feed_api: Api, sql: Sql, segment_id: int
) -> None:
    waiting = await begin_wait(feed_api, filter={"userIds": ["2"]})
    await join(sql, 1, segment_id)
    await join(sql, 2, segment_id)
    batch = await waiting
    assert [event["entry"]["userId"] for event in batch["events"]] == ["2"]
    assert batch["caughtUp"] is True


async def test_wait_without_events_ends_with_the_time_and_an_advanced_cursor(
    feed_api: Api, sql: Sql, segment_id: int
) -> None:
    """The wait takes three seconds, in which a busy machine commits the change."""
    before = await changes(feed_api)
    waiting = asyncio.create_task(
        changes(feed_api, after=before["cursor"], wait=3, filter={"userIds": ["2"]})
    )
    await join(sql, 1, segment_id)
    batch = await waiting
    assert batch["events"] == []
    assert batch["cursor"] == (await changes(feed_api))["cursor"] != before["cursor"]


async def test_wait_returns_at_once_if_there_are_events(
    feed_api: Api, sql: Sql, segment_id: int
) -> None:
    await join(sql, 1, segment_id)
    with recorded_statements() as statements:
        batch = await changes(feed_api, start="EARLIEST", wait=60)
    assert len(batch["events"]) == 1
    # Unrecorded leaves, three steps to the settled row, the beginning of history, the page.
    assert len(statements) == 6


@pytest.mark.slow
async def test_wait_holds_no_connection_and_no_time_of_the_request(
    settings: Settings, sql: Sql, segment_id: int
) -> None:
    """The wait is longer than the time limit, and the pool has one connection."""
    small = settings.model_copy(update={"request_timeout_seconds": 5, "database_pool_size": 1})
    async with serving(small) as api:
        waiting = [await begin_wait(api) for _ in range(3)]
        for _ in range(3):
            await asyncio.sleep(1.8)
            await api("{ users { nodes { id } } }")
        await join(sql, 1, segment_id)
        for batch in await asyncio.gather(*waiting):
            assert len(batch["events"]) == 1


async def test_waiting_expensive_query_lets_other_expensive_queries_run(
    feed_api: Api, sql: Sql, segment_id: int
) -> None:
    waiting = await begin_wait(feed_api, first=1000)
    body = (await feed_api.http.post("/graphql", json={"query": EXPENSIVE})).json()
    assert body["extensions"]["cost"]["estimated"] > 2000
    assert "errors" not in body
    assert not waiting.done()
    await join(sql, 1, segment_id)
    assert len((await waiting)["events"]) == 1


EXPENSIVE = "{ users(first: 100) { nodes { history(first: 30) { nodes { at } } } } }"


async def test_waits_of_one_request_are_concurrent(
    feed_api: Api, sql: Sql, segment_id: int
) -> None:
    after = (await changes(feed_api))["cursor"]
    query = """query($after: String) {
      a: changes(after: $after, waitSeconds: 30) { events { at } }
      b: changes(after: $after, waitSeconds: 1, filter: {slugs: ["UNKNOWN"]}) { events { at } }
    }"""
    waiting = asyncio.create_task(feed_api(query, after=after))
    await join(sql, 1, segment_id)
    data = await waiting
    assert [len(data[name]["events"]) for name in "ab"] == [1, 0]


async def test_shutdown_ends_a_wait_with_a_valid_batch(settings: Settings, sql: Sql) -> None:
    app = create_app(settings)
    async with serving(settings, app=app) as api:
        waiting = await begin_wait(api)
        app.state.stopping.set()
        batch = await waiting
    assert (batch["events"], batch["cursor"]) == ([], "chg_MDo=")


async def test_nothing_polls_after_the_last_wait(feed_api: Api, sql: Sql, segment_id: int) -> None:
    waiting = await begin_wait(feed_api)
    await join(sql, 1, segment_id)
    await waiting
    await until(polling_has_ended)
    with recorded_statements() as statements:
        await asyncio.sleep(0.3)
    assert statements == []


async def test_number_of_waits_is_limited_per_key_and_per_process(
    auth_settings: Settings, database: Database, sql: Sql, segment_id: int
) -> None:
    limits = {"max_feed_consumers": 3, "max_feed_consumers_per_key": 2}
    ada, eve = [await make_key(database, "READER") for _ in range(2)]
    async with serving(auth_settings.model_copy(update=limits)) as api:

        async def call(key: Any, **variables: Any) -> Any:
            response = await api.http.post(
                "/graphql",
                json={"query": CHANGES, "variables": variables},
                headers={"Authorization": bearer(key.token)},
            )
            return response.json()

        after = (await call(ada))["data"]["changes"]["cursor"]
        waiting = [asyncio.create_task(call(ada, after=after, wait=30)) for _ in range(2)]
        await until(_are_waiting(2))
        (error,) = (await call(ada, after=after, wait=30))["errors"]
        assert error["message"] == (
            "The API key already has 2 consumers of the change feed in this process."
        )
        assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "limit": 2}
        waiting.append(asyncio.create_task(call(eve, after=after, wait=30)))
        await until(_are_waiting(3))
        error = _extensions(await call(eve, after=after, wait=30))
        assert error == {"code": "UNAVAILABLE", "limit": 3}
        assert "errors" not in await call(eve, after=after)  # it does not wait
        await join(sql, 1, segment_id)
        for body in await asyncio.gather(*waiting):
            assert len(body["data"]["changes"]["events"]) == 1
        after = (await call(ada))["data"]["changes"]["cursor"]
        assert "errors" not in await call(ada, after=after, wait=1)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_wait_ends_when_the_client_disconnects(
    settings: Settings, sql: Sql, method: str
) -> None:
    app = create_app(settings)
    query = "{changes(waitSeconds:60){cursor}}"
    body = orjson.dumps({"query": query}) if method == "POST" else b""
    path = "/graphql" if method == "POST" else f"/graphql?query={query}"
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with serving(settings, app=app), listening(app) as address:
        _, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(head.encode() + body)
        await until(_are_waiting(1))
        writer.close()
        await until(_are_waiting(0))


async def test_wait_of_a_revoked_key_returns_no_changes(
    auth_settings: Settings, database: Database, sql: Sql, segment_id: int
) -> None:
    """The key cache finds the revocation within a second."""
    key = await make_key(database, "READER")

    async with serving(auth_settings) as api:

        async def call(**variables: Any) -> Any:
            return (await send_query(api, bearer(key.token), CHANGES, **variables)).json()

        async def is_rejected() -> bool:
            body = await call()
            return bool(body.get("errors"))

        waiting = asyncio.create_task(call(wait=30))
        await until(_are_waiting(1))
        await revoke(database, key)
        await until(is_rejected)
        assert not waiting.done()
        await join(sql, 1, segment_id)
        body = await waiting
    assert body["data"] == {"changes": None}
    assert _extensions(body) == {"code": "UNAUTHENTICATED"}


def _are_waiting(count: int) -> Callable[[], Awaitable[bool]]:
    async def are_waiting() -> bool:
        labels = {"kind": "waiting"}
        return REGISTRY.get_sample_value("segmentql_feed_consumers", labels) == count

    return are_waiting


def _extensions(body: Any) -> Any:
    (error,) = body["errors"]
    return error["extensions"]
