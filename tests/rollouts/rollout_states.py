"""Functions that create segment A with a rollout in a given state."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from segmentql.adapters.database import Database
from segmentql.rollouts import passes
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api
from tests.operations import create_segment
from tests.rollouts.graphql_client import accepted_rollout, cancel_rollout, pause_rollout
from tests.rollouts.helpers import begin_pass_with_sample

CreateState: TypeAlias = Callable[[Api, Database], Awaitable[None]]
"""Creates segment A, the first segment, with a rollout in one state."""

FAILURE = "it would not work"

STAGES_LATER = [{"percent": 10, "afterSeconds": 3600}, {"percent": 50, "afterSeconds": 7200}]
"""Two stages; the first starts in an hour."""

STAGES_NOW_AND_LATER = [{"percent": 10}, {"percent": 50, "afterSeconds": 7200}]
"""Two stages; the first starts now."""


async def fail_rollout(database: Database) -> None:
    """Record as many failures as make the rollout fail."""
    for _ in range(passes.MAX_FAILURES):
        await database.transaction(lambda session: passes.record_failure(session, 1, FAILURE))


async def create_with_plan(api: Api, rollout: dict[str, Any]) -> None:
    payload = await create_segment(api, slug="A", rollout=rollout)
    assert payload["errors"] == []


async def create_scheduled(api: Api, database: Database) -> None:
    await create_with_plan(api, {"stages": STAGES_LATER})


async def create_running(api: Api, database: Database) -> None:
    await create_with_plan(api, {"stages": STAGES_NOW_AND_LATER})


async def create_sampled(api: Api, database: Database) -> None:
    await create_running(api, database)
    await begin_pass_with_sample(database, 1)


async def create_waiting(api: Api, database: Database) -> None:
    await create_running(api, database)
    await advance_rollout(database, 1)


async def create_paused(api: Api, database: Database) -> None:
    await create_waiting(api, database)
    accepted_rollout(await pause_rollout(api))


async def create_completed(api: Api, database: Database) -> None:
    await create_with_plan(api, {"percent": 10})
    await advance_rollout(database, 1)


async def create_failed(api: Api, database: Database) -> None:
    await create_running(api, database)
    await fail_rollout(database)


async def create_cancelled(api: Api, database: Database) -> None:
    await create_waiting(api, database)
    accepted_rollout(await cancel_rollout(api))


async def create_withdrawing(api: Api, database: Database) -> None:
    await create_waiting(api, database)
    accepted_rollout(await cancel_rollout(api, withdraw=True))


async def create_failed_withdrawing(api: Api, database: Database) -> None:
    await create_withdrawing(api, database)
    await fail_rollout(database)
