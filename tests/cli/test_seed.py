"""`segmentql seed` stores plausible data of a year, repeatably, and changes no existing data."""

from click.testing import CliRunner

from segmentql import demo
from segmentql.adapters.database import Database
from segmentql.cli import main
from segmentql.settings import Settings
from tests.conftest import Api, Sql, environment
from tests.operations import create_segment

COUNTS = """
SELECT (SELECT count(*) FROM users) AS users, (SELECT count(*) FROM memberships) AS memberships,
    (SELECT count(*) FROM history) AS history, (SELECT count(*) FROM segments) AS segments
"""


async def test_seed_stores_a_consistent_year(database: Database, sql: Sql, api: Api) -> None:
    seeded = await database.transaction(demo.seed)
    assert (seeded.users, seeded.segments) == (5000, 5)
    causes = {
        (row["operation"], row["cause"])
        for row in await sql.fetch("SELECT DISTINCT operation, cause FROM history")
    }
    assert causes == {("JOINED", "MANUAL"), ("LEFT", "TTL"), ("LEFT", "MANUAL")}
    # Exactly the users who joined and did not leave are members.
    assert await sql.fetchval(
        "SELECT count(*) FILTER (WHERE operation = 'JOINED')"
        " - count(*) FILTER (WHERE operation = 'LEFT') FROM history"
    ) == await sql.fetchval("SELECT count(*) FROM memberships")
    months = await sql.fetchval("SELECT count(DISTINCT date_trunc('month', at)) FROM history")
    assert months >= 12
    assert await sql.fetchval("SELECT count(*) FROM history_default") == 0
    data = await api(
        '{ segments { nodes { slug } } history(slug: "AVITO_SPRING_SALE", first: 1) {'
        " nodes { operation cause recordedAt } } }"
    )
    assert [node["slug"] for node in data["segments"]["nodes"]] == [
        "AVITO_DISCOUNT_30",
        "AVITO_DISCOUNT_50",
        "AVITO_PERFORMANCE_VAS",
        "AVITO_VOICE_MESSAGES",
    ]
    assert data["history"]["nodes"][0]["operation"] == "LEFT"


async def test_joins_and_leaves_of_one_user_and_segment_alternate(
    database: Database, sql: Sql
) -> None:
    await database.transaction(demo.seed)
    broken = await sql.fetchval(
        """
        SELECT count(*) FROM (
            SELECT at, operation, lag(at) OVER pair AS last_at, lag(operation) OVER pair AS last
            FROM history WINDOW pair AS (PARTITION BY user_id, segment_id ORDER BY at)
        ) AS steps
        WHERE last_at >= at OR last = operation OR (last IS NULL AND operation = 'LEFT')
        """
    )
    assert broken == 0


async def test_second_run_changes_nothing(database: Database, sql: Sql) -> None:
    await database.transaction(demo.seed)
    before = await sql.fetchrow(COUNTS)
    assert await database.transaction(demo.seed) == demo.SeedCounts(0, 0, 0)
    assert await sql.fetchrow(COUNTS) == before


async def test_existing_users_and_segments_are_unchanged(
    database: Database, sql: Sql, api: Api
) -> None:
    await api("mutation { createUser(input: {id: 7}) { user { id } } }")
    await api('mutation { createSegment(input: {slug: "AVITO_DISCOUNT_30"}) { segment { id } } }')
    seeded = await database.transaction(demo.seed)
    assert (seeded.users, seeded.segments) == (4999, 4)
    assert await sql.fetchval("SELECT count(*) FROM history WHERE user_id = 7") == 0
    data = await api('{ segment(slug: "AVITO_DISCOUNT_30") { memberCount } }')
    assert data == {"segment": {"memberCount": 0}}


async def test_existing_rollout_enrolls_the_demo_users(database: Database, api: Api) -> None:
    assert (await create_segment(api, slug="A", rollout={"percent": 100}))["errors"] == []
    await database.transaction(demo.seed)
    data = await api('{ segment(slug: "A") { memberCount rollout { enrolled } } }')
    assert data == {"segment": {"memberCount": 5000, "rollout": {"enrolled": 5000}}}


def test_seed_prints_what_it_stored(settings: Settings, sql: Sql) -> None:
    runner = CliRunner(env=dict(environment(settings)))
    assert "stored 5000 users, 5 segments" in runner.invoke(main, ["seed"]).output
    assert (
        runner.invoke(main, ["seed"]).output
        == "the demo data are already stored; nothing changed\n"
    )
