"""A request context on sample rows, at least three nodes of each list, and loaders of users."""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pytest

from segmentql.adapters import connections
from segmentql.adapters.database import Database
from segmentql.graphql.context import Context
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.plan import Plan, Stage
from segmentql.rollouts.service import start_rollout
from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, Api, Sql
from tests.graphql.executor_helpers import make_context
from tests.operations import make_segments, update_user_segments
from tests.sample_data import INSERT_IMPORT, SAMPLE_DATA


@pytest.fixture
async def context(database: Database, sql: Sql, settings: Settings) -> Context:
    """Store the sample rows, a report on all users and a rollout, and return a request context."""
    await sql.execute(SAMPLE_DATA)
    await sql.execute(
        """
        INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
        VALUES (NULL, 2024, 2, 'QUEUED', '2024-03-01Z', '2024-03-01Z')
        """
    )
    plan = Plan([Stage(Decimal(50)), Stage(Decimal(60), after=timedelta(days=300))])
    await database.transaction(
        lambda session: start_rollout(session, segment_id=1, plan=plan, actor=NO_ACTOR)
    )
    return make_context(database, settings)


@pytest.fixture
async def three_of_each(api: Api, sql: Sql) -> None:
    """Store at least three nodes of each list."""
    await make_segments(api, "A", "AB", "AC")
    for user_id in (1, 2, 3):
        await update_user_segments(api, user_id, add=["A", "AB"])
        await update_user_segments(api, user_id, remove=["A"])
        await update_user_segments(api, user_id, add=["A"])
    await sql.execute(
        """
        INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
        SELECT user_id, 2024, month, 'QUEUED', '2025-01-01Z', '2025-01-01Z'
        FROM generate_series(1, 2) AS user_id, generate_series(1, 3) AS month;
        INSERT INTO exports (segment_id, status, as_of, cursor, gzip, created_at, next_attempt_at)
        SELECT segment_id, 'QUEUED', '2025-01-01Z', 'chg_MDo=', false, '2025-01-01Z', '2025-01-01Z'
        FROM generate_series(1, 2) AS segment_id, generate_series(1, 3) AS n;
        INSERT INTO api_keys (public_id, secret_hash, name, role, created_at)
        SELECT 'aaaaaaaaaaa' || n, sha256(n::text::bytea), 'key', 'READER', '2024-01-01Z'
        FROM generate_series(1, 3) AS n;
        INSERT INTO audit_log (action, target, actor, segment_id)
        SELECT 'segment.updated', 'seg_1', 'A', 1 FROM generate_series(1, 3) AS n;
        """
    )
    for _ in range(3):
        await sql.execute(INSERT_IMPORT.format(slug="A", status="COMPLETED"))
        await sql.execute(INSERT_IMPORT.format(slug="AB", status="VALIDATED"))


@pytest.fixture
async def patient_database(
    settings: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    """Open a database whose timeouts are longer than `until` waits.

    A statement that ends before is cancelled by its loader, and not by a timeout.
    """
    monkeypatch.setattr(connections, "LOCK_SECONDS", 4 * PATIENCE_SECONDS)
    patient = settings.model_copy(update={"statement_timeout_seconds": 4 * PATIENCE_SECONDS})
    opened = Database(patient, name="tests", publish=lambda _: None)
    yield opened
    await opened.dispose()


@pytest.fixture
async def loaders(patient_database: Database, sql: Sql) -> LoaderRegistry:
    """Return loaders on a database with the users 1 to 20."""
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 20) AS n")
    return LoaderRegistry(patient_database, primary=True)


@pytest.fixture
async def lock_holder(sql: Sql) -> AsyncIterator[Sql]:
    """Hold advisory lock 1 on a connection that the test may use to release it."""
    await sql.execute("SELECT pg_advisory_lock(1)")
    yield sql
    await sql.execute("SELECT pg_advisory_unlock_all()")
