"""Something stored for requests to find, and a judge of what they do."""

import pytest

from tests.conftest import Api, Sql
from tests.fuzz.response_checks import Judge
from tests.sample_data import SAMPLE_DATA


@pytest.fixture
async def judge(api: Api, sql: Sql) -> Judge:
    """Looks at what requests do to the application, in this process, with something stored."""
    await sql.execute(SAMPLE_DATA)
    return Judge(api.http, sql)
