"""The command line. Each command's module is imported with it; what it runs, only when it runs."""

import click

from segmentql.cli.migrate import migrate
from segmentql.cli.schema import schema
from segmentql.cli.serve import serve
from segmentql.cli.up import up
from segmentql.cli.worker import worker


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="segmentql")
def main() -> None:
    """SegmentQL: users and the segments they belong to, over GraphQL."""


for command in (up, serve, worker, migrate, schema):
    main.add_command(command)
