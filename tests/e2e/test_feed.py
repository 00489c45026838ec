"""Consumers of the change feed see every change once, in order, whatever is killed.

The default takes two minutes for each test; SEGMENTQL_TEST_FEED_SECONDS=1800 is the long form.
"""

import asyncio
import random
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import pytest

from segmentql.local.orphans import ON_LINUX
from segmentql.local.ports import free_port
from segmentql.settings import Settings, raw_value
from tests.conftest import Api, Sql, environment, until
from tests.e2e.chaos_client import OutcomeCounts
from tests.e2e.feed_consumers import Consumer
from tests.e2e.test_chaos import Killer, superuser_url
from tests.e2e.up import running
from tests.operations import parse_timestamp

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ON_LINUX, reason="finds the processes to kill in Linux' /proc"),
]

SECONDS: Final = int(raw_value("test_feed_seconds") or 120)
WRITERS: Final = 8
USERS: Final = range(1, 41)
SLUGS: Final = ("a", "b", "c", "d")
FLEETING: Final = "fleeting"
"""The slug of a segment that is deleted and created again and again."""

CREATE: Final = """
mutation($slug: String!) {
  createSegment(input: {slug: $slug}) { errors { code } }
}
"""
DELETE: Final = """
mutation($slug: String!) { deleteSegment(input: {slug: $slug}) { errors { code } } }
"""
DELETE_USER: Final = "mutation($id: ID!) { deleteUser(input: {id: $id}) { errors { code } } }"
UPDATE: Final = """
mutation($input: UpdateUserSegmentsInput!) {
  updateUserSegments(input: $input) { errors { code } }
}
"""
SET_ROLLOUT: Final = """
mutation($percent: Float!) {
  setRollout(input: {slug: "d", rollout: {percent: $percent}}) { errors { code } }
}
"""
RECORDED: Final = """
SELECT h.membership_id, h.operation::text, h.user_id, h.segment_id, s.slug
FROM history h JOIN segments s ON s.id = h.segment_id WHERE h.position > $1 ORDER BY h.position
"""


class Writers:
    """Clients that change memberships at random. They ignore errors of the service."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self.done = 0

    async def run(self, number: int, stop: asyncio.Event) -> None:
        dice = random.Random(number)  # noqa: S311 - similar each time
        async with httpx.AsyncClient(timeout=60) as http:
            while not stop.is_set():
                document, variables = self._operation(dice)
                url = f"{dice.choice(self._addresses)}/graphql"
                try:
                    response = await http.post(
                        url, json={"query": document, "variables": variables}
                    )
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                assert response.status_code == 200, response.text
                self.done += "errors" not in response.json()
                await asyncio.sleep(dice.uniform(0, 0.02))

    @staticmethod
    def _operation(dice: random.Random) -> tuple[str, dict[str, Any]]:
        chance = dice.random()
        user_id = str(dice.choice(USERS))
        if chance < 0.03:
            return dice.choice((CREATE, DELETE)), {"slug": FLEETING}
        if chance < 0.05:
            return DELETE_USER, {"id": user_id}
        if chance < 0.06:
            return SET_ROLLOUT, {"percent": dice.choice((0, 25, 60))}
        slugs = dice.sample((*SLUGS, FLEETING), dice.randint(1, 3))
        added = dice.randint(0, len(slugs))
        fields: dict[str, Any] = {
            "userId": user_id,
            "add": slugs[:added],
            "remove": slugs[added:],
        }
        ttl_seconds = dice.choice((None, 1, 1, 2))
        if added and ttl_seconds:
            fields["ttlSeconds"] = ttl_seconds
        return UPDATE, {"input": fields}


def make_consumers(addresses: Sequence[str]) -> list[Consumer]:
    """Return ten consumers, of which half follow streams and two have a filter."""
    filters: dict[int, dict[str, Any]] = {
        8: {"slugs": ["a", FLEETING]},
        9: {"userIds": ["1", "2", "3"], "operations": ["LEFT"]},
    }
    return [
        Consumer(f"consumer {number}", addresses, number % 2 == 0, filters.get(number))
        for number in range(10)
    ]


def matches(consumer: Consumer, row: Sequence[Any]) -> bool:
    _, operation, user_id, _, slug = row
    change_filter = consumer.change_filter or {}
    return (
        slug in change_filter.get("slugs", [slug])
        and str(user_id) in change_filter.get("userIds", [str(user_id)])
        and operation in change_filter.get("operations", [operation])
    )


async def check(consumers: Sequence[Consumer], sql: Sql, *, after: int = 0) -> None:
    """Compare what the consumers have read with all recorded changes, and check the order.

    Args:
        consumers: The consumers.
        sql: A connection to the database.
        after: The position in history at which the consumers started.
    """
    for consumer in consumers:
        await consumer.catch_up()
    rows = await sql.fetch(RECORDED, after)
    for consumer in consumers:
        expected = [
            (f"his_{row[0]}_{row[1].lower()}", str(row[2]), f"seg_{row[3]}", row[4])
            for row in rows
            if matches(consumer, tuple(row))
        ]
        read = [
            (entry["id"], entry["userId"], entry["segment"]["id"], entry["segment"]["slug"])
            for entry in consumer.entries
        ]
        assert read == expected, consumer.name
        check_order(consumer.entries)
    sys.stdout.write(f"\n{len(rows)} changes, {sum(c.requests for c in consumers)} requests\n")


def check_order(entries: Sequence[Any]) -> None:
    """Check that the changes of each user are in order of time, except leaves of deleted segments.

    The changes of each user and segment are strictly in order.
    """
    last: dict[Any, datetime] = {}
    for entry in entries:
        at, user_id = parse_timestamp(entry["at"]), entry["userId"]
        pair = (user_id, entry["segment"]["id"])
        assert pair not in last or last[pair] < at, entry
        last[pair] = at
        if entry["cause"] != "SEGMENT_DELETED":
            assert user_id not in last or last[user_id] <= at, entry
            last[user_id] = at


async def test_consumers_get_every_change_once_while_processes_are_killed(home: Path) -> None:
    counts = OutcomeCounts()
    async with (
        running(home) as up,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{up.port}", timeout=60) as http,
        asyncio.TaskGroup() as group,
    ):
        await up.wait_for_output("ready after")
        address = f"http://127.0.0.1:{up.port}"
        api = Api(http)
        for slug in (*SLUGS, FLEETING):
            await api(CREATE, slug=slug)
        consumers, writers = make_consumers([address]), Writers([address])
        for consumer in consumers:
            await consumer.start()
        stop_writing, stop_reading = asyncio.Event(), asyncio.Event()
        reading = [group.create_task(consumer.run(stop_reading)) for consumer in consumers]
        for number in range(WRITERS):
            group.create_task(writers.run(number, stop_writing))
        killer = Killer(up, counts)
        async with asyncio.timeout(SECONDS * 20):
            ends_at = asyncio.get_running_loop().time() + SECONDS
            while asyncio.get_running_loop().time() < ends_at:
                enough = writers.done + 100

                async def have_written(enough: int = enough) -> bool:
                    return writers.done >= enough

                await until(have_written)
                await killer.kill()
                await killer.all_processes_run(http)
        stop_writing.set()
        sql = await asyncpg.connect(superuser_url(up))
        await until(lambda: nothing_is_due(sql))
        stop_reading.set()
        await asyncio.wait(reading)
        await check(consumers, sql)
        await sql.close()
    assert sum(counts.kills.values()) > 0


async def nothing_is_due(sql: Sql) -> bool:
    """Return whether all joins with a TTL and all members of deleted segments have left."""
    return bool(
        await sql.fetchval("""
        SELECT NOT EXISTS (SELECT FROM memberships WHERE expires_at IS NOT NULL)
            AND NOT EXISTS (
                SELECT FROM segments WHERE deleted_at IS NOT NULL AND leaves_recorded_at IS NULL)
        """)
    )


@asynccontextmanager
async def api_process(
    settings: Settings, port: int, log: Path, **changes: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `segmentql serve` on a port."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segmentql", "serve", "--port", str(port)),
            env=environment(settings, **changes),
            stderr=output,
        )
    try:
        async with httpx.AsyncClient() as client:

            async def responds() -> bool:
                try:
                    url = f"http://127.0.0.1:{port}/readyz"
                    return (await client.get(url)).status_code == 200
                except httpx.TransportError:
                    return False

            await until(responds)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_consumers_get_every_change_without_redis_and_workers(
    settings: Settings, sql: Sql, tmp_path: Path
) -> None:
    """Each process is killed once. The API records the ends of memberships itself."""
    log = tmp_path / "serve.log"
    ports = [free_port() for _ in range(3)]
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    without_redis = {"SEGMENTQL_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        processes = [
            await stack.enter_async_context(api_process(settings, port, log, **without_redis))
            for port in ports
        ]
        async with httpx.AsyncClient(base_url=addresses[0], timeout=60) as http:
            for slug in (*SLUGS, FLEETING):
                await Api(http)(CREATE, slug=slug)
        consumers, writers = make_consumers(addresses), Writers(addresses)
        for consumer in consumers:
            await consumer.start()
        stop_writing, stop_reading = asyncio.Event(), asyncio.Event()
        reading = [group.create_task(consumer.run(stop_reading)) for consumer in consumers]
        for number in range(WRITERS):
            group.create_task(writers.run(number, stop_writing))
        for port, process in zip(ports, processes, strict=True):
            await asyncio.sleep(SECONDS / 4)  # the load between two kills
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await stack.enter_async_context(api_process(settings, port, log, **without_redis))
        await asyncio.sleep(SECONDS / 4)
        stop_writing.set()
        await until(lambda: nothing_is_due(sql))
        stop_reading.set()
        await asyncio.wait(reading)
        await check(consumers, sql)
    assert not re.search(r'"level": ?"error"', log.read_text())
