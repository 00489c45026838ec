"""A real worker completes imports exactly, although it dies and the servers fail.

SEGMENTQL_TEST_IMPORT_ROWS=1000000 is the long form, which takes some minutes.
"""

import asyncio
import random
from collections import Counter
from functools import partial

import asyncpg
import pytest
from redis import Redis

from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings, raw_value
from tests.conftest import Api, RunWorker, Sql, until
from tests.imports.list_model import BAD_ROWS, Options, State, run
from tests.imports.lists import APPLY, Imports, counts, download, id_list
from tests.operations import make_segments, update_segment_members
from tests.rollouts.helpers import excluded, members, store_users
from tests.timeline import add_members, history_inconsistencies, make_segment

pytestmark = pytest.mark.e2e

ROWS = int(raw_value("test_import_rows") or 100_000)
WAIT_SECONDS = 120


@pytest.fixture
async def url(servers: LocalServers) -> str:
    return with_database(servers.superuser_url, "run")


async def expire_lease(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "UPDATE imports SET next_attempt_at = now() - interval '5 s'"
        " WHERE next_attempt_at IS NOT NULL"
    )
    await connection.close()


async def fetch(url: str, statement: str) -> object:
    """Return a value, also while PostgreSQL restarts."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_import_is_exact_although_workers_die_and_servers_restart(
    *,
    settings: Settings,
    servers: LocalServers,
    sql: Sql,
    url: str,
    imports: Imports,
    run_worker: RunWorker,
) -> None:
    segment_id = await make_segment(sql, "a")
    member_count, wait_seconds = ROWS // 5, WAIT_SECONDS * ROWS // 100_000
    await add_members(sql, segment_id, member_count)
    chooser = random.Random(20)  # noqa: S311
    bad = sorted(BAD_ROWS)
    rows = [
        chooser.choice(bad) if chooser.random() < 0.1 else str(chooser.randint(1, ROWS * 9 // 10))
        for _ in range(ROWS)
    ]
    names = {str(user_id) for user_id in range(1, member_count + 1)}
    state = State(set(names), dict.fromkeys(names, ("MANUAL", None)), set())
    expected = run(rows, Options(mode="REPLACE"), state, set())

    started = await imports.start(
        "".join(f"{row}\n" for row in rows).encode(),
        mode="REPLACE",
        header="ABSENT",
        maxRejected=ROWS,
        maxRemovedPercent=100,
    )
    # The worker dies four times while it reads the list, and six times while it applies it.
    for death in range(10):
        progress = "SELECT EXISTS (SELECT FROM import_rows)"
        if death >= 4:
            applied = await fetch(url, "SELECT applied_users FROM imports")
            progress = f"SELECT applied_users > {applied} FROM imports"
        async with run_worker() as worker:
            await until(partial(fetch, url, progress), seconds=wait_seconds)
            worker.kill()
            await worker.wait()
        if death in {2, 6}:
            await servers.postgres.stop()
            await servers.postgres.start()
        if death in {1, 5}:
            with Redis.from_url(settings.redis_url) as redis:
                redis.flushall()
        await expire_lease(url)
    assert await fetch(url, "SELECT finished_at IS NULL FROM imports")
    async with run_worker():
        await until(
            lambda: fetch(url, "SELECT NOT needs_cleanup FROM imports"), seconds=wait_seconds
        )
    finished = await imports.read(started["id"])
    assert (finished["status"], finished["failure"]) == ("COMPLETED", None)
    assert finished["rows"] == ROWS
    assert Counter(counts(finished)) == expected.counts
    assert finished["removals"] == expected.removals
    fresh = await asyncpg.connect(url)
    assert set(await members(fresh, segment_id)) == {int(name) for name in state.members}
    assert await history_inconsistencies(fresh) == {}
    assert await fresh.fetchval("SELECT count(*) FROM import_rows") == 0
    await fresh.close()
    lines = (await download(finished["resultUrl"])).splitlines()[1:]
    assert [int(line.partition(",")[0]) for line in lines] == list(range(1, ROWS + 1))
    assert Counter(line.split(",")[3] for line in lines) == expected.counts


async def test_replace_loses_no_change_by_hand(
    api: Api, sql: Sql, imports: Imports, run_worker: RunWorker
) -> None:
    """Each of 50 clients adds and removes its own users after the plan of a REPLACE.

    Half of these users are members by hand at the time of the plan, so that they would leave.
    """
    clients, users_of_each = 50, 40
    await make_segments(api, "a")
    by_hand = clients * users_of_each
    await store_users(sql, by_hand // 2)
    await add_members(sql, 1, 50_000, first_user_id=by_hand // 2 + 1)
    listed = range(by_hand + 25_001, by_hand + 90_001)
    planned = await imports.run(id_list(listed), mode="REPLACE", dryRun=True, maxRemovedPercent=100)
    assert planned["status"] == "VALIDATED"
    changes: dict[int, list[bool]] = {user_id: [] for user_id in range(1, by_hand + 1)}
    stop = asyncio.Event()

    async def change(client: int) -> None:
        chooser = random.Random(client)  # noqa: S311
        own = range(client + 1, by_hand + 1, clients)
        while not stop.is_set():
            user_ids = chooser.sample(own, 5)
            adds = chooser.random() < 0.5
            fields = {"add" if adds else "remove": user_ids}
            payload = await update_segment_members(api, "a", **fields)
            assert payload["errors"] == []
            for user_id in user_ids:
                changes[user_id].append(adds)

    async with asyncio.TaskGroup() as group:
        for client in range(clients):
            group.create_task(change(client))
        await imports.send(APPLY, id=planned["id"])
        async with run_worker():
            await until(
                lambda: sql.fetchval("SELECT finished_at IS NOT NULL FROM imports"),
                seconds=WAIT_SECONDS,
            )
        stop.set()
    finished = await imports.read(planned["id"])
    assert finished["status"] == "COMPLETED"
    found = set(await members(sql, 1))
    assert found >= set(listed)
    # Adding a member again changes nothing, so such a user leaves as planned.
    changed = {user_id: made for user_id, made in changes.items() if not all(made)}
    assert len(changed) > by_hand / 10
    last = {user_id: made[-1] for user_id, made in changed.items()}
    assert {user_id: user_id in found for user_id in last} == last
    assert await excluded(sql, 1) == {user_id for user_id, is_in in last.items() if not is_in}
    assert finished["removals"] == await sql.fetchval(
        "SELECT count(*) FROM history WHERE import_id = 1 AND operation = 'LEFT'"
    )
    assert await history_inconsistencies(sql) == {}
