"""Files are copied within the store and read completely, or an error is raised."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from segmentql.adapters.s3 import StoreTimeouts
from segmentql.adapters.storage import Storage
from segmentql.adapters.stored_file import CHUNK_BYTES
from segmentql.errors import BucketMissing, ObjectMissing, StoreRejected, StoreUnavailable
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import suspended
from tests.files import chunks, object_keys, sample_bytes

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

MIB = 1024 * 1024
QUICK = StoreTimeouts(connect_seconds=0.5, read_seconds=0.2, attempts=1, call_seconds=2)


async def store(storage: Storage, key: str, size_bytes: int) -> bytes:
    """Store a file and return its content."""
    data = sample_bytes(size_bytes)
    await storage.upload(key, chunks(data), content_type="text/csv")
    return data


async def read(storage: Storage, key: str, into: list[bytes] | None = None) -> list[bytes]:
    """Read a file; return its chunks, which are in `into` also after an error."""
    received: list[bytes] = [] if into is None else into
    async with storage.read(key) as pieces:
        async for piece in pieces:
            received.append(piece)
    return received


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 12 * MIB + 7])
async def test_file_is_read_in_chunks_of_equal_size(
    storage: Storage, key: str, size_bytes: int
) -> None:
    data = await store(storage, key, size_bytes)
    pieces = await read(storage, key)
    assert b"".join(pieces) == data
    assert {len(piece) for piece in pieces[:-1]} <= {CHUNK_BYTES}
    assert len(pieces) == -(-size_bytes // CHUNK_BYTES)
    assert await storage.size(key) == size_bytes


async def test_file_is_read_as_it_is_stored_despite_its_content_encoding(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    """The headers are the client's, so neither the store nor the HTTP library may decode it."""
    body = b"\x1f\x8bnot really gzip"
    await s3.put_object(
        Bucket=settings.s3_bucket,
        Key=key,
        Body=body,
        ContentEncoding="gzip",
        ContentType="text/csv",
        Metadata={"of": "the-client"},
    )
    assert await read(storage, key) == [body]
    assert await storage.copy(key, f"{key}/copy") == len(body)
    assert await read(storage, f"{key}/copy") == [body]
    head = await s3.head_object(Bucket=settings.s3_bucket, Key=f"{key}/copy")
    assert (head["ContentType"], head["Metadata"]) == ("application/octet-stream", {})
    assert "ContentEncoding" not in head


async def test_reading_needs_little_memory(storage: Storage, key: str) -> None:
    """The consumer is slower than the store, which may not fill a buffer meanwhile."""
    size_bytes = 16 * MIB
    await store(storage, key, size_bytes)
    received = 0
    async with storage.read(key) as pieces:
        tracemalloc.start()
        async for piece in pieces:
            received += len(piece)
            await asyncio.sleep(0.002)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert received == size_bytes
    assert peak_bytes < 8 * CHUNK_BYTES


async def test_reading_can_stop_early_and_its_connection_is_closed(
    storage: Storage, key: str
) -> None:
    data = await store(storage, key, 2 * MIB)
    for _ in range(11):  # more than the connections of a client
        async with storage.read(key) as pieces:
            assert await anext(aiter(pieces)) == data[:CHUNK_BYTES]
    assert b"".join(await read(storage, key)) == data


async def test_copy_is_independent_of_its_source(storage: Storage, key: str) -> None:
    data = await store(storage, key, 6 * MIB)
    target = f"{key}/copy"
    assert await storage.copy(key, target) == len(data)
    await store(storage, key, 10)
    assert b"".join(await read(storage, target)) == data
    await storage.delete([key])
    assert b"".join(await read(storage, target)) == data
    assert await store(storage, key, 20) != data
    assert await storage.copy(key, target) == 20
    assert await read(storage, target) == [sample_bytes(20)]


@pytest.mark.slow  # stores 256 MiB twice
async def test_copy_of_the_largest_upload_is_quick(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    """A copy must end before the timeout of a response."""
    piece = sample_bytes(16 * MIB)
    await storage.upload(key, chunks(piece * 16, 16 * MIB), content_type="text/csv")
    async with asyncio.timeout(10):
        assert await storage.copy(key, f"{key}/copy") == 256 * MIB
    await storage.delete([key, f"{key}/copy"])


async def test_missing_file_raises_its_own_error(
    storage: Storage, s3: "S3Client", settings: Settings, key: str
) -> None:
    for call in (storage.copy(key, f"{key}/copy"), storage.size(key), read(storage, key)):
        with pytest.raises(ObjectMissing) as raised:
            await call
        assert raised.value.reason == "the object store has no such file"
    assert f"{key}/copy" not in await object_keys(s3, settings)


async def test_missing_bucket_is_not_a_missing_file(
    settings: Settings, s3: "S3Client", key: str
) -> None:
    misconfigured = Storage(settings.model_copy(update={"s3_bucket": "nowhere"}), QUICK)
    for call in (misconfigured.copy(key, f"{key}/copy"), read(misconfigured, key)):
        with pytest.raises(BucketMissing):
            await call
    await misconfigured.close()


async def test_rejected_credentials_are_no_missing_file(
    settings: Settings, s3: "S3Client", key: str
) -> None:
    misconfigured = Storage(settings.model_copy(update={"s3_secret_key": "wrong"}), QUICK)
    for call in (
        misconfigured.copy(key, f"{key}/copy"),
        misconfigured.size(key),
        read(misconfigured, key),
    ):
        with pytest.raises(StoreRejected):
            await call
    await misconfigured.close()


@asynccontextmanager
async def cut_after(settings: Settings, size_bytes: int, how: str) -> AsyncIterator[Storage]:
    """Open the store through a connection that ends, or stalls, after bytes of a response."""
    host, port = settings.store.endpoint_url.removeprefix("http://").split(":")
    released = asyncio.Event()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_connection(host, int(port))
        store_writer.write(await reader.readuntil(b"\r\n\r\n"))
        writer.write(await store_reader.readuntil(b"\r\n\r\n"))
        writer.write(await store_reader.readexactly(size_bytes))
        if how == "reset":
            await writer.drain()
            writer.transport.abort()
        elif how == "stall":
            await released.wait()
        writer.close()
        store_writer.close()

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        storage = Storage(settings.model_copy(update={"s3_endpoint_url": url}), QUICK)
        yield storage
        released.set()
        await storage.close()


@pytest.mark.parametrize("how", ["close", "reset", "stall"])
@pytest.mark.parametrize("size_bytes", [0, 10, CHUNK_BYTES, MIB - 1])
async def test_broken_connection_raises_and_never_ends_the_file(
    settings: Settings, storage: Storage, key: str, how: str, size_bytes: int
) -> None:
    data = await store(storage, key, MIB)
    reason = {"stall": "does not respond in time", "close": "before its end"}.get(how, "the object")
    received: list[bytes] = []
    async with cut_after(settings, size_bytes, how) as unreliable:
        with pytest.raises(StoreUnavailable, match=reason):
            await read(unreliable, key, into=received)
    assert sum(map(len, received)) <= size_bytes
    assert data.startswith(b"".join(received))


@pytest.mark.slow  # waits for the timeout
async def test_reading_from_a_hanging_store_times_out(
    servers: LocalServers, settings: Settings, storage: Storage, key: str
) -> None:
    await store(storage, key, 12 * MIB)
    short_timeout = Storage(settings, QUICK)
    await short_timeout.check()
    with suspended(servers.store):
        for call in (read(short_timeout, key), short_timeout.copy(key, f"{key}/copy")):
            with pytest.raises(StoreUnavailable, match="does not respond in time"):
                await call
    async with short_timeout.read(key) as pieces:
        await anext(aiter(pieces))
        with (
            suspended(servers.store),
            pytest.raises(StoreUnavailable, match="does not respond in time"),
        ):
            _ = [piece async for piece in pieces]
    await short_timeout.close()


async def test_cancelled_reading_frees_its_connection(storage: Storage, key: str) -> None:
    data = await store(storage, key, 2 * MIB)
    for _ in range(11):  # more than the connections of a client
        started_event = asyncio.Event()

        async def read_a_chunk_and_wait(started: asyncio.Event = started_event) -> None:
            async with storage.read(key) as pieces:
                await anext(aiter(pieces))
                started.set()
                await asyncio.Event().wait()

        reading = asyncio.create_task(read_a_chunk_and_wait())
        await started_event.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert b"".join(await read(storage, key)) == data
