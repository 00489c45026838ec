"""Runs the migrations of `alembic/`, from a checkout or from inside the installed package."""

from alembic import command
from alembic.config import Config

from segmentql.adapters.revisions import scripts_folder
from segmentql.settings import Settings


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Upgrade the database to a revision. Must not be called in a running event loop.

    Raises:
        SchemaTooNew: this version does not know the database's revision.
        Unavailable: the database is unreachable.
    """
    command.upgrade(_config(settings), revision)


def downgrade(settings: Settings, revision: str) -> None:
    """Downgrade the database to a revision. Must not be called in a running event loop."""
    command.downgrade(_config(settings), revision)


def _scripts() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    return config


def _config(settings: Settings) -> Config:
    config = _scripts()
    config.attributes["owner_url"] = settings.owner_database_url
    config.attributes["service_url"] = settings.database_url
    return config
