"""The database's schema revision, and the revisions that this version knows.

The known revisions are read from the file names of the migrations, because Alembic would import
every migration at each start of the service.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from segmentql.errors import SchemaTooNew, SchemaTooOld

_PACKAGE: Final = Path(__file__).parents[1]
_SCRIPT_FOLDERS: Final = (_PACKAGE / "_alembic", _PACKAGE.parents[1] / "alembic")
"""The folder of the migrations in an installed package, and in a checkout."""

_IS_MIGRATED: Final = text("SELECT to_regclass('public.alembic_version') IS NOT NULL")
_REVISION: Final = text("SELECT version_num FROM public.alembic_version")
_HAS_COMPATIBILITY: Final = text("SELECT to_regclass('public.schema_compatibility') IS NOT NULL")
_OLDEST_COMPATIBLE: Final = text("SELECT oldest_revision FROM public.schema_compatibility")


def scripts_folder() -> Path:
    """Return the folder with Alembic's `env.py` and the migrations."""
    return next(folder for folder in _SCRIPT_FOLDERS if folder.is_dir())


def known_revisions() -> list[str]:
    """Return the revisions that this version knows, from the oldest to the newest."""
    files = scripts_folder().joinpath("versions").glob("[0-9]*_*.py")
    return sorted(file.name.partition("_")[0] for file in files)


def newest_revision() -> str:
    """Return the revision that this version requires."""
    return known_revisions()[-1]


async def current_revision(connection: AsyncConnection) -> str | None:
    """Return the database's revision, or None if it was never migrated."""
    if not (await connection.execute(_IS_MIGRATED)).scalar_one():
        return None
    return (await connection.execute(_REVISION)).scalar_one_or_none()


def check_not_newer(revision: str | None) -> None:
    """Check that this version knows the database's revision.

    Raises:
        SchemaTooNew: the revision is unknown.
    """
    if revision is not None and revision not in known_revisions():
        raise SchemaTooNew(revision, version("segmentql"))


async def check_schema(connection: AsyncConnection) -> str | None:
    """Check that this version works on the database's schema.

    Returns:
        None if the revision is the newest one that this version knows. If it is newer and supports
        this version, its description for operators.

    Raises:
        SchemaTooNew: the revision is unknown, and does not support this version.
        SchemaTooOld: migrations are missing.
    """
    revision, known = await current_revision(connection), known_revisions()
    if revision == known[-1]:
        return None
    if revision is None or revision in known:
        raise SchemaTooOld(revision, version("segmentql"), known[-1])
    oldest_compatible = await _oldest_compatible(connection)
    if oldest_compatible not in known:
        raise SchemaTooNew(revision, version("segmentql"), oldest_compatible)
    return (
        f"revision {revision}, which is newer than this version ({version('segmentql')})"
        " and supports it"
    )


async def _oldest_compatible(connection: AsyncConnection) -> str | None:
    if not (await connection.execute(_HAS_COMPATIBILITY)).scalar_one():
        return None  # another application's database
    return (await connection.execute(_OLDEST_COMPATIBLE)).scalar_one_or_none()
