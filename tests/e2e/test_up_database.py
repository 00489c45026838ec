"""Only migrations get the owner's URL, and `segmentql up` rejects a newer schema."""

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
async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def test_owner_url_is_private_and_unsupported_schema_is_rejected(
    home: Path,
) -> None:
    async with running(home) as up:
        await up.wait_for_output("ready after")
        secrets = (up.data / "secrets.json").read_text()
        for child in ("api", "worker"):
            environment = environment_of(up.pid_of(child))
            assert "segmentql_service" in environment["SEGMENTQL_DATABASE_URL"]
            assert environment[MIGRATION_VARIABLE] == ""
            assert "segmentql_owner" not in str(environment)
        port = environment_of(up.pid_of("api"))["SEGMENTQL_DATABASE_URL"].split(":")[-1]
        owner = secrets.split('"owner": "')[1].split('"')[0]
        url = f"postgresql://segmentql_owner:{owner}@127.0.0.1:{port}"
        await execute(url, "UPDATE alembic_version SET version_num = '9999'")
        assert await up.stop() == 0
    async with running(home) as up:  # the schema supports this version
        await up.wait_for_output("ready after")
        await execute(url, "UPDATE schema_compatibility SET oldest_revision = '9999'")
        assert await up.stop() == 0
    async with running(home) as up:
        assert await up.wait_for_exit() == 1
        assert (
            f"Error: the database is at revision 9999, which this version ({version('segmentql')})"
            " does not know and which supports only versions from revision 9999;"
            " update SegmentQL\n"
        ) in up.output
        assert "Traceback" not in up.output
