"""Reports are made here by the test's own hands, as a worker would; into the real store."""

from collections.abc import AsyncIterator

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.reports.actors import Desk
from segmentql.settings import Settings


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    """The run's store, with the bucket made."""
    opened = Storage(settings)
    await opened.set_up()
    yield opened
    await opened.close()


@pytest.fixture
async def desk(database: Database, storage: Storage) -> Desk:
    return Desk(database, storage, retention_days=30)
