"""`segmentql keys` creates, lists and revokes keys from a shell, without the API."""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from segmentql.adapters.database import Database
from segmentql.settings import Settings
from segmentql.tables import Role
from tests.conftest import Api, Sql, environment
from tests.keys.clients import Key, make_key, query_data, revoke, stored_rows

pytestmark = pytest.mark.slow  # each test starts a process of the command

FIRST = "sgql_firstfirst12_" + "c" * 64

RunKeys: TypeAlias = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def keys(auth_settings: Settings, sql: Sql, tmp_path: Path) -> RunKeys:
    """Return a function that runs `segmentql keys` in an empty folder.

    The function returns the exit status, the output and the errors.
    """

    async def run(*arguments: str, **changes: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segmentql", "keys", *arguments),
            cwd=tmp_path,
            env=environment(auth_settings, **changes),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()

    return run


async def test_create_prints_only_the_key_which_then_works(keys: RunKeys, auth_api: Api) -> None:
    status, output, errors = await keys("create", "--name", "Ada", "--role", "editor")
    assert status == 0
    match = re.fullmatch(r"(sgql_([a-z0-9]{12})_[0-9a-f]{64})\n", output)
    assert match
    token, public_id = match.groups()
    assert errors == f"key_{public_id}, EDITOR; save this key, it is not shown again:\n"
    assert await query_data(auth_api, Key(public_id, token), "{ viewer { name role } }") == {
        "viewer": {"name": "Ada", "role": "EDITOR"}
    }


async def test_each_role_can_be_created(keys: RunKeys, sql: Sql) -> None:
    for role in Role:
        assert (await keys("create", "--name", "ada", "--role", role))[0] == 0
    stored = await sql.fetch("SELECT role FROM api_keys ORDER BY number")
    assert [row["role"] for row in stored] == ["EVALUATOR", "READER", "EDITOR", "ADMIN"]


async def test_invalid_key_options_are_rejected_and_create_nothing(keys: RunKeys, sql: Sql) -> None:
    before = await stored_rows(sql)
    for arguments, message in (
        (("--name", "", "--role", "READER"), "the name has 0 characters"),
        (("--name", "a" * 256, "--role", "READER"), "the name has 256 characters"),
        (("--name", "a", "--role", "OWNER"), "'OWNER' is not one of"),
        (("--name", "a"), "Missing option '--role'"),
        (("--role", "READER"), "Missing option '--name'"),
    ):
        status, output, errors = await keys("create", *arguments)
        assert (status, output) == (2, "")
        assert message in errors
    assert await stored_rows(sql) == before


async def test_list_is_a_table_with_the_newest_key_first(
    keys: RunKeys, database: Database, sql: Sql
) -> None:
    created = [
        await make_key(database, "ADMIN", "root"),
        await make_key(database, "READER", "two\nlines\x1b[31m"),
    ]
    await revoke(database, created[0])
    await sql.execute(
        """
        UPDATE api_keys SET created_at = '2024-03-01 10:00:00Z';
        UPDATE api_keys SET revoked_at = '2024-03-02 11:00:00Z',
            last_used_at = '2024-03-02 10:59:00Z' WHERE number = 1
        """
    )
    first, second = (f"key_{key.public_id}" for key in created)
    status, output, errors = await keys("list")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert [re.split("  +", line) for line in lines] == [
        ["ID", "NAME", "ROLE", "CREATED", "LAST USED", "REVOKED"],
        [second, r"two\nlines\x1b[31m", "READER", "2024-03-01 10:00:00", "-", "-"],
        [
            first,
            "root",
            "ADMIN",
            *(f"2024-03-0{at}:00" for at in ("1 10:00", "2 10:59", "2 11:00")),
        ],
    ]
    columns = [lines[0].index(title) for title in ("NAME", "ROLE", "CREATED", "REVOKED")]
    assert [[line[column - 1] for column in columns] for line in lines] == [[" "] * 4] * 3


async def test_list_has_each_of_many_keys_once(keys: RunKeys, sql: Sql) -> None:
    await sql.execute(
        """
        INSERT INTO api_keys (public_id, name, role, secret_hash, created_at)
        SELECT lpad(n::text, 12, '0'), 'ada', 'READER', sha256('x'), now()
        FROM generate_series(1, 1001) AS n
        """
    )
    _, output, _ = await keys("list")
    listed = [line.split()[0] for line in output.splitlines()[1:]]
    assert listed == [f"key_{number:012}" for number in range(1001, 0, -1)]


async def test_revoke_is_idempotent_and_accepts_both_forms_of_the_id(
    keys: RunKeys, database: Database, sql: Sql
) -> None:
    key = await make_key(database, "EDITOR", "ada")
    status, output, errors = await keys("revoke", f"key_{key.public_id}")
    assert (status, errors) == (0, "")
    assert re.fullmatch(
        rf"key_{key.public_id} \(ada\) was revoked at [-0-9]+ [:0-9]+ UTC\n", output
    )
    before = await stored_rows(sql)
    assert await keys("revoke", key.public_id) == (0, output, "")
    assert await stored_rows(sql) == before


async def test_revoking_an_unknown_key_fails_without_quoting_a_secret(
    keys: RunKeys, database: Database, sql: Sql
) -> None:
    key = await make_key(database, "EDITOR", "ada")
    before = await stored_rows(sql)
    assert await keys("revoke", "key_aaaaaaaaaaaa") == (
        1,
        "",
        "Error: No API key has the id key_aaaaaaaaaaaa.\n",
    )
    status, output, errors = await keys("revoke", key.token)
    assert (status, output) == (2, "")
    assert "the value is not a key id" in errors
    assert key.token.split("_")[2][:8] not in errors
    assert await stored_rows(sql) == before


async def test_first_key_comes_from_a_setting_and_is_stored_once(
    keys: RunKeys, auth_api: Api, sql: Sql
) -> None:
    results = await asyncio.gather(
        *(keys("ensure-first", SEGMENTQL_FIRST_KEY=FIRST) for _ in range(3))
    )
    assert sorted(results) == [
        (0, "stored the first key\n", ""),
        (0, "the first key is already stored; nothing changed\n", ""),
        (0, "the first key is already stored; nothing changed\n", ""),
    ]
    key = Key("firstfirst12", FIRST)
    assert await query_data(auth_api, key, "{ viewer { name role } }") == {
        "viewer": {"name": "first", "role": "ADMIN"}
    }


async def test_changes_of_keys_leave_audit_entries_without_an_actor(
    keys: RunKeys, sql: Sql
) -> None:
    _, _, errors = await keys("create", "--name", "Ada", "--role", "editor")
    key_id = errors.split(",")[0]
    for _ in range(2):  # only the first time changes something
        await keys("ensure-first", SEGMENTQL_FIRST_KEY=FIRST)
        await keys("revoke", key_id)
    rows = await sql.fetch(
        "SELECT action, target, actor, api_key_id, request_id FROM audit_log ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        ("api_key.created", key_id, None, None, None),
        ("api_key.created", "key_firstfirst12", None, None, None),
        ("api_key.revoked", key_id, None, None, None),
    ]


async def test_malformed_first_key_is_named_but_not_quoted(keys: RunKeys, sql: Sql) -> None:
    status, output, errors = await keys("ensure-first", SEGMENTQL_FIRST_KEY=FIRST[:-1] + "G")
    assert (status, output) == (1, "")
    assert (
        "SEGMENTQL_FIRST_KEY: the value is not an API key; allowed: sgql_, 12 characters of"
        in errors
    )
    assert "cccccccc" not in errors
    status, output, errors = await keys("ensure-first")
    assert (status, errors) == (1, "Error: SEGMENTQL_FIRST_KEY is not set\n")
    assert await sql.fetchval("SELECT count(*) FROM api_keys") == 0


async def test_unreachable_database_is_reported_in_one_line(keys: RunKeys) -> None:
    unreachable = "postgresql://segmentql_service:the-password@127.0.0.1:1/segmentql"
    for arguments in (("create", "--name", "a", "--role", "ADMIN"), ("list",)):
        assert await keys(*arguments, SEGMENTQL_DATABASE_URL=unreachable) == (
            1,
            "",
            "Error: the database does not respond in time; run `segmentql doctor` for details\n",
        )
