"""`segmentql rollout watch`: show the progress of a rollout."""

import asyncio
import shutil
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import click

from segmentql import validators
from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.cli.converters import error_text
from segmentql.cli.exits import exits
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.errors import BadValue, TimedOut, Unavailable
from segmentql.rollouts import reads
from segmentql.rollouts.records import RolloutRecord
from segmentql.segments.records import SegmentRecord
from segmentql.segments.service import segments_by_slug
from segmentql.settings import Settings

POLL_INTERVAL_SECONDS: Final = 0.25
COUNT_INTERVAL_SECONDS: Final = 2
MAX_COUNT_TIME_SHARE: Final = 0.1
"""Share of the time that counting members may take; it is slow for huge segments."""

STATEMENT_TIMEOUT_SECONDS: Final = 60
EXIT_CODE_BY_STATUS: Final = {"COMPLETED": 0, "CANCELLED": 0, "FAILED": 1}
INTERRUPTED_EXIT_CODE: Final = 130
UNFINISHED_STATUSES: Final = {"SCHEDULED", "RUNNING", "WAITING", "PAUSED"}
"""In these statuses, the next stage, if any, can still start."""
BAR_COLUMNS: Final = (10, 30)
"""Minimum and maximum length of the bar."""


class RolloutNotWatchable(click.ClickException):
    """The slug is invalid, or its segment or rollout does not exist."""

    exit_code = 2


@click.group()
def rollout() -> None:
    """Show rollouts, which add a percentage of users to segments."""


@rollout.command(epilog=exits("rollout watch"))
@click.argument("slug")
@data_dir_option
def watch(slug: str, data_dir: Path) -> None:
    """Show the progress of a segment's rollout until it ends.

    The command ends when the rollout is completed, cancelled or failed. On a terminal it shows a
    progress bar. Otherwise it prints a line for each change and for each 10 % of progress. Times
    are in UTC. Ctrl-C ends the command and does not affect the rollout.
    """
    try:
        validators.slug(slug)
    except BadValue as error:
        raise RolloutNotWatchable(error_text(error)) from None
    try:
        status = asyncio.run(_watch(settings_or_running(data_dir), slug))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT_CODE)
    sys.exit(EXIT_CODE_BY_STATUS[status])


async def _watch(settings: Settings, slug: str) -> str:
    watch_settings = settings.model_copy(
        update={"statement_timeout_seconds": STATEMENT_TIMEOUT_SECONDS}
    )
    database = Database(
        watch_settings, name="segmentql rollout watch", publish=lambda messages: None
    )
    output = ProgressOutput()
    try:
        return await RolloutWatcher(database, await _find_segment_id(database, slug), output).run()
    finally:
        output.close()
        await database.dispose()


async def _find_segment_id(database: Database, slug: str) -> int:
    """Return the id of a segment that has a rollout."""

    async def read(session: ReadSession) -> tuple[SegmentRecord | None, bool]:
        segment = (await segments_by_slug(session, [slug])).get(slug)
        segment_id = segment.segment_id if segment else 0
        return segment, segment_id in await reads.rollouts_by_segment(session, [segment_id])

    try:
        segment, has_rollout = await database.read_one(read)
    except (Unavailable, TimedOut):
        raise click.ClickException(
            "The database does not respond. Run `segmentql doctor` for details."
        ) from None
    if segment is None:
        raise RolloutNotWatchable(f'No segment has the slug "{slug}".')
    if not has_rollout:
        raise RolloutNotWatchable(f'The segment "{slug}" has no rollout.')
    return segment.segment_id


class ProgressOutput:
    """Prints lines, and on a terminal a progress bar below the last line."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._bar = ""

    def print_line(self, line: str, *, err: bool = False) -> None:
        """Print a line in place of the bar, which the next `draw_bar` draws again below it."""
        self._erase_bar()
        click.echo(line, err=err)

    def draw_bar(self, progress: float, text: str) -> None:
        """Draw the bar and the text after it, cut to the width of the terminal."""
        columns = shutil.get_terminal_size().columns - 1
        shortest, longest = BAR_COLUMNS
        length = max(shortest, min(longest, columns - len(text) - 3))
        line = f"[{'#' * int(progress * length):-<{length}}] {text}"[:columns]
        if self.is_terminal and line != self._bar:
            click.echo("\r" + line.ljust(len(self._bar)), nl=False)
            self._bar = line

    def close(self) -> None:
        """Keep the current bar on the screen and move to the next line."""
        if self._bar:
            click.echo()
        self._bar = ""

    def _erase_bar(self) -> None:
        if self._bar:
            click.echo("\r" + " " * len(self._bar) + "\r", nl=False)
        self._bar = ""


class RolloutWatcher:
    """Polls a rollout and prints its changes."""

    def __init__(self, database: Database, segment_id: int, output: ProgressOutput) -> None:
        self._database = database
        self._segment_id = segment_id
        self._output = output
        self._is_reachable = True
        self._last_printed: object = None
        self._last_tenth = 0
        self._enrolled: int | None = None
        self._next_count_at = 0.0

    async def run(self) -> str:
        """Print changes until the rollout ends; return its final status."""
        while True:
            try:
                rollout = await self._database.read_one(self._read)
                if _printed_state(rollout) != self._last_printed or (
                    self._output.is_terminal and time.monotonic() >= self._next_count_at
                ):
                    await self._count()
            except (Unavailable, TimedOut):
                self._report_connection(reachable=False)
            else:
                self._report_connection(reachable=True)
                self._print_changes(rollout)
                if rollout.status in EXIT_CODE_BY_STATUS:
                    return rollout.status
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _read(self, session: ReadSession) -> RolloutRecord:
        return (await reads.rollouts_by_segment(session, [self._segment_id]))[self._segment_id]

    async def _count(self) -> None:
        async def count(session: ReadSession) -> int:
            counts = await reads.rollout_counts(session, [self._segment_id])
            return counts[self._segment_id].enrolled

        started = time.monotonic()
        try:
            self._enrolled = await self._database.read_one(count)
        except TimedOut:  # Too many members to count: print the rest without the number.
            self._enrolled = None
        ended = time.monotonic()
        self._next_count_at = ended + max(
            COUNT_INTERVAL_SECONDS, (ended - started) / MAX_COUNT_TIME_SHARE
        )

    def _report_connection(self, *, reachable: bool) -> None:
        if reachable != self._is_reachable:
            change = "responds again." if reachable else "does not respond; retrying."
            self._output.print_line(f"The database {change}", err=True)
        self._is_reachable = reachable

    def _print_changes(self, rollout: RolloutRecord) -> None:
        tenth = int(rollout.progress * 10)
        enrolled = "" if self._enrolled is None else f", {self._enrolled:,} enrolled"
        if rollout.status in EXIT_CODE_BY_STATUS:
            self._output.draw_bar(rollout.progress, _format_progress(rollout) + enrolled)
            self._output.close()
        if _printed_state(rollout) != self._last_printed:
            self._last_printed = _printed_state(rollout)
            self._output.print_line(
                f"{rollout.read_at:%H:%M:%S} {_format_status(rollout)}{enrolled}"
                f"{_format_next_stage(rollout)}"
            )
        elif tenth > self._last_tenth and not self._output.is_terminal:
            self._output.print_line(
                f"{rollout.read_at:%H:%M:%S} {tenth * 10} %: {_format_processed_users(rollout)}"
            )
        self._last_tenth = tenth
        if rollout.status not in EXIT_CODE_BY_STATUS:
            self._output.draw_bar(
                rollout.progress, _format_progress(rollout) + enrolled + _format_countdown(rollout)
            )


def _printed_state(rollout: RolloutRecord) -> object:
    return rollout.status, rollout.current, rollout.percents, rollout.start_times


def _format_status(rollout: RolloutRecord) -> str:
    if rollout.status == "FAILED":
        return f"FAILED at {_format_percent(rollout.percent)} of users: {rollout.failure}"
    line = f"{rollout.status}: {_format_percent(rollout.percent)} of users"
    if (
        rollout.status in {*UNFINISHED_STATUSES, "COMPLETED"}
        and rollout.current
        and len(rollout.percents) > 1
    ):
        line += f", stage {rollout.current} of {len(rollout.percents)}"
    if (
        rollout.status == "COMPLETED"
        and rollout.expires_at
        and rollout.expires_at <= rollout.read_at
    ):
        line += f" until {_format_time(rollout.expires_at)}"
    return line


def _format_next_stage(rollout: RolloutRecord) -> str:
    """Return when the next stage starts; an empty string if no stage will start."""
    if rollout.status not in UNFINISHED_STATUSES or rollout.current == len(rollout.start_times):
        return ""
    starts_at, percent = (
        _format_time(rollout.start_times[rollout.current]),
        _format_percent(rollout.percents[rollout.current]),
    )
    if rollout.status == "PAUSED":
        return f"; {percent} at {starts_at}, delayed by the length of the pause"
    return f"; {percent} at {starts_at}, in {_time_to_next_stage(rollout)}"


def _format_countdown(rollout: RolloutRecord) -> str:
    if rollout.status == "PAUSED" or not _format_next_stage(rollout):
        return ""
    return (
        f"; {_format_percent(rollout.percents[rollout.current])} in {_time_to_next_stage(rollout)}"
    )


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _time_to_next_stage(rollout: RolloutRecord) -> timedelta:
    remaining = rollout.start_times[rollout.current] - rollout.read_at
    return timedelta(seconds=round(remaining.total_seconds()))


def _format_progress(rollout: RolloutRecord) -> str:
    return f"{int(rollout.progress * 100)} %  {_format_processed_users(rollout)}"


def _format_processed_users(rollout: RolloutRecord) -> str:
    if rollout.status == "RUNNING" and not rollout.users_total:
        return "counting users"
    return f"{rollout.users_seen:,} of {rollout.users_total:,} users processed"


def _format_percent(percent: object) -> str:
    return f"{float(str(percent)):g} %"
