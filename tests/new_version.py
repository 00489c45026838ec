"""A newer version of the service: a copy of the source with more migrations."""

import shutil
from pathlib import Path
from typing import Final

from segmentql.adapters.revisions import known_revisions

ROOT: Final = Path(__file__).parents[1]

MIGRATION: Final = '''"""Add a column that the code does not use."""

from alembic import op

revision = "{revision}"
down_revision = "{previous}"
branch_labels = None
depends_on = None
oldest_compatible = {oldest_compatible!r}


def upgrade() -> None:
    op.execute("ALTER TABLE segments ADD COLUMN added_{revision} text")


def downgrade() -> None:
    op.execute("ALTER TABLE segments DROP COLUMN added_{revision}")
'''


def copy_migrations(folder: Path) -> Path:
    """Copy `alembic/` into a folder; return the copy."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "alembic", folder / "alembic", ignore=ignored))


def copy_source(folder: Path) -> Path:
    """Copy the package without its web pages into a folder; return the folder to import it from."""
    ignored = shutil.ignore_patterns("__pycache__", "static")
    return Path(shutil.copytree(ROOT / "src", folder / "src", ignore=ignored))


def add_migration(scripts: Path, number: int, *, oldest_compatible: str | None) -> str:
    """Add a migration that adds a column; return its revision.

    Args:
        scripts: A copy of `alembic/`.
        number: 1 for the first migration after this version's newest one, and so on.
        oldest_compatible: What the migration declares.
    """
    newest = int(known_revisions()[-1])
    revision = f"{newest + number:04}"
    text = MIGRATION.format(
        revision=revision,
        previous=f"{newest + number - 1:04}",
        oldest_compatible=oldest_compatible,
    )
    scripts.joinpath("versions", f"{revision}_add_column.py").write_text(text)
    return revision
