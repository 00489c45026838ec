"""`segmentql up` and its database: who gets the owner's URL, and a schema that is too new."""

import sys
from importlib.metadata import version
from pathlib import Path

import asyncpg
import pytest

from segmentql.settings import MIGRATION_VARIABLE
from tests.e2e.up import running

pytestmark = pytest.mark.e2e


def environment_of(pid: int | None) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_only_migrations_get_the_owners_url_and_a_newer_database_is_refused(
    home: Path,
) -> None:
    async with running(home) as up:
        await up.says("ready after")
        secrets = (up.data / "secrets.json").read_text()
        for child in ("api", "worker"):
            given = environment_of(up.pid_of(child))
            assert "segmentql_service" in given["SEGMENTQL_DATABASE_URL"]
            assert given[MIGRATION_VARIABLE] == ""
            assert "segmentql_owner" not in str(given)
        port = environment_of(up.pid_of("api"))["SEGMENTQL_DATABASE_URL"].split(":")[-1]
        owner = secrets.split('"owner": "')[1].split('"')[0]
        connection = await asyncpg.connect(f"postgresql://segmentql_owner:{owner}@127.0.0.1:{port}")
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        await connection.close()
        assert await up.stop() == 0
    async with running(home) as up:
        assert await up.ends() == 1
        assert (
            f"Error: the database is at revision 9999, which this version ({version('segmentql')})"
            " does not know; update SegmentQL\n"
        ) in up.said
        assert "Traceback" not in up.said
