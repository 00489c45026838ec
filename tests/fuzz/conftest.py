"""Sample rows for requests, and a monitor of their effects."""

import pytest

from tests.conftest import Api, Sql
from tests.fuzz.response_checks import EffectMonitor
from tests.sample_data import SAMPLE_DATA


@pytest.fixture
async def monitor(api: Api, sql: Sql) -> EffectMonitor:
    """Return a monitor of the application in this process, with sample rows."""
    await sql.execute(SAMPLE_DATA)
    return EffectMonitor(api.http, sql)
