"""Runs the migrations of `alembic/`, from a checkout or from inside the installed package."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from segmentql.settings import Settings

_PACKAGE: Final = Path(__file__).parents[1]
_PLACES: Final = (_PACKAGE / "_alembic", _PACKAGE.parents[1] / "alembic")
"""Where a wheel carries them, and where a checkout has them."""


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Upgrade the database to a revision; not to be called where an event loop runs."""
    command.upgrade(_config(settings), revision)


def downgrade(settings: Settings, revision: str) -> None:
    """Take migrations back down to a revision; not to be called where an event loop runs."""
    command.downgrade(_config(settings), revision)


def newest_revision() -> str:
    """The revision that this version of the code wants the database to be at."""
    newest = ScriptDirectory.from_config(_scripts()).get_current_head()
    if newest is None:
        raise RuntimeError("there are no migrations")
    return newest


def _scripts() -> Config:
    config = Config()
    folder = next(place for place in _PLACES if place.is_dir())
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def _config(settings: Settings) -> Config:
    config = _scripts()
    config.attributes["owner_url"] = settings.owner_database_url
    config.attributes["service_url"] = settings.database_url
    return config
