"""The statements of flags read only rows of the requested users and segments."""

import pytest

from tests.conftest import Api, Sql
from tests.ofrep.client import evaluate
from tests.query_plans import captured_statements, scanned_rows

USERS = 2000
SEGMENTS = 40
SEGMENTS_OF_USER = 5


async def store_members(sql: Sql) -> None:
    """Store users with a key, each in some of the segments."""
    await sql.execute(
        f"""
        SET session_replication_role = replica;  -- history is not needed
        INSERT INTO users (id, created_at, key)
        SELECT n, now(), 'user-' || n FROM generate_series(1, {USERS}) AS n;
        INSERT INTO segments (slug, created_at, updated_at)
        SELECT 'S' || n, now(), now() FROM generate_series(1, {SEGMENTS}) AS n;
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        SELECT u, 1 + (u + n) % {SEGMENTS}, now(), now(), 'MANUAL'
        FROM generate_series(1, {USERS}) AS u, generate_series(1, {SEGMENTS_OF_USER}) AS n;
        SET session_replication_role = DEFAULT;
        ANALYZE users, segments, memberships;
        """
    )


@pytest.mark.parametrize(
    ("slug", "most_rows"),
    # A small table of segments may be read as a whole.
    [("S7", SEGMENTS + SEGMENTS_OF_USER + 1), (None, 2 * SEGMENTS + 2 * SEGMENTS_OF_USER + 1)],
)
async def test_evaluation_reads_no_row_of_another_user(
    api: Api, key_api: Api, sql: Sql, slug: str | None, most_rows: int
) -> None:
    await store_members(sql)
    for client_api, targeting_key in ((api, "77"), (key_api, "user-77")):
        with captured_statements() as statements:
            response = await evaluate(client_api, slug, targeting_key)
        assert response.status_code == 200
        # Other applications of this process may refresh their API keys at the same time.
        ((statement, parameters),) = [each for each in statements if "memberships" in each[0]]
        assert await scanned_rows(sql, statement, parameters) <= most_rows
