"""`segmentql schema`: prints the GraphQL schema or its breaking changes."""

from datetime import datetime
from pathlib import Path

import click

from segmentql.cli.exits import exits
from segmentql.errors import BadValue


@click.command(epilog=exits("schema"))
@click.option(
    "--compare",
    "released",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Print the changes that break clients of the schema in FILE; exit with 1 if any.",
)
@click.option(
    "--on",
    "day",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="With --compare: allow removals that FILE announces for this day or earlier.",
)
@click.option(
    "--federation",
    "is_subgraph",
    is_flag=True,
    help="Print the schema at /federation, the subgraph that a gateway composes.",
)
def schema(*, released: Path | None, day: datetime | None, is_subgraph: bool) -> None:
    """Print the schema in GraphQL's schema definition language."""
    from segmentql.schema import (  # noqa: PLC0415 - slow to import
        breaking_changes_since,
        make_schema,
    )
    from segmentql.subgraph import subgraph_sdl  # noqa: PLC0415 - slow to import

    if is_subgraph and released:
        raise click.UsageError("--federation and --compare cannot be used together.")
    if is_subgraph:
        click.echo(subgraph_sdl())
        return
    if released is None:
        click.echo(make_schema().as_str())
        return
    try:
        broken = breaking_changes_since(
            released.read_text(encoding="utf-8"), on=day.date() if day else None
        )
    except (BadValue, UnicodeDecodeError) as bad:
        raise click.ClickException(f"{released}: {bad}") from None
    for change in broken:
        click.echo(change)
    if broken:
        raise click.ClickException(
            f"{len(broken)} breaking changes for clients of {released}. Keep the removed parts,"
            " mark them @deprecated with a date three months ahead, and remove them after a release"
            " and that date."
        )
    click.echo(f"no breaking changes since {released}")
