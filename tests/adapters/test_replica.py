"""The lag of a replica is measured by positions of the WAL."""

import asyncio
import gc

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.replica import MAX_POSITIONS, ReplicationLag
from segmentql.database_url import check_database_url
from segmentql.settings import Settings


def test_idle_primary_is_no_lag() -> None:
    lag = ReplicationLag()
    lag.add(0, 100)
    lag.add(1, 100)
    assert lag.seconds(1000, 100) == 0


def test_lag_is_the_age_of_the_oldest_position_that_is_not_replayed() -> None:
    lag = ReplicationLag()
    for second in range(5):
        lag.add(second, 100 + second)
    assert lag.seconds(10, 99) == 10
    assert lag.seconds(10, 102) == 7
    assert lag.seconds(10, 104) == 0


def test_lag_stays_exact_while_the_replica_is_away_for_hours() -> None:
    lag = ReplicationLag()
    for second in range(2 * MAX_POSITIONS):
        lag.add(second, second)
    assert lag.seconds(10_000, -1) == 10_000
    assert lag.seconds(10_000, 10) == 10_000 - 11


def test_lag_starts_over_after_a_failover_to_an_earlier_position() -> None:
    lag = ReplicationLag()
    lag.add(0, 1000)
    lag.add(5, 900)
    assert lag.seconds(10, 890) == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_server_that_breaks_the_protocol_is_not_used(settings: Settings) -> None:
    """asyncpg raises AttributeError, because the server does not say its version.

    Its connection does so again when it is deleted.
    """

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05I")  # AuthenticationOk, ReadyForQuery
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = check_database_url(f"postgresql://user:secret@127.0.0.1:{port}/db?sslmode=disable")
    database = Database(
        settings.model_copy(update={"database_read_url": url}),
        name="tests",
        publish=lambda messages: None,
    )
    await database.start_replica_checks()
    assert not database.is_replica_usable
    await database.dispose()
    server.close()
    gc.collect()
