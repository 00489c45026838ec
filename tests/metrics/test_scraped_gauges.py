"""`/metrics` reads gauges from the servers, and omits those of an unavailable one."""

import asyncio

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.row_estimates import EXACT_COUNT_LIMIT, estimate_row_count
from segmentql.local import LocalServers
from segmentql.metrics_collector import DATABASE_TIMEOUT_SECONDS, MAX_SLUGS, QUEUES
from segmentql.worker import ACTORS, FILE_ACTORS, IMPORT_ACTORS, OBJECT_ACTORS
from tests.back_dating import HOUR, NOON, delete_segment_at, insert_membership
from tests.conftest import Api, Sql, suspended, until
from tests.exports.queries import create_export
from tests.metrics.samples import samples, samples_of
from tests.operations import create_segment, create_user, make_segments, update_user_segments
from tests.reports.queries import create_report
from tests.rollouts.helpers import store_users
from tests.timeline import database_now


async def test_stored_rows_are_counted(api: Api, sql: Sql) -> None:
    await make_segments(api, "a", "b", "gone")
    await create_user(api, id="1")
    await insert_membership(sql, 1, "a")
    await insert_membership(sql, 2, "b")
    await insert_membership(sql, 2, "a")
    await delete_segment_at(sql, "gone", NOON)
    all_samples = await samples(api.http)
    names = ("segmentql_users", "segmentql_segments", "segmentql_memberships")
    assert [all_samples[name] for name in names] == [2, 2, 3]


async def test_large_tables_are_estimated(database: Database, sql: Sql) -> None:
    await store_users(sql, EXACT_COUNT_LIMIT + 50_000)
    await sql.execute("VACUUM (ANALYZE) users")
    async with database.read() as session:
        assert await estimate_row_count(session, "users") == pytest.approx(
            EXACT_COUNT_LIMIT + 50_000, rel=0.02
        )
    # The statistics are outdated, so the estimate uses the size of the table.
    await store_users(sql, 150_000, first=EXACT_COUNT_LIMIT + 50_001)
    async with database.read() as session:
        assert await estimate_row_count(session, "users") == pytest.approx(
            EXACT_COUNT_LIMIT + 200_000, rel=0.05
        )


async def test_age_of_an_unrecorded_end_grows(api: Api, sql: Sql) -> None:
    fresh = await samples(api.http)
    assert fresh["segmentql_memberships_due_oldest_seconds"] == 0
    await make_segments(api, "ttl", "gone")
    await insert_membership(sql, 1, "ttl", expires_at=NOON + HOUR)
    await insert_membership(sql, 1, "gone")
    await delete_segment_at(sql, "gone", NOON + 2 * HOUR)
    all_samples = await samples(api.http)
    assert samples_of(all_samples, "segmentql_memberships_due") == {
        'cause="TTL"': 1,
        'cause="SEGMENT_DELETED"': 1,
    }
    age = await sql.fetchval("SELECT extract(epoch FROM now() - $1::timestamptz)", NOON + HOUR)
    assert 0 <= float(age) - all_samples["segmentql_memberships_due_oldest_seconds"] < 60


async def test_rollouts_are_counted_by_status_with_progress_by_slug(api: Api, sql: Sql) -> None:
    await store_users(sql, 10)
    later = (await database_now(sql) + HOUR).isoformat()
    await create_segment(
        api, slug="later", rollout={"stages": [{"percent": 50, "startsAt": later}]}
    )
    await create_segment(api, slug="now", rollout={"percent": 50})
    all_samples = await samples(api.http)
    assert samples_of(all_samples, "segmentql_rollouts") == {
        f'status="{status}"': {"SCHEDULED": 1, "RUNNING": 1}.get(status, 0)
        for status in (
            *("SCHEDULED", "RUNNING", "WAITING", "PAUSED", "COMPLETED", "WITHDRAWING"),
            *("CANCELLED", "FAILED"),
        )
    }
    assert samples_of(all_samples, "segmentql_rollout_progress_ratio") == {'slug="now"': 0}


async def test_number_of_slugs_in_the_metrics_is_limited(api: Api) -> None:
    for number in range(MAX_SLUGS + 5):
        await create_segment(api, slug=f"s{number:02}", rollout={"percent": 1})
    progress = samples_of(await samples(api.http), "segmentql_rollout_progress_ratio")
    assert len(progress) == MAX_SLUGS
    assert 'slug="s24"' in progress


async def test_waiting_reports_are_counted(api: Api, sql: Sql) -> None:
    await create_user(api, id="1")
    await create_report(api, userId="1", year=2024, month=3, waitSeconds=0)
    await sql.execute("UPDATE reports SET created_at = created_at - interval '1 hour'")
    all_samples = await samples(api.http)
    assert samples_of(all_samples, "segmentql_reports_stored") == {
        'status="QUEUED"': 1,
        'status="RUNNING"': 0,
        'status="READY"': 0,
        'status="FAILED"': 0,
    }
    assert 3600 <= all_samples["segmentql_report_oldest_unfinished_seconds"] < 3700


async def test_waiting_exports_are_counted(api: Api, sql: Sql) -> None:
    await make_segments(api, "a")
    for _ in range(2):
        await create_export(api)
    await sql.execute(
        """
        UPDATE exports SET
            created_at = created_at - interval '1 hour',
            status = CASE id WHEN 1 THEN 'FAILED'::report_status ELSE 'RUNNING' END,
            failure = CASE id WHEN 1 THEN 'a failure' END,
            finished_at = CASE id WHEN 1 THEN now() END,
            next_attempt_at = CASE id WHEN 2 THEN now() END
        """
    )
    await create_export(api)
    all_samples = await samples(api.http)
    assert samples_of(all_samples, "segmentql_exports_stored") == {
        'status="QUEUED"': 1,
        'status="RUNNING"': 1,
        'status="READY"': 0,
        'status="FAILED"': 1,
    }
    assert 3600 <= all_samples["segmentql_export_oldest_unfinished_seconds"] < 3700
    await sql.execute("DELETE FROM exports WHERE status <> 'FAILED'")
    assert (await samples(api.http))["segmentql_export_oldest_unfinished_seconds"] == 0


ADD_IMPORT = """
INSERT INTO imports (segment_id, status, mode, options, source, created_at, queued_at,
    next_attempt_at, deadline_at, finished_at)
SELECT 1, CAST($1::text AS import_status), 'ADD', '{"dry_run": false}', '{}', now(), now(),
    now() + $2::interval,
    CASE WHEN $1::text IN ('AWAITING_UPLOAD', 'HELD') THEN now() END,
    CASE WHEN $1::text = 'COMPLETED' THEN now() END
"""


async def test_unfinished_imports_are_counted(api: Api, sql: Sql) -> None:
    await make_segments(api, "a")
    assert (await samples(api.http))["segmentql_import_oldest_waiting_seconds"] == 0
    minute = HOUR / 60
    await sql.execute(ADD_IMPORT, "VALIDATING", minute)  # its lease has not ended
    assert (await samples(api.http))["segmentql_import_oldest_waiting_seconds"] == 0
    await sql.execute(ADD_IMPORT, "APPLYING", -2 * HOUR)  # the earlier one comes first
    await sql.execute(ADD_IMPORT, "QUEUED", -HOUR)
    await sql.execute(ADD_IMPORT, "QUEUED", -minute)
    for status in ("AWAITING_UPLOAD", "HELD", "COMPLETED"):
        await sql.execute(ADD_IMPORT, status, None)
    all_samples = await samples(api.http)
    assert samples_of(all_samples, "segmentql_imports_unfinished") == {
        'status="AWAITING_UPLOAD"': 1,
        'status="QUEUED"': 2,
        'status="VALIDATING"': 1,
        'status="VALIDATED"': 0,
        'status="HELD"': 1,
        'status="APPLYING"': 1,
    }
    assert 3600 <= all_samples["segmentql_import_oldest_waiting_seconds"] < 3700


async def test_overdue_objects_are_counted(api: Api, sql: Sql) -> None:
    all_samples = await samples(api.http)
    assert all_samples["segmentql_objects_overdue"] == 0
    assert all_samples["segmentql_objects_overdue_oldest_seconds"] == 0
    await sql.execute(
        """
        INSERT INTO objects_to_delete (object_key, delete_after, writable_until, next_attempt_at)
        SELECT 'test ' || minutes, at, at, now() + interval '1 hour'
        FROM (VALUES (60), (1), (-60)) AS ages (minutes),
            LATERAL (SELECT now() - make_interval(mins => minutes) AS at) AS moment
        """
    )
    all_samples = await samples(api.http)
    assert all_samples["segmentql_objects_overdue"] == 2
    assert 3600 <= all_samples["segmentql_objects_overdue_oldest_seconds"] < 3700


async def test_messages_in_redis_are_counted_by_queue(api: Api) -> None:
    await make_segments(api, "soon", "gone")
    await update_user_segments(api, 1, add=["soon"], ttlSeconds=50)
    await api('mutation { deleteSegment(input: {slug: "gone"}) { deletedId } }')

    expected = {'queue="expiry",state="delayed"': 1, 'queue="cleanup",state="ready"': 1}

    async def has_lengths() -> bool:
        lengths = samples_of(await samples(api.http), "segmentql_queue_messages")
        assert len(lengths) == 24
        return {queue: length for queue, length in lengths.items() if length} == expected

    await until(has_lengths)  # they are sent after the response


def test_queue_metrics_cover_the_queues_of_all_actors() -> None:
    actors = (*ACTORS, *FILE_ACTORS, *IMPORT_ACTORS, *OBJECT_ACTORS)
    assert sorted({actor.job.queue for actor in actors}) == list(QUEUES)


@pytest.mark.slow
async def test_locked_table_does_not_hide_other_gauges(api: Api, sql: Sql) -> None:
    async with sql.transaction():
        await sql.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(
            DATABASE_TIMEOUT_SECONDS + 2.5
        ):  # the statement timeout is longer
            all_samples = await samples(api.http)
    assert "segmentql_users" not in all_samples
    assert all_samples['segmentql_dependency_up{dependency="database"}'] == 1
    assert len(samples_of(all_samples, "segmentql_queue_messages")) == 24


@pytest.mark.slow
async def test_unavailable_server_is_reported_and_its_gauges_are_absent(
    api: Api, servers: LocalServers
) -> None:
    def up(database: int, redis: int, store: int) -> dict[str, int]:
        return {
            'dependency="database"': database,
            'dependency="redis"': redis,
            'dependency="store"': store,
        }

    all_samples = await samples(api.http)
    assert samples_of(all_samples, "segmentql_dependency_up") == up(1, 1, 1)
    with suspended(servers.redis), suspended(servers.store):
        all_samples = await samples(api.http)
    assert samples_of(all_samples, "segmentql_dependency_up") == up(1, 0, 0)
    assert samples_of(all_samples, "segmentql_queue_messages") == {}
    assert "segmentql_users" in all_samples
    await servers.postgres.kill()
    try:
        all_samples = await samples(api.http)
    finally:
        await servers.postgres.start()
    assert samples_of(all_samples, "segmentql_dependency_up") == up(0, 1, 1)
    assert "segmentql_users" not in all_samples
    assert samples_of(all_samples, "segmentql_rollouts") == {}
    assert samples_of(all_samples, "segmentql_build_info") == {'version="0.1.0"': 1}
