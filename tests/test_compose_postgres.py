"""The script of compose.yaml's PostgreSQL creates the roles and the database."""

import asyncio
import os
import subprocess
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from segmentql.local import LocalServers, with_database
from segmentql.local.accounts import server_account
from segmentql.local.binaries import find_postgres_bin
from segmentql.settings import child_environment
from tests.compose_file import ROOT


async def test_first_start_of_postgres_creates_roles_and_database(
    servers: LocalServers, tmp_path: Path
) -> None:
    """The script of an empty volume runs on a server that has roles of these names."""
    text = (ROOT / "compose/postgres/roles.sh").read_text()
    script = tmp_path / "roles.sh"
    script.write_text(text.replace("segmentql", "compose"))
    superuser = make_url(servers.superuser_url)
    programs = find_postgres_bin(server_account())
    passwords = {"owner": 'it\'s "owner"', "service": "a $service\\"}
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", str(script)],
        env=child_environment(
            {
                "PATH": f"{programs}:{os.environ['PATH']}",
                "POSTGRES_USER": str(superuser.username),
                **{f"POSTGRES_{role.upper()}_PASSWORD": value for role, value in passwords.items()},
                "PGHOST": str(superuser.host),
                "PGPORT": str(superuser.port),
                "PGPASSWORD": str(superuser.password),
            }
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    sql = await asyncpg.connect(with_database(servers.superuser_url, "postgres"))
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        for role, password in passwords.items():
            connection = await asyncpg.connect(
                host=superuser.host,
                port=superuser.port,
                user=f"compose_{role}",
                password=password,
                database="compose",
            )
            may_make = await connection.fetchval("SELECT has_schema_privilege('public', 'CREATE')")
            await connection.close()
            assert may_make is (role == "owner")
    finally:
        await sql.execute("DROP DATABASE IF EXISTS compose")
        await sql.execute("DROP ROLE IF EXISTS compose_owner, compose_service")
        await sql.close()
