"""Redis or Valkey on this machine: on 127.0.0.1 only, with a password and persistent data."""

from functools import partial
from pathlib import Path

from segmentql.errors import LocalServerError
from segmentql.local.binaries import find_redis
from segmentql.local.data_dir import DataFolder, write_private
from segmentql.local.probes import send_request
from segmentql.local.program import Program


def redis_program(data: DataFolder, port: int) -> Program:
    """Return the Redis server of a data folder.

    Raises:
        LocalServerError: Redis is not installed, or its folder cannot be used.
    """
    executable = find_redis(data.account)
    folder = data.server_folder("redis")
    configuration = folder / "redis.conf"
    return Program(
        name="Redis",
        # Only the file name, because the path of the folder may contain any character.
        command=[str(executable), configuration.name],
        before_start=partial(_write_configuration, configuration, data, port),
        is_ready=partial(_is_ready, data, port),
        stop_timeout_seconds=10,
        environment={"LC_ALL": "C"},
        account=data.account,
        working_folder=folder,
        log_file=data.log_file("redis"),
        pid_file=data.run_folder / "redis.pid",
        address=f"127.0.0.1:{port}",
    )


def redis_url(data: DataFolder, port: int) -> str:
    return f"redis://:{data.secrets().redis}@127.0.0.1:{port}/0"


async def _write_configuration(configuration: Path, data: DataFolder, port: int) -> None:
    # A file, because the password in an option would be visible in the process list.
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {data.secrets().redis}",
        "daemonize no",
        "appendonly yes",
        'save ""',  # Redis loads only the append-only file
        "maxmemory-policy noeviction",
    ]
    write_private(configuration, "\n".join(lines) + "\n", data.account)


async def _is_ready(data: DataFolder, port: int) -> bool:
    request = f"AUTH {data.secrets().redis}\r\nPING\r\n".encode()
    replies = await send_request("127.0.0.1", port, request, lines=2)
    if replies and replies[0].startswith(b"-WRONGPASS"):
        raise LocalServerError(
            "Redis rejects the password in secrets.json: restore the secrets.json of this data"
            " folder"
        )
    return replies == [b"+OK\r\n", b"+PONG\r\n"]  # Redis replies -LOADING while it loads its file
