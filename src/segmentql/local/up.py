"""Runs what `segmentql up` starts, in order, until it is stopped."""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

from segmentql.errors import LocalServerError
from segmentql.local import disk
from segmentql.local.accounts import server_account
from segmentql.local.concurrency import run_concurrently
from segmentql.local.data_dir import DataFolder, open_data_folder
from segmentql.local.locks import lock
from segmentql.local.log_files import keep_short
from segmentql.local.plan import Commands, Options, Plan, make_plan
from segmentql.local.ports import ServerPorts, is_free
from segmentql.local.process import ChildProcess
from segmentql.local.run_state import published_settings
from segmentql.local.store import remove_sockets
from segmentql.local.supervisor import Supervisor
from segmentql.local.terminal import Step, Summary
from segmentql.settings import check_env_file

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Say = Callable[[str | Step | Summary], None]


async def run_up(data_dir: Path, options: Options, *, say: Say, commands: Commands) -> None:
    """Run everything until SIGTERM, SIGINT or SIGHUP; a second one hurries the stop.

    Raises:
        LocalServerError: something did not start, or did not stay up.
        SettingsError: the settings of the service are wrong.
    """
    started = time.monotonic()
    check_env_file()  # before the data folder is made
    data = open_data_folder(data_dir, server_account(), say)
    with _full_disk_explained(data), lock(data):
        ports = ServerPorts(data.path / "ports.json")
        plan = make_plan(data, ports, options, commands)
        # The programs that a killed run left may use the kept ports, so they are stopped first.
        for program in plan.programs:
            await ChildProcess(program).stop_orphans()
        remove_sockets(data.run)
        if replaced := ports.replace_taken():
            plan = make_plan(data, ports, options, commands)
        for each in replaced:
            text = f"port {each.taken} is used by another program: {each.server} takes {each.port}"
            say(text)
        if not is_free(plan.host, plan.port):
            raise LocalServerError(f"port {plan.port} is in use: choose another with --port")
        ports.save()
        shutil.rmtree(data.metrics, ignore_errors=True)
        data.metrics.mkdir()

        supervisor = Supervisor(say)
        short_logs = asyncio.create_task(keep_short(data.logs))
        with _stop_signals(supervisor, say) as stop, published_settings(data, plan.settings):
            try:
                await _unless(stop, _start_and_watch(plan, supervisor, say, started))
            finally:
                await supervisor.stop()
                short_logs.cancel()
                await asyncio.gather(short_logs, return_exceptions=True)
        say(f"all stopped; the data stay in {data.path}")


@contextlib.contextmanager
def _full_disk_explained(data: DataFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in disk.ERRORS:
            raise
        raise LocalServerError(disk.explained(error, data.path)) from error


async def _start_and_watch(plan: Plan, supervisor: Supervisor, say: Say, started: float) -> None:
    # Neither the API nor the worker needs the store to start.
    await run_concurrently(
        _start_service(plan, supervisor), supervisor.prepare(plan.store, plan.bucket)
    )
    say(Summary(time.monotonic() - started, plan.addresses, plan.example))
    await supervisor.watch()


async def _start_service(plan: Plan, supervisor: Supervisor) -> None:
    await run_concurrently(_prepare_database(plan, supervisor), supervisor.prepare(plan.redis))
    await supervisor.start(plan.worker)
    await supervisor.start(plan.api)


async def _prepare_database(plan: Plan, supervisor: Supervisor) -> None:
    await supervisor.prepare(plan.database, plan.migrate)
    if plan.seed:
        await supervisor.run(plan.seed)


@contextlib.contextmanager
def _stop_signals(supervisor: Supervisor, say: Say) -> Iterator[asyncio.Event]:
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
