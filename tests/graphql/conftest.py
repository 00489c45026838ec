"""A request context on a database with sample rows."""

from datetime import timedelta
from decimal import Decimal

import pytest

from segmentql.adapters.database import Database
from segmentql.graphql.context import Context
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.plan import Plan, Stage
from segmentql.rollouts.service import start_rollout
from segmentql.settings import Settings
from tests.conftest import Sql
from tests.graphql.executor_helpers import make_context
from tests.sample_data import SAMPLE_DATA


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
