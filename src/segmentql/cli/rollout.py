"""`segmentql rollout watch`: a rollout as it goes on."""

import asyncio
import shutil
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from sqlalchemy import Row

from segmentql import values
from segmentql.adapters.database import Database, ReadSession
from segmentql.cli.exits import exits
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.errors import BadValue, TimedOut, Unavailable
from segmentql.rollouts import service
from segmentql.segments.service import segments_by_slug
from segmentql.settings import Settings

POLL_INTERVAL_SECONDS: Final = 0.25
COUNT_SECONDS: Final = 2
COUNT_SHARE: Final = 0.1
"""Counting the members of a huge segment takes seconds: no more than this part of the time."""

PATIENCE_SECONDS: Final = 60
EXIT_CODES: Final = {"COMPLETED": 0, "CANCELLED": 0, "FAILED": 1}
INTERRUPTED: Final = 130
ON_THE_WAY: Final = {"SCHEDULED", "RUNNING", "WAITING", "PAUSED"}
"""To the next stage, if there is one."""
BAR_COLUMNS: Final = (10, 30)
"""At least and at most."""


class NothingToWatch(click.ClickException):
    """The slug leads to no rollout."""

    exit_code = 2


@click.group()
def rollout() -> None:
    """Follow rollouts: percents of all users, in stages."""


@rollout.command(epilog=exits("rollout watch"))
@click.argument("slug")
@data_dir_option
def watch(slug: str, data_dir: Path) -> None:
    """Show a segment's rollout until it ends.

    It ends when it is completed, cancelled or failed. A bar on a terminal; elsewhere a line for
    each change and each tenth of the progress. Times are UTC. Ctrl-C ends the watching, not
    the rollout.
    """
    try:
        values.slug(slug)
    except BadValue as error:
        raise NothingToWatch(f"{error.problem}; allowed: {error.allowed}") from None
    try:
        status = asyncio.run(_watch(settings_or_running(data_dir), slug))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(EXIT_CODES[status])


async def _watch(settings: Settings, slug: str) -> str:
    patient = settings.model_copy(update={"statement_timeout_seconds": PATIENCE_SECONDS})
    database = Database(patient, name="segmentql rollout watch", deliver=lambda messages: None)
    screen = Screen()
    try:
        return await Watching(database, await _found(database, slug), screen).until_it_ends()
    finally:
        screen.leave()
        await database.dispose()


async def _found(database: Database, slug: str) -> int:
    """The number of a segment that has a rollout."""

    async def look(session: ReadSession) -> tuple[Row[Any] | None, bool]:
        segment = (await segments_by_slug(session, [slug])).get(slug)
        number = segment.segment_id if segment else 0
        return segment, number in await service.rollouts_by_segment(session, [number])

    try:
        segment, has_rollout = await database.read_one(look)
    except (Unavailable, TimedOut):
        raise click.ClickException(
            "The database does not answer; `segmentql doctor` says more."
        ) from None
    if segment is None:
        raise NothingToWatch(f"No segment bears: {slug}.")
    if not has_rollout:
        raise NothingToWatch(f"Segment {slug} has no rollout.")
    return int(segment.segment_id)


class Screen:
    """Lines that stay, and on a terminal below them one that changes."""

    def __init__(self) -> None:
        self.is_live = sys.stdout.isatty()
        self._drawn = ""

    def say(self, line: str, *, err: bool = False) -> None:
        """Print a line that stays; what is drawn goes below it at the next `draw`."""
        self._erase()
        click.echo(line, err=err)

    def draw(self, progress: float, rest: str) -> None:
        """Show the line that changes: a bar, and what the terminal is wide enough for."""
        columns = shutil.get_terminal_size().columns - 1
        shortest, longest = BAR_COLUMNS
        length = max(shortest, min(longest, columns - len(rest) - 3))
        line = f"[{'#' * int(progress * length):-<{length}}] {rest}"[:columns]
        if self.is_live and line != self._drawn:
            click.echo("\r" + line.ljust(len(self._drawn)), nl=False)
            self._drawn = line

    def leave(self) -> None:
        """Let what is drawn stay, and go to a line of its own."""
        if self._drawn:
            click.echo()
        self._drawn = ""

    def _erase(self) -> None:
        if self._drawn:
            click.echo("\r" + " " * len(self._drawn) + "\r", nl=False)
        self._drawn = ""


class Watching:
    """Looks at a rollout again and again, and tells what is new."""

    def __init__(self, database: Database, segment_id: int, screen: Screen) -> None:
        self._database = database
        self._segment_id = segment_id
        self._screen = screen
        self._answers = True
        self._told: object = None
        self._tenths = 0
        self._enrolled: int | None = None
        self._count_at = 0.0

    async def until_it_ends(self) -> str:
        """Its last status."""
        while True:
            try:
                row = await self._database.read_one(self._read)
                if _plan_and_status(row) != self._told or (
                    self._screen.is_live and time.monotonic() >= self._count_at
                ):
                    await self._count()
            except (Unavailable, TimedOut):
                self._note(answers=False)
            else:
                self._note(answers=True)
                self._tell(row)
                if row.status in EXIT_CODES:
                    return str(row.status)
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _read(self, session: ReadSession) -> Row[Any]:
        return (await service.rollouts_by_segment(session, [self._segment_id]))[self._segment_id]

    async def _count(self) -> None:
        async def count(session: ReadSession) -> int:
            counts = await service.rollout_counts(session, [self._segment_id])
            return int(counts[self._segment_id].enrolled)

        started = time.monotonic()
        try:
            self._enrolled = await self._database.read_one(count)
        except TimedOut:  # too many to count, which must not keep the rest from being told
            self._enrolled = None
        ended = time.monotonic()
        self._count_at = ended + max(COUNT_SECONDS, (ended - started) / COUNT_SHARE)

    def _note(self, *, answers: bool) -> None:
        if answers != self._answers:
            news = "answers again." if answers else "does not answer; still trying."
            self._screen.say(f"The database {news}", err=True)
        self._answers = answers

    def _tell(self, row: Row[Any]) -> None:
        tenths = int(row.progress * 10)
        enrolled = "" if self._enrolled is None else f", {self._enrolled:,} enrolled"
        if row.status in EXIT_CODES:
            self._screen.draw(row.progress, _live(row) + enrolled)
            self._screen.leave()
        if _plan_and_status(row) != self._told:
            self._told = _plan_and_status(row)
            self._screen.say(f"{row.read_at:%H:%M:%S} {_status(row)}{enrolled}{_next(row)}")
        elif tenths > self._tenths and not self._screen.is_live:
            self._screen.say(f"{row.read_at:%H:%M:%S} {tenths * 10} %: {_seen(row)}")
        self._tenths = tenths
        if row.status not in EXIT_CODES:
            self._screen.draw(row.progress, _live(row) + enrolled + _countdown(row))


def _plan_and_status(row: Row[Any]) -> object:
    return row.status, row.current, row.percents, row.start_times


def _status(row: Row[Any]) -> str:
    if row.status == "FAILED":
        return f"FAILED at {_percent(row.percent)} of users: {row.failure}"
    told = f"{row.status}: {_percent(row.percent)} of users"
    if row.status in {*ON_THE_WAY, "COMPLETED"} and row.current and len(row.percents) > 1:
        told += f", stage {row.current} of {len(row.percents)}"
    if row.status == "COMPLETED" and row.expires_at and row.expires_at <= row.read_at:
        told += f" until {_moment(row.expires_at)}"
    return told


def _next(row: Row[Any]) -> str:
    """When the next stage starts; nothing where there is none, or none will start."""
    if row.status not in ON_THE_WAY or row.current == len(row.start_times):
        return ""
    moment, percent = _moment(row.start_times[row.current]), _percent(row.percents[row.current])
    if row.status == "PAUSED":
        return f"; {percent} at {moment}, and as much later as the pause is long"
    return f"; {percent} at {moment}, in {_remaining(row)}"


def _countdown(row: Row[Any]) -> str:
    if row.status == "PAUSED" or not _next(row):
        return ""
    return f"; {_percent(row.percents[row.current])} in {_remaining(row)}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _remaining(row: Row[Any]) -> timedelta:
    remaining: timedelta = row.start_times[row.current] - row.read_at
    return timedelta(seconds=round(remaining.total_seconds()))


def _live(row: Row[Any]) -> str:
    return f"{int(row.progress * 100)} %  {_seen(row)}"


def _seen(row: Row[Any]) -> str:
    if row.status == "RUNNING" and not row.users_total:
        return "users are being counted"
    return f"{row.users_seen:,} of {row.users_total:,} users seen"


def _percent(percent: object) -> str:
    return f"{float(str(percent)):g} %"
