"""`segmentql explain`: why a user is or is not in a segment, read directly from the database."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import click

from segmentql import validators
from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.cli.converters import Validated, error_text, parse_time
from segmentql.cli.exits import exits
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.errors import BadValue, TimedOut, Unavailable
from segmentql.explain import service
from segmentql.explain.records import ExplanationRecord
from segmentql.settings import Settings


@click.command(epilog=exits("explain"))
@click.argument("user")
@click.argument("slug", type=Validated("SLUG", validators.slug))
@click.option("--key", "by_key", is_flag=True, help="USER is the user's key instead of the id.")
@click.option(
    "--as-of",
    type=Validated("TIME", parse_time),
    help="Explain the state at this time in the past, in RFC 3339 format. If omitted, now.",
)
@data_dir_option
def explain(
    user: str,
    slug: str,
    by_key: bool,  # noqa: FBT001 - click passes options by name
    as_of: datetime | None,
    data_dir: Path,
) -> None:
    """Explain why a user is or is not in a segment.

    USER is the user's id, or with --key the user's key: the user who had it at the time, or last
    before it. The command prints the reason, a summary, and the checks in order. Times are in UTC.
    """
    try:
        user_id = None if by_key else validators.user_id(user)
        user_key = validators.user_key(user) if by_key else None
    except BadValue as error:
        raise click.BadParameter(error_text(error), param_hint="'USER'") from None
    explanation = asyncio.run(
        _explain(
            settings_or_running(data_dir),
            lambda session: service.explain(
                session, user_id=user_id, user_key=user_key, slug=slug, as_of=as_of
            ),
        )
    )
    if explanation is None:
        raise click.UsageError("--as-of is in the future.")
    name = f'"{user}"' if by_key else user
    is_or_was = "was" if as_of else "is"
    membership = "in" if explanation.is_in else "not in"
    click.echo(f'User {name} {is_or_was} {membership} "{slug}": {explanation.reason}')
    click.echo(explanation.summary)
    click.echo()
    width = max(len(step.check) for step in explanation.steps)
    for step in explanation.steps:
        answer = "yes" if step.passed else "no"
        click.echo(f"{answer:<3}  {step.check:<{width}}  {step.detail}")


async def _explain(
    settings: Settings, read: Callable[[ReadSession], Awaitable[ExplanationRecord | None]]
) -> ExplanationRecord | None:
    database = Database(settings, name="segmentql explain", publish=lambda messages: None)
    try:
        return await database.read_one(read)
    except (Unavailable, TimedOut):
        raise click.ClickException(
            "The database does not respond. Run `segmentql doctor` for details."
        ) from None
    finally:
        await database.dispose()
