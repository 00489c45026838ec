"""Triggers write history and protect it, and the roles have the least privileges."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from tests.conftest import Sql
from tests.timeline import (
    HOUR,
    MICROSECOND,
    SECOND,
    Entry,
    add_members,
    add_membership,
    database_now,
    history_entries,
    history_inconsistencies,
    make_segment,
    make_users,
    mark_deleted,
)


@pytest.fixture
async def service(servers: LocalServers, settings: Settings, sql: Sql) -> AsyncIterator[Sql]:
    """Connect as the service's role to the database that `sql` emptied."""
    connection = await asyncpg.connect(with_database(servers.service_url, "run"))
    yield connection
    await connection.close()


@pytest.fixture
async def owner(servers: LocalServers, settings: Settings, sql: Sql) -> AsyncIterator[Sql]:
    """Connect as the role that owns the tables."""
    connection = await asyncpg.connect(with_database(servers.owner_url, "run"))
    yield connection
    await connection.close()


JOIN = """
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor)
VALUES ($1, $2, $3, $3, $4, $5, $6) RETURNING id
"""
AT = datetime(2026, 3, 4, 5, 6, 7, 890123, UTC)


async def entries_of(sql: Sql, user_id: int) -> list[tuple[datetime, str, str, str | None]]:
    return [(e.at, e.operation, e.cause, e.actor) for e in await history_entries(sql, user_id)]


async def test_insert_records_a_join_with_the_values_of_the_row(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    await make_users(sql, 7)
    before = await database_now(sql)
    membership_id = await service.fetchval(JOIN, 7, segment_id, AT, None, "ROLLOUT", "ada")
    assert await history_entries(sql) == [
        Entry(AT, "JOINED", 7, segment_id, membership_id, "ROLLOUT", "ada")
    ]
    assert before < await sql.fetchval("SELECT recorded_at FROM history") < await database_now(sql)


async def test_update_of_end_cause_or_actor_records_no_entry(sql: Sql, service: Sql) -> None:
    membership = await add_membership(sql, 7, await make_segment(sql, "A"), ends_in=HOUR)
    joined = await history_entries(sql)
    await service.execute(
        """
        UPDATE memberships SET expires_at = expires_at + interval '1 hour', cause = 'ROLLOUT',
            actor = 'ada', updated_at = clock_timestamp()
        """
    )
    await service.execute("UPDATE memberships SET expires_at = NULL")
    assert await history_entries(sql) == joined
    assert await sql.fetchval("SELECT id FROM memberships") == membership["id"]


async def test_delete_records_a_leave_with_the_session_settings(sql: Sql, service: Sql) -> None:
    membership = await add_membership(sql, 7, await make_segment(sql, "A"))
    left_at = membership["joined_at"] + HOUR
    async with service.transaction():
        await service.execute(
            """
            SELECT set_config('segmentql.moment', $1, true),
                set_config('segmentql.cause', 'USER_DELETED', true),
                set_config('segmentql.actor', 'ada', true)
            """,
            left_at.isoformat(),
        )
        await service.execute("DELETE FROM memberships")
    assert await entries_of(sql, 7) == [
        (membership["joined_at"], "JOINED", "MANUAL", None),
        (left_at, "LEFT", "USER_DELETED", "ada"),
    ]


async def test_delete_without_settings_is_manual_without_an_actor(sql: Sql, service: Sql) -> None:
    await add_membership(sql, 7, await make_segment(sql, "A"))
    before = await database_now(sql)
    await service.execute("DELETE FROM memberships")
    after = await database_now(sql)
    leave = await sql.fetchrow("SELECT * FROM history WHERE operation = 'LEFT'")
    assert leave is not None
    assert before < leave["at"] < after
    assert (leave["cause"], leave["actor"], leave["recorded_at"]) == ("MANUAL", None, leave["at"])


async def test_settings_end_with_their_transaction(sql: Sql, service: Sql) -> None:
    await add_membership(sql, 7, await make_segment(sql, "A"))
    async with service.transaction():
        await service.execute(
            """
            SELECT set_config('segmentql.moment', '2026-01-01T00:00:00Z', true),
                set_config('segmentql.cause', 'USER_DELETED', true),
                set_config('segmentql.actor', 'ada', true)
            """
        )
    before = await database_now(sql)
    await service.execute("DELETE FROM memberships")
    left_at, operation, cause, actor = (await entries_of(sql, 7))[-1]
    assert (operation, cause, actor) == ("LEFT", "MANUAL", None)
    assert left_at > before


async def test_leave_is_always_dated_after_its_join(sql: Sql, service: Sql) -> None:
    membership = await add_membership(sql, 7, await make_segment(sql, "A"))
    async with service.transaction():
        await service.execute(
            "SELECT set_config('segmentql.moment', $1, true)",
            (membership["joined_at"] - HOUR).isoformat(),
        )
        await service.execute("DELETE FROM memberships")
    assert [(at, operation) for at, operation, *_ in await entries_of(sql, 7)] == [
        (membership["joined_at"], "JOINED"),
        (membership["joined_at"] + MICROSECOND, "LEFT"),
    ]


MANY = "(VALUES (1, 'one'), (2, 'two'), (3, 'three')) AS many (user_id, actor)"


async def _values(service: Sql, segment_id: int) -> None:
    await service.execute(
        f"""
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
        SELECT user_id, $1, $2, $2, 'MANUAL', actor FROM {MANY}
        """,
        segment_id,
        AT,
    )


async def _copy(service: Sql, segment_id: int) -> None:
    await service.copy_records_to_table(
        "memberships",
        columns=["user_id", "segment_id", "joined_at", "updated_at", "cause", "actor"],
        records=[
            (user_id, segment_id, AT, AT, "MANUAL", actor)
            for user_id, actor in ((1, "one"), (2, "two"), (3, "three"))
        ],
    )


async def _merge(service: Sql, segment_id: int) -> None:
    await service.execute(
        f"""
        MERGE INTO memberships m USING {MANY}
        ON m.user_id = many.user_id AND m.segment_id = $1
        WHEN NOT MATCHED THEN
            INSERT (user_id, segment_id, joined_at, updated_at, cause, actor)
            VALUES (many.user_id, $1, $2, $2, 'MANUAL', many.actor)
        WHEN MATCHED THEN UPDATE SET actor = 'nobody'
        """,
        segment_id,
        AT,
    )


async def _on_conflict(service: Sql, segment_id: int) -> None:
    await service.execute(
        f"""
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
        SELECT user_id, $1, $2, $2, 'MANUAL', actor FROM {MANY}
        ON CONFLICT (user_id, segment_id) DO UPDATE SET actor = 'nobody'
        """,
        segment_id,
        AT,
    )


async def _common_table(service: Sql, segment_id: int) -> None:
    await service.execute(
        f"""
        WITH one AS (
            INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
            SELECT user_id, $1, $2, $2, 'MANUAL', actor FROM {MANY} WHERE user_id = 1
        ), other AS (
            INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
            SELECT user_id, $1, $2, $2, 'MANUAL', actor FROM {MANY} WHERE user_id > 1
        )
        SELECT
        """,
        segment_id,
        AT,
    )


@pytest.mark.parametrize("put_in", [_values, _copy, _merge, _on_conflict, _common_table])
async def test_every_kind_of_insert_records_each_row_once(
    sql: Sql, service: Sql, put_in: Callable[[Sql, int], Awaitable[None]]
) -> None:
    segment_id = await make_segment(sql, "A")
    await make_users(sql, 1, 2, 3)
    await put_in(service, segment_id)
    ids = await sql.fetch("SELECT id FROM memberships ORDER BY user_id")
    assert await history_entries(sql) == [
        Entry(AT, "JOINED", user_id, segment_id, membership["id"], "MANUAL", actor)
        for user_id, actor, membership in zip((1, 2, 3), ("one", "two", "three"), ids, strict=True)
    ]


@pytest.mark.parametrize("put_in", [_merge, _on_conflict])
async def test_change_of_an_existing_row_records_no_entry(
    sql: Sql, service: Sql, put_in: Callable[[Sql, int], Awaitable[None]]
) -> None:
    segment_id = await make_segment(sql, "A")
    await make_users(sql, 1, 2, 3)
    await service.fetchval(JOIN, 2, segment_id, AT - HOUR, None, "ROLLOUT", None)
    await put_in(service, segment_id)
    assert [(e.at, e.operation, e.user_id, e.actor) for e in await history_entries(sql)] == [
        (AT - HOUR, "JOINED", 2, None),
        (AT, "JOINED", 1, "one"),
        (AT, "JOINED", 3, "three"),
    ]


async def test_delete_of_many_rows_dates_each_leave_separately(sql: Sql, service: Sql) -> None:
    alive, deleted = await make_segment(sql, "A"), await make_segment(sql, "B")
    endless = await add_membership(sql, 1, alive)
    ran_out = await add_membership(sql, 2, alive, ends_in=-HOUR)
    of_gone = await add_membership(sql, 3, deleted)
    out_before_gone = await add_membership(sql, 4, deleted, ends_in=-HOUR)
    gone_before_out = await add_membership(sql, 5, deleted, ends_in=-SECOND)
    gone_before_its_end = await add_membership(sql, 6, deleted, ends_in=HOUR)
    deleted_at = await mark_deleted(sql, deleted, ago=timedelta(minutes=1), by="ada")
    left_at = await database_now(sql)
    async with service.transaction():
        await service.execute(
            """
            SELECT set_config('segmentql.moment', $1, true),
                set_config('segmentql.cause', 'USER_DELETED', true),
                set_config('segmentql.actor', 'bob', true)
            """,
            left_at.isoformat(),
        )
        await service.execute("DELETE FROM memberships")
    leaves = {
        e.user_id: (e.at, e.membership_id, e.cause, e.actor)
        for e in await history_entries(sql)
        if e.operation == "LEFT"
    }
    assert leaves == {
        1: (left_at, endless["id"], "USER_DELETED", "bob"),
        2: (ran_out["expires_at"], ran_out["id"], "TTL", None),
        3: (deleted_at, of_gone["id"], "SEGMENT_DELETED", "ada"),
        4: (out_before_gone["expires_at"], out_before_gone["id"], "TTL", None),
        5: (deleted_at, gone_before_out["id"], "SEGMENT_DELETED", "ada"),
        6: (deleted_at, gone_before_its_end["id"], "SEGMENT_DELETED", "ada"),
    }


async def test_statement_without_changed_rows_records_no_entry(sql: Sql, service: Sql) -> None:
    await make_segment(sql, "A")
    await service.execute("DELETE FROM memberships")
    await service.execute("UPDATE memberships SET actor = 'ada'")
    assert await history_entries(sql) == []


async def test_rejoin_after_expiry_records_the_leave_and_the_join(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    old = await add_membership(sql, 7, segment_id, ends_in=-HOUR)
    rejoined_at = old["expires_at"] + timedelta(minutes=1)
    new_id = await service.fetchval(
        """
        UPDATE memberships SET id = id + 1000, joined_at = $1, updated_at = $1,
            expires_at = NULL, cause = 'ROLLOUT', actor = 'ada'
        RETURNING id
        """,
        rejoined_at,
    )
    assert await history_entries(sql) == [
        Entry(old["joined_at"], "JOINED", 7, segment_id, old["id"], "MANUAL", None),
        Entry(old["expires_at"], "LEFT", 7, segment_id, old["id"], "TTL", None),
        Entry(rejoined_at, "JOINED", 7, segment_id, new_id, "ROLLOUT", "ada"),
    ]


NEW_ID = "id = id + 1000"
REJOIN = f"{NEW_ID}, joined_at = clock_timestamp(), updated_at = clock_timestamp()"


@pytest.mark.parametrize(
    ("ends_in", "change"),
    [
        pytest.param(-HOUR, "expires_at = NULL, updated_at = clock_timestamp()", id="revived"),
        pytest.param(-HOUR, "actor = 'ada', updated_at = clock_timestamp()", id="touched-late"),
        pytest.param(HOUR, f"{REJOIN}, expires_at = NULL", id="replaced-while-it-runs"),
        pytest.param(None, REJOIN, id="replaced-while-endless"),
        pytest.param(None, "joined_at = joined_at - interval '1 s'", id="joined-at-moved"),
        pytest.param(
            -HOUR,
            f"{NEW_ID}, joined_at = expires_at, updated_at = expires_at, expires_at = NULL",
            id="rejoined-at-its-end",
        ),
    ],
)
async def test_update_that_history_cannot_record_is_rejected(
    sql: Sql, service: Sql, ends_in: timedelta | None, change: str
) -> None:
    await add_membership(sql, 7, await make_segment(sql, "A"), ends_in=ends_in)
    before = await sql.fetch("SELECT * FROM memberships"), await history_entries(sql)
    with pytest.raises(
        asyncpg.IntegrityConstraintViolationError, match="history would not be true"
    ):
        await service.execute(f"UPDATE memberships SET {change}")
    assert (await sql.fetch("SELECT * FROM memberships"), await history_entries(sql)) == before


@pytest.mark.parametrize("column", ["user_id", "segment_id"])
async def test_owner_cannot_change_user_or_segment_of_a_membership(
    sql: Sql, owner: Sql, column: str
) -> None:
    await make_segment(sql, "A")
    await make_segment(sql, "B")
    await make_users(sql, 8)
    await add_membership(sql, 7, 1)
    with pytest.raises(
        asyncpg.IntegrityConstraintViolationError, match="history would not be true"
    ):
        await owner.execute(f"UPDATE memberships SET {column} = {column} + 1")
    assert await sql.fetchval("SELECT (user_id, segment_id) FROM memberships") == (7, 1)


async def test_large_change_is_fast_with_the_plan_of_a_small_one(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    await add_members(sql, segment_id, 20_000)
    await service.execute("SET statement_timeout = '10s'")
    for user_ids in ([1], [1, 2], list(range(1, 20_001))):
        await service.execute(
            """
            UPDATE memberships
            SET expires_at = clock_timestamp() + interval '1 hour', updated_at = clock_timestamp()
            WHERE user_id = ANY($1::bigint[])
            """,
            user_ids,
        )
    await sql.execute(
        """
        UPDATE memberships
        SET expires_at = joined_at + interval '1 minute', updated_at = joined_at
        """
    )
    await service.execute(
        """
        UPDATE memberships SET id = id + 100000, joined_at = clock_timestamp(),
            updated_at = clock_timestamp(), expires_at = NULL
        """
    )
    assert await sql.fetchval("SELECT count(*) FROM history") == 60_000
    assert await history_inconsistencies(sql) == {}


async def test_one_invalid_row_rejects_the_whole_update(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 1, segment_id)
    await add_membership(sql, 2, segment_id, ends_in=-HOUR)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await service.execute(
            "UPDATE memberships SET updated_at = clock_timestamp(), actor = 'ada'"
        )
    assert await sql.fetchval("SELECT count(*) FROM memberships WHERE actor = 'ada'") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE memberships",
        "TRUNCATE history",
        "TRUNCATE history_default",
        "TRUNCATE ONLY history",
        "TRUNCATE users, memberships, exclusions",
        "TRUNCATE users CASCADE",
        "TRUNCATE segments CASCADE",
        "TRUNCATE exclusion_log",
        "TRUNCATE user_lifetimes",
        "TRUNCATE rollout_events",
        "TRUNCATE rollout_passes",
    ],
)
async def test_truncate_is_rejected_even_for_the_owner(
    sql: Sql, owner: Sql, statement: str
) -> None:
    await add_membership(sql, 7, await make_segment(sql, "A"))
    for connection in (owner, sql):
        with pytest.raises(
            (asyncpg.IntegrityConstraintViolationError, asyncpg.WrongObjectTypeError)
        ):
            await connection.execute(statement)
    assert len(await history_entries(sql)) == 1
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 1


async def test_truncate_of_a_partition_is_rejected(sql: Sql, owner: Sql) -> None:
    await sql.execute("SELECT make_history_partitions('2031-05-01', 1)")
    partitions = [
        row["name"]
        for row in await sql.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
            "WHERE inhparent = 'history'::regclass"
        )
    ]
    assert {"history_default", "history_2031_05"} < set(partitions)
    for partition in partitions:
        with pytest.raises(
            asyncpg.IntegrityConstraintViolationError, match="is refused: history would not be true"
        ):
            await owner.execute(f"TRUNCATE {partition}")


ROW = "(1, now(), 1, 'JOINED', 1, 'MANUAL', NULL, now())"
LOG_ENTRY = "(user_id, segment_id, at, operation) VALUES (1, 1, now(), 'EXCLUDED')"


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT INTO history VALUES {ROW}",
        "UPDATE history SET actor = 'another'",
        "DELETE FROM history",
        "TRUNCATE history",
        "SELECT FROM history FOR UPDATE",
        f"INSERT INTO history_default VALUES {ROW}",
        "UPDATE history_default SET actor = 'another'",
        "DELETE FROM history_default",
        "SELECT nextval('history_position_seq')",
        "SELECT setval('history_position_seq', 1)",
        f"INSERT INTO exclusion_log {LOG_ENTRY}",
        "UPDATE exclusion_log SET actor = 'another'",
        "DELETE FROM exclusion_log",
        "TRUNCATE exclusion_log",
        "INSERT INTO user_lifetimes (user_id, created_at, deleted_at) VALUES (1, now(), now())",
        "UPDATE user_lifetimes SET deleted_by = 'another'",
        "DELETE FROM user_lifetimes",
        "TRUNCATE user_lifetimes",
        "UPDATE rollout_events SET actor = 'another'",
        "DELETE FROM rollout_events",
        "TRUNCATE rollout_events",
        "DELETE FROM rollout_passes",
        "TRUNCATE rollout_passes",
        "UPDATE users SET created_by = 'another'",
        "UPDATE exclusions SET actor = 'another'",
        "UPDATE segments SET created_by = 'another'",
        "ALTER TABLE exclusions DISABLE TRIGGER exclusions_record_delete",
        "DROP TRIGGER users_record_delete ON users",
        "TRUNCATE memberships",
        "ALTER TABLE history DETACH PARTITION history_default",
        "DROP TABLE history_default",
        "ALTER TABLE memberships DISABLE TRIGGER ALL",
        "ALTER TABLE memberships DISABLE TRIGGER memberships_record_delete",
        "DROP TRIGGER memberships_record_delete ON memberships",
        "ALTER TABLE history DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "ALTER FUNCTION record_memberships() SECURITY INVOKER",
        "ALTER FUNCTION record_memberships() RESET search_path",
        "CREATE OR REPLACE FUNCTION record_memberships() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER mine AFTER INSERT ON memberships "
        "FOR EACH ROW EXECUTE FUNCTION refuse_truncate()",
        "CREATE TABLE public.mine (id int)",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "SET ROLE segmentql_owner",
        "UPDATE memberships SET user_id = user_id + 1",
        "UPDATE memberships SET segment_id = segment_id + 1",
        "UPDATE users SET id = id + 1",
        "DELETE FROM segments",
        "UPDATE segments SET slug = 'B'",
        "UPDATE segments SET created_at = now()",
        "UPDATE alembic_version SET version_num = '0'",
        "UPDATE schema_compatibility SET oldest_revision = '0001'",
    ],
)
async def test_service_role_is_denied(sql: Sql, service: Sql, statement: str) -> None:
    await add_membership(sql, 7, await make_segment(sql, "A"))
    before = await sql.fetch("SELECT * FROM history")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(statement)
    assert await sql.fetch("SELECT * FROM history") == before


async def test_service_role_cannot_write_a_new_partition_directly(sql: Sql, service: Sql) -> None:
    await service.fetchval("SELECT make_history_partitions('2031-06-01', 1)")
    for statement in (
        "INSERT INTO history_2031_06 VALUES "
        "(1, '2031-06-02', 1, 'JOINED', 1, 'MANUAL', NULL, now())",
        "UPDATE history_2031_06 SET actor = 'another'",
        "DELETE FROM history_2031_06",
        "TRUNCATE history_2031_06",
        "DROP TABLE history_2031_06",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(statement)


async def test_service_role_owns_no_object_and_has_no_attribute(sql: Sql) -> None:
    assert (
        await sql.fetch(
            """
            SELECT 'relation', oid::regclass::text FROM pg_class WHERE relowner = role.oid
            UNION ALL SELECT 'function', oid::regprocedure::text FROM pg_proc
                WHERE proowner = role.oid
            UNION ALL SELECT 'type', oid::regtype::text FROM pg_type WHERE typowner = role.oid
            UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspowner = role.oid
            UNION ALL SELECT 'database', datname FROM pg_database WHERE datdba = role.oid
            """.replace("role.oid", "'segmentql_service'::regrole")
        )
        == []
    )
    role = await sql.fetchrow("SELECT * FROM pg_roles WHERE rolname = 'segmentql_service'")
    assert role is not None
    powers = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls")
    assert [role[power] for power in powers] == [False] * len(powers)
    assert await sql.fetch("SELECT FROM pg_auth_members WHERE member = $1", role["oid"]) == []


async def test_triggers_ignore_a_temporary_history_table(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    await make_users(sql, 7)
    await service.execute(
        """
        CREATE TEMP TABLE history (LIKE public.history);
        CREATE TEMP TABLE segments (LIKE public.segments);
        CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            AS $$ SELECT timestamptz '2000-01-01' $$;
        CREATE FUNCTION pg_temp.greatest_of(timestamptz, timestamptz) RETURNS timestamptz
            LANGUAGE sql AS $$ SELECT timestamptz '2000-01-01' $$;
        CREATE TYPE pg_temp.cause AS ENUM ('MINE');
        CREATE TYPE pg_temp.operation AS ENUM ('MINE');
        SET search_path = pg_temp, public, pg_catalog;
        """
    )
    await service.execute(
        """
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        VALUES (7, $1, $2, $2, 'MANUAL')
        """,
        segment_id,
        AT,
    )
    await service.execute("DELETE FROM memberships")
    assert [(e.operation, e.cause) for e in await history_entries(sql, 7)] == [
        ("JOINED", "MANUAL"),
        ("LEFT", "MANUAL"),
    ]
    assert await service.fetchval("SELECT count(*) FROM pg_temp.history") == 0
    assert (await history_entries(sql, 7))[1].at > AT


async def test_partitions_are_created_in_public_for_any_search_path(sql: Sql, service: Sql) -> None:
    await service.execute("CREATE TEMP TABLE history_default (LIKE public.history)")
    await service.execute("CREATE TEMP TABLE history_2031_07 (LIKE public.history)")
    await service.execute("SET search_path = pg_temp, public")
    assert await service.fetchval("SELECT public.make_history_partitions('2031-07-01', 1)") == 1
    assert await sql.fetchval("SELECT to_regclass('public.history_2031_07') IS NOT NULL")


async def test_partitions_are_created_once(service: Sql) -> None:
    assert await service.fetchval("SELECT make_history_partitions('2032-11-17', 4)") == 4
    assert await service.fetchval("SELECT make_history_partitions('2032-11-01', 4)") == 0
    assert await service.fetchval("SELECT make_history_partitions('2033-02-28', 2)") == 1


async def test_new_partition_takes_its_rows_from_the_default_one(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    moments = {
        1: datetime(2034, 3, 31, 23, 59, 59, 999999, UTC),
        2: datetime(2034, 4, 1, tzinfo=UTC),
        3: datetime(2034, 4, 30, 23, 59, 59, 999999, UTC),
        4: datetime(2034, 5, 1, tzinfo=UTC),
    }
    await make_users(sql, *moments)
    for user_id, at in moments.items():
        await service.fetchval(JOIN, user_id, segment_id, at, None, "MANUAL", None)
    before = await history_entries(sql)
    statement = "SELECT user_id, tableoid::regclass::text FROM history ORDER BY user_id"
    assert {row[1] for row in await sql.fetch(statement)} == {"history_default"}
    assert await service.fetchval("SELECT make_history_partitions('2034-04-30', 1)") == 1
    assert [tuple(row) for row in await sql.fetch(statement)] == [
        (1, "history_default"),
        (2, "history_2034_04"),
        (3, "history_2034_04"),
        (4, "history_default"),
    ]
    assert await history_entries(sql) == before


@pytest.mark.parametrize(
    ("timezone", "datestyle", "year"),
    [
        ("UTC", "ISO", 2041),
        ("Pacific/Kiritimati", "ISO", 2042),
        ("America/St_Johns", "ISO", 2043),
        ("Asia/Kolkata", "SQL, DMY", 2044),
        ("Asia/Kolkata", "German", 2045),
    ],
)
async def test_partition_bounds_are_utc_for_any_time_zone(
    sql: Sql, service: Sql, timezone: str, datestyle: str, year: int
) -> None:
    await service.execute(f"SET timezone = '{timezone}'; SET datestyle = '{datestyle}'")
    await service.execute(f"SELECT make_history_partitions('{year}-12-01', 1)")
    await sql.execute("SET timezone = 'UTC'")
    bounds = await sql.fetchval(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = $1",
        f"history_{year}_12",
    )
    assert bounds == (
        f"FOR VALUES FROM ('{year}-12-01 00:00:00+00') TO ('{year + 1}-01-01 00:00:00+00')"
    )


@pytest.mark.parametrize("months", [0, -1, 1201])
async def test_invalid_number_of_months_is_rejected(service: Sql, months: int) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="months must be 1 to 1200"):
        await service.execute("SELECT make_history_partitions('2035-01-01', $1)", months)
