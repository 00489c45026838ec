"""A key that is in use is reported to the client, and is no fault of the service."""

import orjson
import pytest

from segmentql import metrics
from segmentql.graphql.types.error_causes import KEY_IN_USE
from segmentql.idempotency.service import MAX_WAITING, SLOT_LOCK_CLASS
from segmentql.settings import Settings
from tests.conftest import Sql, serving
from tests.idempotency.cases import is_unavailable

TAKE_SLOTS = """
SELECT pg_advisory_xact_lock($1 + slot, hashtext(' k')) FROM generate_series(0, $2) AS slot
"""


def counted(code: str) -> float:
    return float(metrics.ERRORS.labels(code)._value.get())


async def test_retries_of_a_client_are_not_counted_or_logged_as_faults(
    settings: Settings, sql: Sql, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with (
        serving(settings.model_copy(update={"log_format": "json"})) as api,
        sql.transaction(),
    ):
        await sql.execute(TAKE_SLOTS, SLOT_LOCK_CLASS, MAX_WAITING)
        before = counted("UNAVAILABLE"), counted(KEY_IN_USE)
        response = await api.http.post(
            "/graphql",
            json={"query": "mutation Retry { createUser(input: {}) { user { id } } }"},
            headers={"idempotency-key": "k"},
        )
        assert is_unavailable(response)
        assert (counted("UNAVAILABLE"), counted(KEY_IN_USE)) == (before[0], before[1] + 1)
    lines = [orjson.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line.get("operation") == "Retry"]
    assert (line["level"], line["code"]) == ("info", KEY_IN_USE)
