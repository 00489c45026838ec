"""The service's role has the least privileges, and its session settings do not affect triggers."""

import asyncpg
import pytest

from tests.conftest import Sql
from tests.timeline import add_membership, history_entries, make_segment, make_users
from tests.triggers.conftest import AT

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
