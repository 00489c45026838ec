"""How far a rollout may have come: each of these makes segment A with one that is there."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from segmentql.adapters.database import Database
from segmentql.rollouts import passes
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api
from tests.operations import create_segment
from tests.rollouts.graphql_client import cancel_rollout, done, pause_rollout
from tests.rollouts.helpers import begin_and_sample

Bring: TypeAlias = Callable[[Api, Database], Awaitable[None]]
"""Makes segment A, the first one, with a rollout that has come so far."""

FAILURE = "it would not work"

LATER = [{"percent": 10, "afterSeconds": 3600}, {"percent": 50, "afterSeconds": 7200}]
"""Two stages, the first of them an hour ahead."""

NOW_AND_LATER = [{"percent": 10}, {"percent": 50, "afterSeconds": 7200}]
"""Two stages, the first of them at once."""


async def fail(database: Database) -> None:
    """Let a worker fail as often as makes the rollout fail."""
    for _ in range(passes.MAX_FAILURES):
        await database.transaction(lambda session: passes.record_failure(session, 1, FAILURE))


async def made(api: Api, rollout: dict[str, Any]) -> None:
    payload = await create_segment(api, slug="A", rollout=rollout)
    assert payload["errors"] == []


async def scheduled(api: Api, database: Database) -> None:
    await made(api, {"stages": LATER})


async def running(api: Api, database: Database) -> None:
    await made(api, {"stages": NOW_AND_LATER})


async def sampled(api: Api, database: Database) -> None:
    await running(api, database)
    await begin_and_sample(database, 1)


async def waiting(api: Api, database: Database) -> None:
    await running(api, database)
    await advance_rollout(database, 1)


async def paused(api: Api, database: Database) -> None:
    await waiting(api, database)
    done(await pause_rollout(api))


async def completed(api: Api, database: Database) -> None:
    await made(api, {"percent": 10})
    await advance_rollout(database, 1)


async def failed(api: Api, database: Database) -> None:
    await running(api, database)
    await fail(database)


async def cancelled(api: Api, database: Database) -> None:
    await waiting(api, database)
    done(await cancel_rollout(api))


async def withdrawing(api: Api, database: Database) -> None:
    await waiting(api, database)
    done(await cancel_rollout(api, withdraw=True))


async def failed_withdrawing(api: Api, database: Database) -> None:
    await withdrawing(api, database)
    await fail(database)
