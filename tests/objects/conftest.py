"""Tests delete objects in this process, as a worker would, from the real store."""

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.objects.actors import ObjectContext


@pytest.fixture
async def object_context(database: Database, storage: Storage) -> ObjectContext:
    return ObjectContext(database, storage)
