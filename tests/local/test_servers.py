"""The local PostgreSQL, Redis and object store start, keep their data and are protected."""

import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from segmentql.adapters.storage import Storage
from segmentql.errors import LocalServerError
from segmentql.local import LocalServers, local_servers
from segmentql.local.orphans import ON_LINUX
from segmentql.local.probes import http_get
from tests.conftest import until

pytestmark = pytest.mark.slow  # each test starts servers

FAST_NOT_SAFE = {"fsync": "off"}


@pytest.fixture
async def running(open_folder: Path) -> AsyncIterator[LocalServers]:
    async with local_servers(open_folder / "data", postgres_settings=FAST_NOT_SAFE) as servers:
        yield servers


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def stored(servers: LocalServers, data: bytes) -> str:
    """Store a file in the servers' store, and return a link to it."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    storage = Storage(servers.settings("segmentql"))
    await storage.set_up()
    await storage.upload("kept", chunks(), content_type="text/plain")
    link = await storage.download_url("kept", seconds=3600, file_name="kept")
    await storage.close()
    return link


async def read(servers: LocalServers) -> bytes:
    storage = Storage(servers.settings("segmentql"))
    link = await storage.download_url("kept", seconds=3600, file_name="kept")
    await storage.close()
    async with httpx.AsyncClient() as client:
        return (await client.get(link)).content


async def test_each_url_uses_its_own_database_role(running: LocalServers) -> None:
    query = "SELECT current_user || '@' || current_database()"

    assert await ask(running.superuser_url, query) == "postgres@segmentql"
    assert await ask(running.owner_url, query) == "segmentql_owner@segmentql"
    assert await ask(running.service_url, query) == "segmentql_service@segmentql"


async def test_only_the_owner_can_create_tables(running: LocalServers) -> None:
    await ask(running.owner_url, "CREATE TABLE made (id int)")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ask(running.service_url, "CREATE TABLE mine (id int)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ask(running.service_url, "SELECT id FROM made")


async def test_cluster_has_utf8_checksums_utc_and_durability(open_folder: Path) -> None:
    async with local_servers(open_folder / "data") as servers:
        parameters = {
            name: await ask(servers.superuser_url, f"SHOW {name}")
            for name in (
                "server_encoding",
                "data_checksums",
                "timezone",
                "fsync",
                "listen_addresses",
                "unix_socket_directories",
                "password_encryption",
            )
        }
        sorts = await ask(servers.service_url, "SELECT datlocale FROM pg_database LIMIT 1")

    assert parameters == {
        "server_encoding": "UTF8",
        "data_checksums": "on",
        "timezone": "UTC",
        "fsync": "on",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
    }
    assert sorts == "C.UTF-8"


async def test_wrong_passwords_are_rejected(running: LocalServers) -> None:
    for url in (running.superuser_url, running.owner_url, running.service_url):
        secret = url.split(":")[2].split("@")[0]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(url.replace(secret, "wrong"), "SELECT 1")

    port = running.redis_url.rsplit(":", 1)[1]
    for wrong_url in (f"redis://:wrong@127.0.0.1:{port}", f"redis://127.0.0.1:{port}"):
        async with Redis.from_url(wrong_url) as client:
            with pytest.raises(AuthenticationError):
                await client.ping()


async def test_redis_persists_data_and_evicts_no_key(running: LocalServers) -> None:
    async with Redis.from_url(running.redis_url, decode_responses=True) as client:
        assert await client.config_get("appendonly") == {"appendonly": "yes"}
        assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


async def test_passwords_are_private_and_in_no_command_line(
    running: LocalServers,
) -> None:
    secrets = running.folder / "secrets.json"
    passwords = {url.split(":")[2].split("@")[0] for url in (running.owner_url, running.redis_url)}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert all(password in secrets.read_text() for password in passwords)

    configuration = running.folder / "redis" / "redis.conf"
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    keys = {running.store_settings[name] for name in ("s3_access_key", "s3_secret_key")}
    assert all(key in secrets.read_text() for key in keys)
    assert stat.S_IMODE((running.folder / "store" / "s3.json").stat().st_mode) == 0o600
    for process in (running.postgres, running.redis, running.store):
        words = " ".join(process.program.command)
        assert not any(word in words for word in json.loads(secrets.read_text()).values())
    assert not (running.folder / "postgres" / "password").exists()


async def test_store_shows_no_data_without_credentials(running: LocalServers) -> None:
    await stored(running, b"secret")
    port = {
        words.split(".")[0].removeprefix("-"): int(words.partition("=")[2])
        for words in running.store.program.command
        if ".port=" in words
    }
    bucket = running.settings("segmentql").s3_bucket
    statuses = {
        (part, path): (await http_get("127.0.0.1", port[part], path))[0]
        for part, path in (
            ("s3", "/"),
            ("s3", f"/{bucket}/kept"),
            ("filer", "/buckets/"),
            ("filer", f"/buckets/{bucket}/kept"),
            ("volume", "/1,01000000000"),
            ("admin", "/"),
            ("admin", "/api/buckets"),
        )
    }
    # 400: the inner ports accept TLS only; see test_store.py. 0: admin does not listen yet.
    assert set(statuses.values()) <= {0, 400, 403}, statuses
    if ON_LINUX:
        assert [await http_get("127.0.0.2", number, "/") for number in port.values() if number] == (
            [(0, b"")] * 5
        )
    assert "-master.telemetry=false" in running.store.program.command


async def test_store_leaves_no_temporary_files(
    running: LocalServers,
) -> None:
    ports = json.loads((running.folder / "run" / "store.ports").read_text())
    assert len(ports) == 5

    def temporary_files() -> list[Path]:
        folder = Path("/tmp")  # noqa: S108 - the program's choice
        return [path for port in ports for path in folder.glob(f"seaweedfs-*-{port}.sock")]

    async def has_every_socket() -> bool:
        return len(temporary_files()) >= 5  # more, if a killed store had the same port

    # The admin server starts after the store is ready.
    await until(has_every_socket)
    await running.store.kill()
    assert await has_every_socket()
    await running.store.start()
    await running.store.stop()
    assert temporary_files() == []


async def test_server_folders_are_private_to_their_account(running: LocalServers) -> None:
    owner = running.postgres.program.account
    for name in ("postgres", "redis", "store"):
        folder_status = (running.folder / name).stat()
        assert stat.S_IMODE(folder_status.st_mode) == 0o700
        assert folder_status.st_uid == (owner.user_id if owner else os.geteuid())
    mode = stat.S_IMODE(running.folder.stat().st_mode)
    assert mode == (0o711 if owner else 0o700)


async def test_data_and_passwords_survive_a_restart(open_folder: Path) -> None:
    async with local_servers(open_folder / "data", postgres_settings=FAST_NOT_SAFE) as first:
        await ask(first.owner_url, "CREATE TABLE kept AS SELECT 7 AS n")
        async with Redis.from_url(first.redis_url) as client:
            await client.set("kept", "8")
        link = await stored(first, b"9")
        before = (open_folder / "data" / "secrets.json").read_text()

    async with local_servers(open_folder / "data", postgres_settings=FAST_NOT_SAFE) as second:
        assert await ask(second.owner_url, "SELECT n FROM kept") == 7
        async with Redis.from_url(second.redis_url) as client:
            assert await client.get("kept") == b"8"
        assert await read(second) == b"9"
    assert httpx.URL(link).port != httpx.URL(second.store_settings["s3_endpoint_url"]).port
    assert (open_folder / "data" / "secrets.json").read_text() == before


async def test_killed_servers_restart_at_the_same_address(running: LocalServers) -> None:
    await ask(running.owner_url, "CREATE TABLE kept AS SELECT 7 AS n")
    link = await stored(running, b"9")

    for server in (running.postgres, running.redis, running.store):
        await server.kill()
        assert server.pid is None
    with pytest.raises(ConnectionRefusedError):
        await ask(running.owner_url, "SELECT 1")
    for server in (running.postgres, running.redis, running.store):
        await server.start()

    assert await ask(running.owner_url, "SELECT n FROM kept") == 7
    async with Redis.from_url(running.redis_url) as client:
        assert await client.ping() is True
    async with httpx.AsyncClient() as http:
        assert (await http.get(link)).content == b"9"


async def test_postgresql_restarts_beside_an_old_backend(
    running: LocalServers,
) -> None:
    connection = await asyncpg.connect(running.superuser_url)
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    # A stopped process notices nothing, and holds the shared memory of its cluster.
    os.kill(backend, 19)

    await running.postgres.kill()
    if not ON_LINUX:
        os.kill(backend, 9)
    await running.postgres.start()

    assert await ask(running.service_url, "SELECT 1") == 1
    connection.terminate()


async def test_interrupted_cluster_creation_is_completed(open_folder: Path) -> None:
    data = open_folder / "data"
    async with local_servers(data, postgres_settings=FAST_NOT_SAFE) as servers:
        other = servers.superuser_url.replace("/segmentql", "/postgres")
        await ask(other, "DROP DATABASE segmentql")
        await ask(other, "DROP ROLE segmentql_service")
        partial_folder = servers.folder / "postgres" / "data.part"
        partial_folder.mkdir()
        (partial_folder / "PG_VERSION").write_text("18")

    async with local_servers(data, postgres_settings=FAST_NOT_SAFE) as servers:
        assert await ask(servers.service_url, "SELECT current_user") == "segmentql_service"


async def test_cluster_with_lost_passwords_is_reported(open_folder: Path) -> None:
    data = open_folder / "data"
    async with local_servers(data, postgres_settings=FAST_NOT_SAFE):
        pass
    (data / "secrets.json").unlink()

    with pytest.raises(LocalServerError, match=r"rejects the password in secrets\.json"):
        async with local_servers(data, postgres_settings=FAST_NOT_SAFE):
            raise AssertionError


async def test_folder_in_use_is_rejected_with_the_pid(running: LocalServers) -> None:
    with pytest.raises(
        LocalServerError, match=f"already in use by the process with pid {os.getpid()}"
    ):
        async with local_servers(running.folder):
            raise AssertionError

    assert await ask(running.service_url, "SELECT 1") == 1


async def test_setting_that_postgresql_rejects_is_shown(open_folder: Path) -> None:
    with pytest.raises(LocalServerError, match=r"(?s)did not start.*no_such_setting"):
        async with local_servers(open_folder / "data", postgres_settings={"no_such_setting": "1"}):
            raise AssertionError
