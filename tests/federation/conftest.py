"""A service with `SEGMENTQL_FEDERATION=on`, and its users and segments."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving, without_cost


class SubgraphApi(Api):
    """An HTTP client of the subgraph."""

    async def body(self, query: str, **variables: Any) -> Any:
        request = {"query": query, "variables": variables}
        return without_cost((await self.http.post("/federation", json=request)).json())


@pytest.fixture(scope="session")
async def session_subgraph(settings: Settings) -> AsyncIterator[SubgraphApi]:
    async with serving(settings.model_copy(update={"federation": "on"})) as api:
        yield SubgraphApi(api.http)


@pytest.fixture
async def subgraph(session_subgraph: SubgraphApi, sql: Sql) -> SubgraphApi:
    """Return a client of the subgraph, with empty tables."""
    return session_subgraph


@pytest.fixture
async def members(sql: Sql) -> None:
    """Store 1,000 users who are all in A and B, and the deleted segment GONE."""
    await sql.execute(
        """
        INSERT INTO users (id, created_at) SELECT n, '2024-01-01Z' FROM generate_series(1, 1000) n;
        INSERT INTO segments (slug, created_at, updated_at, deleted_at) VALUES
            ('A', '2024-01-01Z', '2024-01-01Z', NULL), ('B', '2024-01-01Z', '2024-01-01Z', NULL),
            ('GONE', '2024-01-01Z', '2024-01-01Z', '2024-02-01Z');
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        SELECT u.id, s.id, '2024-02-01Z', '2024-02-01Z', 'MANUAL'
        FROM users u CROSS JOIN segments s WHERE s.slug <> 'GONE';
        """
    )
