"""Tests run the steps of imports in this process, as a worker would, with the real store."""

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.imports.actors import ImportContext
from tests.conftest import Api
from tests.imports.lists import Imports


@pytest.fixture
async def import_context(database: Database, storage: Storage) -> ImportContext:
    return ImportContext.create(database, storage, retention_days=30, worker_threads=8)


@pytest.fixture
async def imports(api: Api, import_context: ImportContext, sent: list[Message]) -> Imports:
    """Return a client of imports that runs the workers' steps."""
    return Imports(api, import_context, sent)
