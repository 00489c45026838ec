"""`segmentql import`: uploads a list of users to the API, which imports it into a segment."""

import sys
from datetime import datetime
from typing import Final

import click
from click.core import ParameterSource

from segmentql import validators
from segmentql.cli.api_client import Rejected, Unavailable, open_client, url_option
from segmentql.cli.converters import Validated, parse_time
from segmentql.cli.exits import exits
from segmentql.cli.import_run import ImportRun
from segmentql.cli.import_summary import exit_code, print_advice, print_summary
from segmentql.cli.list_file import open_list
from segmentql.cli.output_file import STDOUT

MAX_BIG_INT: Final = 2**53
INTERRUPTED_EXIT_CODE: Final = 130


WITH_APPLY: Final = {"applied_id", "allow_removals", "result", "url"}
"""The parameters that can be used with `--apply`."""


def _import_id(text: str) -> str:
    validators.import_id(text)
    return text


def _choice(*values: str) -> "click.Choice[str]":
    return click.Choice(values, case_sensitive=False)


@click.command("import", epilog=exits("import"))
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), required=False
)
@click.option(
    "--apply",
    "applied_id",
    metavar="IMPORT",
    type=Validated("IMPORT", _import_id),
    help="Instead of FILE: apply an earlier dry run, or a held import, by its id.",
)
@click.option(
    "--segment",
    "slug",
    type=Validated("SLUG", validators.slug),
    help="The segment that the import changes. Required with FILE.",
)
@click.option(
    "--mode",
    type=_choice("add", "remove", "replace"),
    default="add",
    show_default=True,
    help="What to do with the users of the list. replace needs a key with the role ADMIN.",
)
@click.option("--keys", is_flag=True, help="The list has users' keys instead of ids.")
@click.option("--column", metavar="NAME", help="The column of the users, by its name.")
@click.option(
    "--column-number",
    metavar="N",
    type=click.IntRange(1, validators.MAX_COLUMN_NUMBER),
    help="The column of the users, by its number from 1.",
)
@click.option(
    "--header",
    type=_choice("auto", "present", "absent"),
    default="auto",
    show_default=True,
    help="Whether the first row is a header.",
)
@click.option(
    "--delimiter",
    type=_choice("auto", "comma", "semicolon", "tab"),
    default="auto",
    show_default=True,
    help="The character between the columns.",
)
@click.option(
    "--ttl",
    metavar="SECONDS",
    type=click.IntRange(1, validators.MAX_TTL_SECONDS),
    help="End the memberships this many seconds after each user's join.",
)
@click.option(
    "--expires-at",
    type=Validated("TIME", parse_time),
    help="End the memberships at this time, in RFC 3339 format.",
)
@click.option(
    "--on-existing",
    type=_choice("extend", "replace", "keep"),
    default="extend",
    show_default=True,
    help="Which end a user has who is a member already.",
)
@click.option(
    "--on-excluded",
    type=_choice("skip", "admit"),
    default="skip",
    show_default=True,
    help="Whether users join who are excluded from the segment's rollout.",
)
@click.option(
    "--on-unknown-user",
    type=_choice("store", "skip"),
    default="store",
    show_default=True,
    help="Whether users are stored and join who are not stored.",
)
@click.option(
    "--no-exclude",
    is_flag=True,
    help="With --mode remove: do not exclude the users from the segment's rollout.",
)
@click.option(
    "--max-rejected",
    metavar="N",
    type=click.IntRange(0, MAX_BIG_INT),
    default=0,
    show_default=True,
    help="Refuse the file if it has more rejected rows.",
)
@click.option(
    "--max-removed-percent",
    metavar="P",
    type=click.FloatRange(0, 100),
    default=20,
    show_default=True,
    help="Hold the import if it would remove a larger part of the members.",
)
@click.option("--allow-empty", is_flag=True, help="With --mode replace: accept an empty list.")
@click.option(
    "--allow-removals",
    metavar="N",
    type=click.IntRange(0, MAX_BIG_INT),
    help="Apply an import that is held if it removes at most this many members.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing, and forecast the outcomes.")
@click.option(
    "--result",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write the outcome of each row to this file, as CSV; - is standard output.",
)
@url_option
def import_list(
    *,
    file: str | None,
    applied_id: str | None,
    slug: str | None,
    mode: str,
    keys: bool,
    column: str | None,
    column_number: int | None,
    header: str,
    delimiter: str,
    ttl: int | None,
    expires_at: datetime | None,
    on_existing: str,
    on_excluded: str,
    on_unknown_user: str,
    no_exclude: bool,
    max_rejected: int,
    max_removed_percent: float,
    allow_empty: bool,
    allow_removals: int | None,
    dry_run: bool,
    result: str | None,
    url: str | None,
) -> None:
    """Add the users of a list to a segment, or remove them.

    FILE has one user in each line, or is a CSV file; - is standard input. It may be packed with
    gzip. The command uploads it through the API at --url with the API key in SEGMENTQL_API_KEY, and
    waits until the import is finished. Ctrl-C cancels the import.

    --apply IMPORT applies an earlier dry run or a held import. Of the other options, it takes only
    --allow-removals, --result and --url.
    """
    _check_arguments()
    _check_combinations(
        {
            "--column": column is not None,
            "--column-number": column_number is not None,
            "--ttl": ttl is not None,
            "--expires-at": expires_at is not None,
            "--dry-run": dry_run,
            "--allow-removals": allow_removals is not None,
            "--result": result is not None,
        }
    )
    fields = {
        "slug": slug,
        "mode": mode.upper(),
        "identity": "KEY" if keys else "ID",
        "column": column,
        "columnNumber": column_number,
        "header": header.upper(),
        "delimiter": delimiter.upper(),
        "ttlSeconds": ttl,
        "expiresAt": expires_at.isoformat() if expires_at else None,
        "onExisting": on_existing.upper(),
        "onExcluded": on_excluded.upper(),
        "onUnknownUser": on_unknown_user.upper(),
        "exclude": not no_exclude,
        "maxRejected": max_rejected,
        "maxRemovedPercent": max_removed_percent,
        "allowEmpty": allow_empty,
        "dryRun": dry_run,
    }
    run = ImportRun(open_client(url))
    try:
        if file is None:
            record = run.apply(applied_id or "", allow_removals)
        else:
            with open_list(file) as list_file:
                run.create(list_file, fields)
                run.upload(list_file)
            record = run.finish(allow_removals)
        print_summary(record, err=result == STDOUT)
        if result is not None:
            run.write_result(record, result)
    except (Rejected, Unavailable) as error:
        raise click.ClickException(f"{error}{run.continuation}") from None
    except KeyboardInterrupt:
        click.echo(run.cancel(), err=True)
        sys.exit(INTERRUPTED_EXIT_CODE)
    print_advice(record, with_result=result is not None)
    sys.exit(exit_code(record))


def _check_arguments() -> None:
    """Check that the command line has either a file and a segment, or the id of an import."""
    context = click.get_current_context()
    given = {
        name: parameter
        for parameter in context.command.params
        if (name := parameter.name or "")
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if "applied_id" in given:
        for name, parameter in given.items():
            if name not in WITH_APPLY:
                other = "FILE" if name == "file" else parameter.opts[0]
                raise click.UsageError(f"--apply and {other} exclude each other.")
    elif "file" not in given or "slug" not in given:
        raise click.UsageError("FILE and --segment are required, except with --apply.")


def _check_combinations(is_set: dict[str, bool]) -> None:
    for one, other in (
        ("--column", "--column-number"),
        ("--ttl", "--expires-at"),
        ("--dry-run", "--allow-removals"),
        ("--dry-run", "--result"),
    ):
        if is_set[one] and is_set[other]:
            raise click.UsageError(f"{one} and {other} exclude each other.")
