"""`segmentql export`: writes the members of a segment to a file, through the API."""

import os
import sys
from datetime import datetime
from typing import Any

import click

from segmentql import validators
from segmentql.cli.api_client import (
    InputRejected,
    Rejected,
    Unavailable,
    download,
    open_client,
    url_option,
)
from segmentql.cli.converters import Validated, parse_time
from segmentql.cli.exits import exits
from segmentql.cli.output_file import STDOUT, open_output
from segmentql.cli.polling import poll
from segmentql.command_documents import CREATE_EXPORT, READ_EXPORT


@click.command(epilog=exits("export"))
@click.argument("slug", type=Validated("SLUG", validators.slug))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="The file to write; - is standard output.  [default: the slug and the time]",
)
@click.option(
    "--as-of",
    type=Validated("TIME", parse_time),
    help="Export the members at this time in the past, in RFC 3339 format. If omitted, now.",
)
@click.option("--gzip", "is_gzip", is_flag=True, help="Compress the file with gzip.")
@url_option
def export(
    *, slug: str, output: str | None, as_of: datetime | None, is_gzip: bool, url: str | None
) -> None:
    """Write the members of a segment as CSV.

    The command sends its requests to the API at --url with the API key in SEGMENTQL_API_KEY. The
    file appears when it is complete. `segmentql import` can import it.
    """
    if output == "":
        raise click.BadParameter("the name of the file is empty", param_hint="'-o' / '--output'")
    client = open_client(url)
    fields = {
        "slug": slug,
        "asOf": as_of.isoformat() if as_of else None,
        "gzip": is_gzip,
        "waitSeconds": 0,
    }
    try:
        export_id = client.mutate(CREATE_EXPORT, **fields)["export"]["id"]
        record = poll(
            client, READ_EXPORT, export_id, lambda state: state["status"] in {"READY", "FAILED"}
        )
        if record["status"] == "FAILED":
            reason = record["failure"].rstrip(".")
            raise click.ClickException(f"The export {export_id} failed: {reason}.")
        # The name comes from a server, so its folder is not used.
        target = output or os.path.basename(record["fileName"])
        _write(record, target)
    except Rejected as rejected:
        raise InputRejected(str(rejected)) from None
    except Unavailable as error:
        raise click.ClickException(str(error)) from None
    click.echo(
        f"{record['rowCount']} members in {target}, as of {record['asOf']}. The changes after it"
        f" begin at the cursor {record['cursor']}.",
        err=True,
    )


def _write(record: Any, target: str) -> None:
    with (
        open_output(target) as write,
        click.progressbar(
            length=record["sizeBytes"],
            label="downloading",
            file=sys.stderr,
            hidden=not sys.stderr.isatty() or target == STDOUT,
        ) as bar,
    ):

        def write_chunk(chunk: bytes) -> None:
            write(chunk)
            bar.update(len(chunk))

        download(record["downloadUrl"], write_chunk)
