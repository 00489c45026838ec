"""The command line. Each command has a module, which is imported only when the command runs."""

from importlib import import_module
from typing import Any

import click

from segmentql.cli.output import handle_closed_stdout

UNDEFINED_OBJECT_SQLSTATES = {"42P01", "42703", "42883"}
"""SQLSTATEs for a table, column or function that does not exist."""

COMMANDS = (
    "up",
    "reset",
    "serve",
    "worker",
    "migrate",
    "downgrade",
    "bucket",
    "seed",
    "report",
    "rollout",
    "explain",
    "import",
    "export",
    "changes",
    "keys",
    "documents",
    "doctor",
    "schema",
)
"""Names of the commands. Each is a function in the module of the same name, except `MODULES`."""

MODULES = {"import": "import_list"}
"""The modules and functions of commands whose names are words of Python."""


class LazyGroup(click.Group):
    """Imports a command's module only when it runs, which halves the start time of `up`.

    Every command ends quietly if its standard output loses its reader.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with handle_closed_stdout():  # --help is printed here
            return super().make_context(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = MODULES.get(cmd_name, cmd_name)
        command: click.Command = getattr(import_module(f"segmentql.cli.{name}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; explain the error if the database is not migrated."""
        try:
            with handle_closed_stdout():
                return super().invoke(ctx)
        except Exception as error:
            # An exception of SQLAlchemy, which is not imported here to keep the start fast.
            if (
                getattr(getattr(error, "orig", None), "sqlstate", None)
                not in UNDEFINED_OBJECT_SQLSTATES
            ):
                raise
            raise click.ClickException(
                "the database's tables do not match this version;"
                " run `segmentql doctor` for details"
            ) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="segmentql")
def main() -> None:
    """SegmentQL: users and the segments they belong to, over GraphQL."""
