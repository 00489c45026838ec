"""A client of the audit log."""

import pytest

from segmentql.adapters.database import Database
from tests.audit.clients import Client
from tests.audit.entries import empty_log
from tests.conftest import Api, Sql
from tests.keys.clients import make_key


@pytest.fixture
async def ada(auth_api: Api, database: Database, sql: Sql) -> Client:
    """A client with the role ADMIN. The log has no entry of its key."""
    client = Client(auth_api, await make_key(database, "ADMIN", "ada"))
    await empty_log(sql)
    return client
