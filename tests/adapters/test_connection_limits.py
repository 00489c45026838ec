"""The server limits the number of connections."""

import asyncio

import pytest
from structlog.testing import capture_logs

from tests.adapters.connection_helpers import Gate, closed, read_until_closed
from tests.adapters.http_server import echo, serving


async def test_longest_idle_connection_is_closed_for_a_new_one() -> None:
    before = closed("evicted")
    async with serving(echo, limit=3) as served:
        idle = [await served.connect() for _ in range(3)]
        for client in (idle[1], idle[0], idle[2]):
            assert (await client.request()).status == 200
        newcomer = await served.connect()
        assert (await newcomer.request()).status == 200
        assert await read_until_closed(idle[1]) == b""
        assert (await idle[0].request()).status == 200
        assert (await idle[2].request()).status == 200
    assert closed("evicted") == before + 1


@pytest.mark.slow
async def test_silent_connections_are_closed_for_new_ones_after_a_second() -> None:
    async with serving(echo, limit=3) as served:
        silent = [await served.connect() for _ in range(3)]
        await asyncio.sleep(1.1)
        newcomer = await served.connect()
        assert (await newcomer.request()).status == 200
        assert await read_until_closed(silent[0]) == b""
        assert await silent[1].is_open()


async def test_new_connection_gets_503_while_every_other_is_busy() -> None:
    before = closed("full")
    gate = Gate()
    with capture_logs() as logged:
        async with serving(gate, limit=2) as served:
            busy = [await served.connect() for _ in range(2)]
            for client in busy:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while gate.waiting < 2:
                await asyncio.sleep(0.01)
            newcomer = await served.connect()
            newcomer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await newcomer.answer()
            assert await read_until_closed(newcomer) == b""
            gate.open.set()
            assert [(await client.answer()).status for client in busy] == [200, 200]
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["connection"] == "close"
    assert answer.error["extensions"] == {"code": "UNAVAILABLE", "limit": 2}
    assert closed("full") == before + 1
    assert [line["reason"] for line in logged if line["event"] == "connection_closed"] == ["full"]


@pytest.mark.slow
async def test_flood_of_rejected_connections_is_summarized_in_the_log() -> None:
    gate = Gate()
    with capture_logs() as logged:
        async with serving(gate, limit=1) as served:
            busy = await served.connect()
            busy.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while gate.waiting < 1:
                await asyncio.sleep(0.01)
            for _ in range(300):
                (await served.connect()).writer.close()
            await asyncio.sleep(1.1)
            gate.open.set()
            assert (await busy.answer()).status == 200
    lines = [line for line in logged if line["event"] == "connection_closed"]
    omitted = [line["counts"] for line in logged if line["event"] == "lines_omitted"]
    assert 20 <= len(lines) <= 100
    assert len(lines) + sum(sum(counts.values()) for counts in omitted) == 300


@pytest.mark.slow
async def test_silent_connections_above_the_limit_do_not_block_clients() -> None:
    async with serving(echo, limit=50) as served:
        silent = [await served.connect() for _ in range(200)]
        await asyncio.sleep(1.1)
        client = await served.connect()
        assert (await client.request()).status == 200
        for one in silent:
            one.writer.close()
