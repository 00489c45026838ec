"""Redis servers beside the one of all tests: with TLS, with replicas and Sentinels."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from segmentql.adapters.redis_client import redis_client
from segmentql.local.binaries import find_redis
from segmentql.local.ports import free_port
from segmentql.local.process import ChildProcess
from segmentql.local.program import Program

PASSWORD, SENTINEL_PASSWORD = "of-redis", "of-sentinel"
MASTER_NAME = "jobs"
SENTINELS = 3
DOWN_AFTER_MILLISECONDS = 500


@dataclass
class RedisServer:
    url: str
    port: int
    process: ChildProcess


@dataclass
class SentinelServers:
    """Two Redis servers, of which one is the master, and three Sentinels."""

    redis: Sequence[RedisServer]
    sentinels: Sequence[RedisServer]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return (
            f"redis+sentinel://:{PASSWORD}@{hosts}/{MASTER_NAME}/0"
            f"?sentinel_password={SENTINEL_PASSWORD}"
        )

    async def has_replica(self) -> bool:
        """Return whether each Sentinel knows the others and a replica that is up to date."""
        return all([await asyncio.to_thread(_knows_all, server) for server in self.sentinels])

    async def fail_over(self) -> None:
        """Make the replica the master, and wait for it."""
        before = await asyncio.to_thread(_master_address, self.sentinels[0])
        await asyncio.to_thread(_fail_over, self.sentinels[0])
        async with asyncio.timeout(60):
            while await asyncio.to_thread(_master_address, self.sentinels[0]) == before:
                await asyncio.sleep(0.05)


def _master_address(sentinel: RedisServer) -> object:
    client = redis_client(sentinel.url, seconds=5)
    try:
        return client.sentinel_get_master_addr_by_name(MASTER_NAME)
    finally:
        client.close()


def _fail_over(sentinel: RedisServer) -> None:
    client = redis_client(sentinel.url, seconds=5)
    try:
        client.execute_command("SENTINEL", "FAILOVER", MASTER_NAME)  # type: ignore[no-untyped-call]
    finally:
        client.close()


def _knows_all(sentinel: RedisServer) -> bool:
    client = redis_client(sentinel.url, seconds=5)
    try:
        replicas = client.sentinel_slaves(MASTER_NAME)
        others: Any = client.sentinel_sentinels(MASTER_NAME)
    except (RedisError, OSError):
        return False
    finally:
        client.close()
    return len(others) == SENTINELS - 1 and [
        (replica["flags"], replica["master-link-status"]) for replica in replicas
    ] == [("slave", "ok")]


@asynccontextmanager
async def _running(server: RedisServer) -> AsyncIterator[RedisServer]:
    await server.process.start()
    try:
        yield server
    finally:
        await server.process.stop()


@asynccontextmanager
async def redis_server(*lines: str) -> AsyncIterator[RedisServer]:
    """Run Redis with a password and with further lines of configuration."""
    async with _folder() as folder, _running(_redis(folder, "redis", lines)) as server:
        yield server


@asynccontextmanager
async def tls_redis_server(certificates: Path) -> AsyncIterator[RedisServer]:
    """Run Redis that accepts TLS only, with a client certificate.

    Args:
        certificates: the folder of `tests.tls.make_certificates`.
    """
    program = _find_tls_redis()
    async with _folder() as folder, _running(_tls_redis(folder, certificates, program)) as server:
        yield server


@asynccontextmanager
async def tls_sentinel(certificates: Path) -> AsyncIterator[str]:
    """Run Redis and one Sentinel that accept TLS only; yield the URL.

    Sentinel knows the master by its name in the certificate.
    """
    program = _find_tls_redis()
    async with _folder() as folder:
        redis, port = _tls_redis(folder, certificates, program), free_port()
        lines = [
            *_tls_lines(certificates, port),
            "tls-replication yes",  # Sentinel connects to Redis with TLS
            "sentinel resolve-hostnames yes",
            "sentinel announce-hostnames yes",
            f"sentinel monitor {MASTER_NAME} localhost {redis.port} 1",
            f"sentinel auth-pass {MASTER_NAME} {PASSWORD}",
        ]
        query = _tls_query(certificates)
        url = f"rediss://localhost:{port}?{query}"
        sentinel = _process(folder, "s", lines, url, program=program, arguments=["--sentinel"])
        try:
            await redis.process.start()
            await sentinel.start()
            yield f"rediss+sentinel://:{PASSWORD}@localhost:{port}/{MASTER_NAME}?{query}"
        finally:
            await sentinel.kill()
            await redis.process.stop()


def _tls_redis(folder: Path, certificates: Path, program: Path) -> RedisServer:
    port = free_port()
    url = f"rediss://:{PASSWORD}@localhost:{port}/0?{_tls_query(certificates)}"
    lines = _tls_lines(certificates, port)
    return RedisServer(url, port, _process(folder, "redis", lines, url, program=program))


def _tls_lines(certificates: Path, port: int) -> list[str]:
    return [
        "port 0",
        f"tls-port {port}",
        f"tls-cert-file {certificates / 'server.crt'}",
        f"tls-key-file {certificates / 'server.key'}",
        f"tls-ca-cert-file {certificates / 'ca.crt'}",
    ]


def _tls_query(certificates: Path) -> str:
    files = {"ca_certs": "ca.crt", "certfile": "client.crt", "keyfile": "client.key"}
    return "&".join(f"ssl_{name}={certificates / file}" for name, file in files.items())


@asynccontextmanager
async def sentinel_servers() -> AsyncIterator[SentinelServers]:
    """Run two Redis servers and three Sentinels; wait until they can fail over."""
    async with _folder() as folder, AsyncExitStack() as stack:
        first = _redis(folder, "redis-1")
        second = _redis(folder, "redis-2", [f"replicaof 127.0.0.1 {first.port}"])
        sentinels = [_sentinel(folder, number, first.port) for number in range(SENTINELS)]
        running = SentinelServers([first, second], sentinels)
        for server in [first, second, *sentinels]:
            stack.push_async_callback(server.process.kill)
            await server.process.start()
        async with asyncio.timeout(60):
            while not await running.has_replica():
                await asyncio.sleep(0.05)
        yield running


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="segmentql-redis-") as name:
        yield Path(name)


def _redis(folder: Path, name: str, lines: Sequence[str] = ()) -> RedisServer:
    port = free_port()
    url = f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    options = [f"port {port}", f"masterauth {PASSWORD}", *lines]
    return RedisServer(url, port, _process(folder, name, options, url))


def _sentinel(folder: Path, number: int, master_port: int) -> RedisServer:
    port = free_port()
    url = f"redis://:{SENTINEL_PASSWORD}@127.0.0.1:{port}"
    options = {
        "monitor": f"127.0.0.1 {master_port} 2",
        "auth-pass": PASSWORD,
        "down-after-milliseconds": DOWN_AFTER_MILLISECONDS,
        "failover-timeout": 5000,
    }
    lines = [f"port {port}", "bind 127.0.0.1", f"requirepass {SENTINEL_PASSWORD}"]
    lines += [f"sentinel {name} {MASTER_NAME} {value}" for name, value in options.items()]
    home = folder / f"sentinel-{number}"
    return RedisServer(url, port, _process(folder, home.name, lines, url, arguments=["--sentinel"]))


def _process(
    folder: Path,
    name: str,
    lines: Sequence[str],
    url: str,
    *,
    program: Path | None = None,
    arguments: Sequence[str] = (),
) -> ChildProcess:
    home = folder / name
    home.mkdir()
    common = ["bind 127.0.0.1", f"requirepass {PASSWORD}", 'save ""']
    text = "\n".join([*(() if arguments else common), *lines, "daemonize no"])
    (home / "redis.conf").write_text(text + "\n")  # Sentinel writes to it
    return ChildProcess(
        Program(
            name=name,
            command=[str(program or find_redis(None)), "redis.conf", *arguments],
            is_ready=partial(_responds, url),
            stop_timeout_seconds=10,
            environment={"LC_ALL": "C"},
            working_folder=home,
            log_file=home / "log",
            pid_file=home / "pid",
        )
    )


async def _responds(url: str) -> bool:
    def ping() -> bool:
        client = redis_client(url, seconds=5)
        try:
            return bool(client.ping())
        except (RedisError, OSError):
            return False
        finally:
            client.close()

    return await asyncio.to_thread(ping)


def _find_tls_redis() -> Path:
    """Return a Redis that was built with TLS; the one from PyPI was not."""
    for name in ("redis-server", "valkey-server"):
        program = shutil.which(name)
        # An invalid value: a Redis without TLS does not know the option.
        if program and "Bad directive" not in _output(program, "--tls-replication", "maybe"):
            return Path(program)
    return pytest.skip("no redis-server or valkey-server with TLS: apt-get install redis-server")


def _output(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return result.stdout + result.stderr
