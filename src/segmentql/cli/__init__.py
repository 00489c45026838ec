"""The command line: one module a command, imported when it is asked for."""

from importlib import import_module
from typing import Any

import click

from segmentql.cli.output import quiet_without_reader

UNDEFINED = {"42P01", "42703", "42883"}
"""SQLSTATEs of a table, a column and a function that do not exist."""

COMMANDS = (
    "up",
    "reset",
    "serve",
    "worker",
    "migrate",
    "bucket",
    "seed",
    "report",
    "rollout",
    "keys",
    "doctor",
    "schema",
)
"""Each is a function of this name in the module of this name."""


class Commands(click.Group):
    """Imports a command's module only when it runs: `up` starts in half the time for it.

    Every command ends quietly if its standard output loses its reader.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with quiet_without_reader():  # --help is printed here
            return super().make_context(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"segmentql.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and explain a database that was not migrated."""
        try:
            with quiet_without_reader():
                return super().invoke(ctx)
        except Exception as error:
            # SQLAlchemy's, which is not imported here: see above.
            if getattr(getattr(error, "orig", None), "sqlstate", None) not in UNDEFINED:
                raise
            raise click.ClickException(
                "the database's tables do not fit this version; `segmentql doctor` says what to do"
            ) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="segmentql")
def main() -> None:
    """SegmentQL: users and the segments they belong to, over GraphQL."""
