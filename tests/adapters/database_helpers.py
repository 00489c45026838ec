"""Work for a database, and faults of its connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from segmentql.settings import Settings
from tests.conftest import Sql

ONE, TWO = Message(EXPIRE_DUE_MEMBERSHIPS), Message(RECORD_SEGMENT_LEAVES, (2,))


async def store(session: WriteSession, user_id: int) -> None:
    await session.execute(
        text("INSERT INTO users (id, created_at) VALUES (:id, now())"), {"id": user_id}
    )


async def stored(sql: Sql) -> list[int]:
    return [row["id"] for row in await sql.fetch("SELECT id FROM users ORDER BY id")]


async def ping(session: ReadSession) -> int:
    return int((await session.execute(text("SELECT 42"))).scalar_one())


async def backend(session: WriteSession | ReadSession) -> int:
    return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())


def opened(settings: Settings, **changes: object) -> Database:
    return Database(settings.model_copy(update=changes), name="tests", publish=lambda _: None)


@asynccontextmanager
async def at_commit(sql: Sql, body: str) -> AsyncIterator[None]:
    """Run `body` before each commit that stored a user succeeds."""
    await sql.execute(
        f"""
        CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN {body}; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON users
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
        """
    )
    try:
        yield
    finally:
        await sql.execute("DROP TRIGGER at_commit ON users; DROP FUNCTION at_commit()")


async def terminate(sql: Sql, pid: int) -> None:
    """Terminate a backend and wait until it has ended."""
    await sql.execute("SELECT pg_terminate_backend($1, 10000)", pid)


async def idle_backend(database: Database) -> int:
    """Return the process id of the backend of the pool's only connection."""
    async with database.read() as session:
        return await backend(session)
