"""The API keys of measured requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from segmentql.adapters.database import Database
from segmentql.keys import service
from segmentql.principal import NO_ACTOR
from segmentql.settings import Settings
from segmentql.tables import Role


@asynccontextmanager
async def reader_key(settings: Settings) -> AsyncIterator[str]:
    """Create an API key with the role READER, and revoke it at the exit.

    The next run uses the same database.
    """
    database = Database(settings, name="bench", publish=lambda messages: None)
    try:
        row, token = await database.transaction(
            lambda session: service.create_key(
                session, name="bench", role=Role.READER, actor=NO_ACTOR
            )
        )
        yield token
        await database.transaction(
            lambda session: service.revoke_key(session, row.public_id, actor=NO_ACTOR)
        )
    finally:
        await database.dispose()
