"""Revisions of the database's schema: which one it is at, and which ones this version knows.

The revisions are read from the names of the migrations' files. Alembic, which imports each of them,
would make every start of the service slower.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from segmentql.errors import SchemaTooNew, SchemaTooOld

_PACKAGE: Final = Path(__file__).parents[1]
_PLACES: Final = (_PACKAGE / "_alembic", _PACKAGE.parents[1] / "alembic")
"""Where a wheel carries the migrations, and where a checkout has them."""

_IS_MIGRATED: Final = text("SELECT to_regclass('public.alembic_version') IS NOT NULL")
_REVISION: Final = text("SELECT version_num FROM public.alembic_version")


def scripts_folder() -> Path:
    """Return the folder with Alembic's `env.py` and the migrations."""
    return next(place for place in _PLACES if place.is_dir())


def known_revisions() -> list[str]:
    """Return the revisions of this version, from the oldest to the newest."""
    files = scripts_folder().joinpath("versions").glob("[0-9]*_*.py")
    return sorted(file.name.partition("_")[0] for file in files)


def newest_revision() -> str:
    """Return the revision that this version of the code needs the database to be at."""
    return known_revisions()[-1]


async def current_revision(connection: AsyncConnection) -> str | None:
    """Return the revision that the database is at; None if it was never migrated."""
    if not (await connection.execute(_IS_MIGRATED)).scalar_one():
        return None
    return (await connection.execute(_REVISION)).scalar_one_or_none()


def check_not_newer(revision: str | None) -> None:
    """Check that this version knows the revision that the database is at.

    Raises:
        SchemaTooNew: it does not.
    """
    if revision is not None and revision not in known_revisions():
        raise SchemaTooNew(revision, version("segmentql"))


def check_revision(revision: str | None) -> None:
    """Check that this version can work with a database at this revision.

    Raises:
        SchemaTooNew: it does not know the revision.
        SchemaTooOld: migrations are missing.
    """
    check_not_newer(revision)
    if revision != newest_revision():
        raise SchemaTooOld(revision, version("segmentql"), newest_revision())
