"""Helpers for tests of forecasts."""

from datetime import timedelta

from segmentql.adapters.database import Database
from segmentql.principal import NO_ACTOR
from segmentql.rollouts import service
from segmentql.rollouts.forecast import RolloutForecast
from segmentql.rollouts.plan import Plan
from segmentql.rollouts.records import RolloutRecord
from tests.conftest import Sql
from tests.rollouts.commands import STEP_SECONDS
from tests.rollouts.helpers import finish_rollout, members


async def dry_run_plan(database: Database, slug: str, plan: Plan) -> RolloutRecord:
    """Set a plan in a dry run; return the rollout as it would be."""
    _, rollout = await database.transaction(
        lambda session: service.set_rollout(
            session, slug=slug, plan=plan, expected_version=None, actor=NO_ACTOR
        ),
        dry_run=True,
    )
    return rollout


def counts_of(forecast: RolloutForecast | None) -> tuple[int, int]:
    assert forecast is not None
    return forecast.joining, forecast.leaving


async def start_all_stages(sql: Sql, database: Database, segment_id: int) -> list[set[int]]:
    """Carry out the stages one after the other, without any other passage of time.

    Returns:
        The members now, which may be before the first stage, and after each stage that follows.
    """
    await finish_rollout(database, segment_id)
    members_over_time = [set(await members(sql, segment_id))]
    while await sql.fetchval(
        "SELECT max(starts_at) > clock_timestamp() FROM rollout_stages WHERE segment_id = $1",
        segment_id,
    ):
        await sql.execute(
            "UPDATE rollout_stages SET starts_at = starts_at - $2::interval WHERE segment_id = $1",
            segment_id,
            timedelta(seconds=STEP_SECONDS),
        )
        await finish_rollout(database, segment_id)
        members_over_time.append(set(await members(sql, segment_id)))
    return members_over_time
