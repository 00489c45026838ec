"""`segmentql changes`: prints the change feed as JSON lines, through the API."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import orjson

from segmentql import validators
from segmentql.cli.api_client import (
    ApiClient,
    RequestRejected,
    Unavailable,
    open_client,
    url_option,
)
from segmentql.cli.converters import Validated
from segmentql.cli.cursor_file import read_cursor, store_cursor
from segmentql.cli.exits import exits
from segmentql.cli.output import OutputClosed
from segmentql.command_documents import CHANGES

PAGE_CHANGES: Final = 1000
WAIT_SECONDS: Final = 25
"""How long a request waits for the next change."""

MIN_RETRY_SECONDS: Final = 0.5
MAX_RETRY_SECONDS: Final = 15
MIN_PAUSE_SECONDS: Final = 0.2
MAX_PAUSE_SECONDS: Final = 2
"""The pauses of `--no-follow` while the next change is being recorded and cannot be read yet."""

INTERRUPTED_EXIT_CODE: Final = 130
EARLIEST: Final = "earliest"

_RESTART: Final = (
    " Copies that follow the feed are not correct any more. Export the segment again, and continue"
    " at the cursor of the export."
)
_ADVICE_BY_CODE: Final = {"CURSOR_EXPIRED": _RESTART, "FEED_RESET": _RESTART}


class FeedInterrupted(click.ClickException):
    """The feed cannot continue at the cursor."""

    exit_code = 3


@click.command(epilog=exits("changes"))
@click.option(
    "--from",
    "start",
    metavar="CURSOR",
    help=f"Print the changes after this cursor; `{EARLIEST}` begins with the oldest stored change."
    "  [default: changes from now on]",
)
@click.option(
    "--slug",
    "slugs",
    multiple=True,
    type=Validated("SLUG", validators.slug),
    help="Print only changes of segments with this slug. It can be repeated.",
)
@click.option(
    "--user",
    "user_ids",
    multiple=True,
    type=Validated("ID", validators.user_id),
    help="Print only changes of the user with this id. It can be repeated.",
)
@click.option(
    "--state",
    "state_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Store the cursor in this file after each batch, and continue at it the next time.",
)
@click.option(
    "--follow/--no-follow",
    default=True,
    help="Wait for further changes, or end after the last one. --no-follow needs --from or --state"
    " to print anything.  [default: follow]",
)
@url_option
def changes(
    *,
    start: str | None,
    slugs: Sequence[str],
    user_ids: Sequence[int],
    state_file: Path | None,
    follow: bool,
    url: str | None,
) -> None:
    """Print every join and leave, in order, as JSON lines.

    The command sends its requests to the API at --url with the API key in SEGMENTQL_API_KEY. If the
    API does not respond, the command waits and continues. With --state, the cursor is stored after
    the lines of a batch are written, so no change is lost. If the command is killed between the
    two, the next one prints the batch again: each line has the cursor of its change.
    """
    stored = read_cursor(state_file) if state_file else None
    if start is not None and stored is not None:
        raise click.BadParameter(
            f"{state_file} already has a cursor; omit --from, or delete the file",
            param_hint="'--from'",
        )
    if start == "":
        raise click.BadParameter("the cursor is empty", param_hint="'--from'")
    change_filter = {
        **({"slugs": list(slugs)} if slugs else {}),
        **({"userIds": [str(user_id) for user_id in user_ids]} if user_ids else {}),
    }
    variables = {
        "start": "EARLIEST" if start == EARLIEST else "NOW",
        "filter": change_filter or None,
        "first": PAGE_CHANGES,
    }
    after = None if start == EARLIEST else start
    try:
        _print_changes(open_client(url), variables, after or stored, state_file, follow=follow)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT_CODE)


def _print_changes(
    client: ApiClient,
    variables: Mapping[str, object],
    after: str | None,
    state_file: Path | None,
    *,
    follow: bool,
) -> None:
    wait_seconds = 0
    pause = MIN_PAUSE_SECONDS
    while True:
        batch = _read(client, {**variables, "after": after, "waitSeconds": wait_seconds})
        if batch["events"]:
            _write(b"".join(map(_line, batch["events"])))
        has_advanced = batch["cursor"] != after
        # The cursor of --from is stored even if no change follows it: without it, the next command
        # would begin at the newest change.
        if state_file and (has_advanced or not state_file.exists()):
            store_cursor(state_file, batch["cursor"])
        after = batch["cursor"]
        if batch["caughtUp"] and not follow:
            return
        if follow:
            wait_seconds = WAIT_SECONDS
        elif has_advanced:
            pause = MIN_PAUSE_SECONDS
        else:
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)


def _read(client: ApiClient, variables: Mapping[str, object]) -> Any:
    """Return the next batch. While the API does not respond, wait and try again."""
    pause = MIN_RETRY_SECONDS
    while True:
        try:
            return client.query(CHANGES, **variables)["changes"]
        except Unavailable as error:
            if pause == MIN_RETRY_SECONDS:
                click.echo(f"{error} Waiting.", err=True)
            time.sleep(pause)
            pause = min(2 * pause, MAX_RETRY_SECONDS)
        except RequestRejected as error:
            if error.code in _ADVICE_BY_CODE:
                raise FeedInterrupted(error.message + _ADVICE_BY_CODE[error.code]) from None
            raise


def _write(lines: bytes) -> None:
    try:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError as error:
        raise click.ClickException(f"cannot write the changes: {error.strerror}") from None


def _line(event: Any) -> bytes:
    entry = event["entry"]
    return orjson.dumps({"cursor": event["cursor"], "at": event["at"], **entry}) + b"\n"
