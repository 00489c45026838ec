"""Redis (or Valkey) on this machine: with a password, on 127.0.0.1 only, keeping its data."""

from functools import partial
from pathlib import Path

from segmentql.errors import LocalServerError
from segmentql.local.binaries import redis_program
from segmentql.local.data_dir import DataFolder, write_private
from segmentql.local.probes import ask
from segmentql.local.process import Program


def redis(folder: DataFolder, port: int) -> Program:
    """Redis in `folder`.

    Raises:
        LocalServerError: there is no Redis to run, or the folder cannot be used.
    """
    program = redis_program(folder.account)
    home = folder.server_folder("redis")
    configuration = home / "redis.conf"
    return Program(
        name="Redis",
        # The name alone: its current folder, where its data go, may have any character in its path.
        command=[str(program), configuration.name],
        before_start=partial(_configure, configuration, folder, port),
        ready=partial(_answers, folder, port),
        stop_seconds=10,
        environment={"LC_ALL": "C"},
        account=folder.account,
        folder=home,
        log=folder.log("redis"),
        pid_file=folder.run / "redis.pid",
        address=f"127.0.0.1:{port}",
    )


def redis_url(folder: DataFolder, port: int) -> str:
    return f"redis://:{folder.secrets().redis}@127.0.0.1:{port}/0"


async def _configure(configuration: Path, folder: DataFolder, port: int) -> None:
    # Options would show in the list of processes.
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {folder.secrets().redis}",
        "daemonize no",
        "appendonly yes",
        'save ""',  # the append-only file is all that is read
        "maxmemory-policy noeviction",
    ]
    write_private(configuration, "\n".join(lines) + "\n", folder.account)


async def _answers(folder: DataFolder, port: int) -> bool:
    password = folder.secrets().redis
    answers = await ask("127.0.0.1", port, f"AUTH {password}\r\nPING\r\n".encode(), lines=2)
    if answers and answers[0].startswith(b"-WRONGPASS"):
        raise LocalServerError("Redis does not take the password in secrets.json")
    return answers == [b"+OK\r\n", b"+PONG\r\n"]  # not while it still reads its file
