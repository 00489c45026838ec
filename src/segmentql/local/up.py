"""What `segmentql up` runs, and in which order."""

import asyncio
import contextlib
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segmentql.errors import LocalServerError
from segmentql.local import disk
from segmentql.local.accounts import server_account
from segmentql.local.folders import DataFolder, open_data_folder
from segmentql.local.locks import lock
from segmentql.local.ports import free_port, is_free
from segmentql.local.postgres import OWNER, SERVICE, postgres, postgres_url
from segmentql.local.probes import ask
from segmentql.local.process import ChildProcess, Program
from segmentql.local.redis import redis, redis_url
from segmentql.local.running import announced
from segmentql.local.store import store, store_settings
from segmentql.local.supervisor import Supervisor
from segmentql.local.together import together
from segmentql.settings import (
    METRICS_VARIABLE,
    PREFIX,
    check_reach,
    child_environment,
    is_set,
    load_settings,
)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Where to call a server that listens on every address.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

EXAMPLE = """\
{make_key}curl http://{address}/graphql{key} -H 'content-type: application/json' --data '
  {{"query": "mutation {{ createSegment(input: {{slug: \\"beta\\"}}) {{ segment {{ id }} }} }}"}}'
"""

MAKE_KEY = "KEY=$(segmentql keys create --role ADMIN --name ME --data-dir {data_dir})\n"
KEY = ' -H "authorization: Bearer $KEY"'


def _our(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "segmentql", *words)


@dataclass(frozen=True)
class Commands:
    """The commands of ours that run as children."""

    migrate: Sequence[str] = _our("migrate")
    bucket: Sequence[str] = _our("bucket")
    worker: Sequence[str] = _our("worker")
    serve: Sequence[str] = _our("serve")


async def run_up(
    data_dir: Path,
    *,
    port: int | None,
    workers: int,
    say: Callable[[str], None],
    commands: Commands,
) -> None:
    """Run everything until SIGTERM, SIGINT or SIGHUP; a second one hurries the stop.

    Raises:
        LocalServerError: something did not start, or did not stay up.
        SettingsError: the settings of the service are wrong.
    """
    started = time.monotonic()
    data = open_data_folder(data_dir, server_account(), say)
    with _full_disk_explained(data), lock(data):
        plan = _plan(data, port, workers, commands)
        # What a killed run left may hold the API's port, so it goes first.
        ours = (plan.api, plan.worker, plan.migrate, plan.bucket)
        servers = (plan.store, plan.redis, plan.database)
        for program in (*ours, *(server for server in servers if server)):
            await ChildProcess(program).stop_strays()
        if not is_free(plan.host, plan.port):
            raise LocalServerError(f"port {plan.port} is in use: choose another with --port")
        shutil.rmtree(data.metrics, ignore_errors=True)
        data.metrics.mkdir()

        supervisor = Supervisor(say)
        with _stop_signals(supervisor, say) as stop, announced(data, plan.settings):
            try:
                await _unless(stop, _start_and_watch(plan, supervisor, say, started))
            finally:
                await supervisor.stop()
        say(f"all stopped; the data stay in {data.path}")


@contextlib.contextmanager
def _full_disk_explained(data: DataFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in disk.ERRORS:
            raise
        raise LocalServerError(disk.explained(error, data.path)) from error


@dataclass(frozen=True)
class _Plan:
    """What runs and where; nothing of it is started yet."""

    database: Program | None
    """This server and the next two: None where an outside one is used."""
    redis: Program | None
    store: Program | None
    migrate: Program
    bucket: Program
    worker: Program
    api: Program
    host: str
    port: int
    example: str
    """What a caller may try first."""
    settings: Mapping[str, str]
    """By field name, those that lead to what we run."""


def _plan(data: DataFolder, port: int | None, workers: int, commands: Commands) -> _Plan:
    database, for_database = _database(data)
    own_redis, for_redis = _redis(data)
    own_store, for_store = _store(data)
    ours = {**for_database, **for_redis, **for_store}
    if port is not None:
        ours["port"] = str(port)
    if not is_set("auth"):
        ours["auth"] = "off"
    settings = load_settings(with_store=True, **ours)
    check_reach(settings)
    child = partial(
        Program,
        environment=child_environment(
            {
                **{PREFIX + name.upper(): ours[name] for name in ours},
                METRICS_VARIABLE: str(data.metrics),
            }
        ),
    )
    address = _address(settings.host, settings.port)
    return _Plan(
        database,
        own_redis,
        own_store,
        child(name="migrations", command=commands.migrate, pid_file=data.run / "migrate.pid"),
        child(name="bucket", command=commands.bucket, pid_file=data.run / "bucket.pid"),
        child(name="worker", command=commands.worker, pid_file=data.run / "worker.pid"),
        child(
            name="API",
            command=[*commands.serve, "--workers", str(workers)],
            pid_file=data.run / "api.pid",
            ready=partial(_is_ready, settings.host, settings.port),
            address=address,
        ),
        settings.host,
        settings.port,
        _example(address, data.path if settings.auth == "required" else None),
        {**ours, "port": str(settings.port)},
    )


def _example(address: str, key_maker: Path | None) -> str:
    """A first request; where keys are needed, after making one in this data folder."""
    if key_maker is None:
        return EXAMPLE.format(address=address, make_key="", key="")
    make_key = MAKE_KEY.format(data_dir=shlex.quote(str(key_maker)))
    return EXAMPLE.format(address=address, make_key=make_key, key=KEY)


def _database(data: DataFolder) -> tuple[Program | None, dict[str, str]]:
    """The server to run, and the settings that lead to it; nothing where an outside one is set."""
    if is_set("database_url"):
        return None, {}
    port = free_port()
    settings = {
        "database_url": postgres_url(data, SERVICE, port),
        "migration_database_url": postgres_url(data, OWNER, port),
    }
    if is_set("database_read_url"):  # it belongs to some other database
        settings["database_read_url"] = settings["database_url"]
    return postgres(data, port), settings


def _redis(data: DataFolder) -> tuple[Program | None, dict[str, str]]:
    if is_set("redis_url"):
        return None, {}
    port = free_port()
    return redis(data, port), {"redis_url": redis_url(data, port)}


def _store(data: DataFolder) -> tuple[Program | None, dict[str, str]]:
    if is_set("s3_endpoint_url"):
        return None, {}
    port = free_port()
    settings = store_settings(data, port)
    if is_set("s3_public_endpoint_url"):  # it belongs to some other store
        settings["s3_public_endpoint_url"] = settings["s3_endpoint_url"]
    return store(data, port), settings


async def _start_and_watch(
    plan: _Plan, supervisor: Supervisor, say: Callable[[str], None], started: float
) -> None:
    # Neither the API nor the worker needs the store to start.
    await together(_start_service(plan, supervisor), supervisor.prepare(plan.store, plan.bucket))
    say(
        f"ready after {time.monotonic() - started:.1f} s; Ctrl-C stops everything\n\n"
        f"GraphiQL: http://{plan.api.address}/graphql\n\n{plan.example}"
    )
    await supervisor.watch()


async def _start_service(plan: _Plan, supervisor: Supervisor) -> None:
    await together(supervisor.prepare(plan.database, plan.migrate), supervisor.prepare(plan.redis))
    await supervisor.start(plan.worker)
    await supervisor.start(plan.api)


def _address(host: str, port: int) -> str:
    """Where a caller on this machine finds a server that listens on `host`."""
    host = EVERYWHERE.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _is_ready(host: str, port: int) -> bool:
    """Whether `GET /readyz` answers 200."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {_address(host, port)}\r\nConnection: close\r\n\r\n"
    answer = await ask(EVERYWHERE.get(host, host), port, request.encode(), lines=1)
    return [line.split()[1:2] for line in answer] == [[b"200"]]


@contextlib.contextmanager
def _stop_signals(supervisor: Supervisor, say: Callable[[str], None]) -> Iterator[asyncio.Event]:
    """An event that a stop signal sets; the next signal takes the patience out of the stop."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.hurry.set()
        else:
            stop.set()
            say("stopping; once more to hurry")

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stop
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do the work until it ends or fails, or cancel it when `stop` is set."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
