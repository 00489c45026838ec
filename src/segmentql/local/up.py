"""Runs the plan of `segmentql up` until a stop signal."""

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
from segmentql.local.log_files import rotate_logs
from segmentql.local.plan import Commands, Options, Plan, make_plan
from segmentql.local.ports import ServerPorts, is_free
from segmentql.local.process import ChildProcess
from segmentql.local.run_state import published_settings
from segmentql.local.store import remove_sockets
from segmentql.local.supervisor import Supervisor
from segmentql.local.terminal import Step, Summary
from segmentql.settings import check_env_file

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

PrintLine = Callable[[str | Step | Summary], None]


async def run_up(
    data_dir: Path, options: Options, *, print_line: PrintLine, commands: Commands
) -> None:
    """Run everything until SIGTERM, SIGINT or SIGHUP. A second signal forces the stop.

    Raises:
        LocalServerError: A program did not start or did not keep running.
        SettingsError: The settings of the service are wrong.
    """
    started = time.monotonic()
    check_env_file()  # before the data folder is created
    data = open_data_folder(data_dir, server_account(), print_line)
    with _full_disk_errors_translated(data), lock(data):
        ports = ServerPorts(data.path / "ports.json")
        plan = make_plan(data, ports, options, commands)
        # Orphans of a killed run may use the stored ports, so they are stopped first.
        for program in plan.programs:
            await ChildProcess(program).stop_orphans()
        remove_sockets(data.run_folder)
        if replacements := ports.replace_used():
            plan = make_plan(data, ports, options, commands)
        for replacement in replacements:
            print_line(
                f"port {replacement.used_port} is used by another program:"
                f" {replacement.server} uses {replacement.new_port}"
            )
        if not is_free(plan.host, plan.port):
            raise LocalServerError(f"port {plan.port} is in use: choose another with --port")
        ports.save()
        shutil.rmtree(data.metrics_folder, ignore_errors=True)
        data.metrics_folder.mkdir()

        supervisor = Supervisor(print_line)
        rotation = asyncio.create_task(rotate_logs(data.logs_folder))
        with (
            _stop_signal_handlers(supervisor, print_line) as stop,
            published_settings(data, plan.settings),
        ):
            try:
                await _run_until(stop, _start_and_wait(plan, supervisor, print_line, started))
            finally:
                await supervisor.stop()
                rotation.cancel()
                await asyncio.gather(rotation, return_exceptions=True)
        print_line(f"all stopped; the data stay in {data.path}")


@contextlib.contextmanager
def _full_disk_errors_translated(data: DataFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in disk.FULL_DISK_ERRORS:
            raise
        raise LocalServerError(disk.describe_os_error(error, data.path)) from error


async def _start_and_wait(
    plan: Plan, supervisor: Supervisor, print_line: PrintLine, started: float
) -> None:
    # The API and the worker start without the object store.
    await run_concurrently(
        _start_service(plan, supervisor), supervisor.prepare(plan.store, plan.bucket)
    )
    print_line(Summary(time.monotonic() - started, plan.addresses, plan.example))
    await supervisor.wait_for_failure()


async def _start_service(plan: Plan, supervisor: Supervisor) -> None:
    await run_concurrently(_prepare_database(plan, supervisor), supervisor.prepare(plan.redis))
    await supervisor.start(plan.worker)
    await supervisor.start(plan.api)


async def _prepare_database(plan: Plan, supervisor: Supervisor) -> None:
    await supervisor.prepare(plan.database, plan.migrate)
    if plan.seed:
        await supervisor.run(plan.seed)


@contextlib.contextmanager
def _stop_signal_handlers(supervisor: Supervisor, print_line: PrintLine) -> Iterator[asyncio.Event]:
    """Yield an event that the first stop signal sets. The next signal forces the stop."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.force.set()
        else:
            stop.set()
            print_line("stopping; press Ctrl-C again to force it")

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stop
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def _run_until(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Run a coroutine until it returns or raises, or cancel it when `stop` is set."""
    work_task, stop_task = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work_task, stop_task}, return_when=asyncio.FIRST_COMPLETED)
        if work_task.done():
            work_task.result()
    finally:
        for task in (work_task, stop_task):
            task.cancel()
        await asyncio.gather(work_task, stop_task, return_exceptions=True)
