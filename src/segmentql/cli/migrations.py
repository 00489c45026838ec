"""What `segmentql migrate` and `segmentql downgrade` share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.connections import describe_error
from segmentql.adapters.revisions import known_revisions
from segmentql.database_url import display_address
from segmentql.errors import Unavailable

HEAD: Final = "head"
_LOCK_NOT_AVAILABLE: Final = "55P03"


class RevisionType(click.ParamType[str]):
    """A revision of the schema that this version knows."""

    name = "REVISION"

    def __init__(self, *names: str) -> None:
        """Accept the revisions, and also `names`."""
        self._names = names

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        known = known_revisions()
        if value not in {*self._names, *known}:
            alternatives = "".join(f"{name}, or " for name in self._names)
            self.fail(f"must be {alternatives}one of {', '.join(known)}", param, ctx)
        return str(value)


@contextmanager
def migration_errors(owner_url: str) -> Iterator[None]:
    """Turn the errors of a migration into messages for the terminal.

    Args:
        owner_url: the URL of the migrations.

    Raises:
        click.ClickException: the database is unreachable, or a lock was not available in time.
    """
    try:
        yield
    except Unavailable as error:
        raise click.ClickException(
            f"cannot connect to {display_address(owner_url)}: {describe_error(error)}"
        ) from None
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise click.ClickException(
            "a migration was rolled back because it waited too long for a lock of another session;"
            " run it again when that session has ended"
        ) from None
