"""Fixtures for tests of rollouts."""

from collections.abc import AsyncIterator

import pytest

from segmentql.adapters.database import Database
from segmentql.local import LocalServers, with_database
from segmentql.rollouts import actors
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.operations import create_segment
from tests.rollouts.helpers import store_users
from tests.rollouts.worker_helpers import reject_backward_progress


@pytest.fixture(autouse=True)
def long_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one call of `advance_rollout` finish a pass on a slow machine, too."""
    monkeypatch.setattr(actors, "MAX_RUN_SECONDS", 300)


@pytest.fixture
async def planned(api: Api, sql: Sql, database: Database) -> Api:
    """The application. Segment A has a plan in progress and members that it added."""
    await store_users(sql, 20)
    stages = [{"percent": 50}, {"percent": 75, "afterSeconds": 3600}]
    await create_segment(api, slug="A", rollout={"stages": stages})
    await advance_rollout(database, 1)
    return api


@pytest.fixture
def url(servers: LocalServers) -> str:
    """The superuser's URL of this run's database."""
    return with_database(servers.superuser_url, "run")


@pytest.fixture
async def reject_lost_progress(sql: Sql, url: str) -> AsyncIterator[None]:
    """Check that no pass loses progress."""
    async with reject_backward_progress(url):
        yield
