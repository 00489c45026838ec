"""`deleteUser(eraseKey: true)` erases the key from imports and their files."""

from typing import Any

import pytest

from segmentql.adapters.storage import Storage
from segmentql.imports.actors import filter_import_result
from segmentql.objects.actors import ObjectContext, delete_objects
from tests.conftest import Api, Sql
from tests.imports.lists import APPLY, Imports, counts, id_list, lines_of_result, mask_of
from tests.imports.stored_objects import object_keys
from tests.operations import create_user, delete_user, make_segments
from tests.query_plans import captured_statements, scanned_rows
from tests.rollouts.helpers import members
from tests.users.test_erase_key import KEY, OTHER, places_with

LIST = f"{KEY}\n{OTHER}\n{KEY}\n".encode()


async def store_users(api: Api) -> None:
    await make_segments(api, "a")
    await create_user(api, id="1", key=KEY)
    await create_user(api, id="2", key=OTHER)


@pytest.mark.parametrize("mode", ["ADD", "REMOVE"])
async def test_staged_user_becomes_unknown(api: Api, imports: Imports, sql: Sql, mode: str) -> None:
    await store_users(api)
    validated = await imports.run(LIST, identity="KEY", dryRun=True, mode=mode)
    assert await places_with(sql, KEY) == {
        "users.key",
        "import_rows.user_key",
        "import_users.user_key",
    }
    await delete_user(api, KEY, eraseKey=True)
    assert await places_with(sql, KEY) == set()
    await imports.send(APPLY, id=validated["id"])
    await imports.work(validated["id"])
    finished = await imports.read(validated["id"])
    other = "JOINED" if mode == "ADD" else "NOT_IN"
    assert counts(finished) == {"UNKNOWN_USER": 1, other: 1, "DUPLICATE": 1}
    assert await lines_of_result(finished) == [
        "1,,,UNKNOWN_USER,",
        f"2,{OTHER},2,{other},",
        "3,,,DUPLICATE,",
    ]
    assert set(await members(sql, 1)) == ({2} if mode == "ADD" else set())
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_files_that_may_have_the_key_are_deleted(
    api: Api, imports: Imports, sql: Sql, storage: Storage
) -> None:
    await store_users(api)
    before = await object_keys(storage)
    finished = await imports.run(LIST, identity="KEY")
    assert await imports.filter(finished["id"], ["JOINED"])
    ids = await imports.run(b"7\n")
    await delete_user(api, KEY, eraseKey=True)
    read = await imports.read(finished["id"])
    assert (read["resultUrl"], counts(read)) == (None, {"JOINED": 2, "DUPLICATE": 1})
    assert await lines_of_result(await imports.read(ids["id"])) == ["1,7,7,JOINED,"]
    await filter_import_result(imports.context, 1, mask_of(["JOINED"]))
    await sql.execute("UPDATE objects_to_delete SET next_attempt_at = now()")
    await delete_objects(ObjectContext(imports.context.database, storage))
    kept = await sql.fetchval("SELECT result_key FROM imports WHERE id = 2")
    assert await object_keys(storage) - before == {kept}
    assert await places_with(sql, KEY) == set()


@pytest.mark.parametrize("rest", ["", " x", ",DE"])
async def test_rejected_row_of_a_list_of_ids_loses_the_key(
    api: Api, imports: Imports, sql: Sql, rest: str
) -> None:
    await store_users(api)
    finished = await imports.run(f"1\n{KEY}{rest}\n".encode(), maxRejected=1)
    assert KEY in finished["rejections"][0]["value"]
    await delete_user(api, KEY, eraseKey=True)
    read = await imports.read(finished["id"])
    assert [(r["line"], r["value"], r["reason"]) for r in read["rejections"]] == [
        (2, rest, "MALFORMED")
    ]
    assert read["resultUrl"] is None
    assert await places_with(sql, KEY) == set()


async def test_only_the_key_itself_is_erased(api: Api, imports: Imports, sql: Sql) -> None:
    await make_segments(api, "a", "b")
    await create_user(api, id="1", key="a")
    await create_user(api, id="2", key="a.*(b")
    values = ["banana", "a", "vitamin a", "a-b", "_a", "\u00e9a", "a.*(b", "aa.*(b", "a.x(b"]
    validated = await imports.run(
        "\n".join(["1", *values]).encode(), maxRejected=len(values), dryRun=True
    )
    assert [row["value"] for row in validated["rejections"]] == values
    refused = await imports.run(b"a,banana\n1,2\n")
    assert '1 "a", 2 "banana"' in refused["failure"]
    for user_id in (1, 2):
        assert (await delete_user(api, user_id, eraseKey=True))["errors"] == []
    kept = ["banana", "", "vitamin ", "-b", "_a", "\u00e9a", ".*(b", "aa.*(b", ".x(b"]
    read = await imports.read(validated["id"])
    assert [row["value"] for row in read["rejections"]] == kept
    staged = "SELECT value FROM import_rows WHERE import_id = 1 AND line > 1 ORDER BY line"
    assert [row["value"] for row in await sql.fetch(staged)] == kept
    failure = (await imports.read(refused["id"]))["failure"]
    assert failure == refused["failure"].replace('"a"', '""')


async def test_long_key_in_a_failure_is_erased(api: Api, imports: Imports) -> None:
    await make_segments(api, "a")
    key = "k" * 39 + "(" + "x" * 20
    await create_user(api, id="1", key=key)
    refused = await imports.run(f"{key},banana\n1,2\n".encode())
    assert key[:40] in refused["failure"]
    await delete_user(api, key, eraseKey=True)
    failure = (await imports.read(refused["id"]))["failure"]
    assert "kk" not in failure
    assert '2 "banana"' in failure


async def test_erasure_reads_no_other_staged_rows(api: Api, imports: Imports, sql: Sql) -> None:
    await store_users(api)
    await imports.run(LIST, identity="KEY", dryRun=True)
    await imports.run(id_list(range(1, 3001)), dryRun=True)
    keys = "".join(f"{number}@example.com\n" for number in range(3000))
    await imports.run(keys.encode(), identity="KEY", dryRun=True)
    with captured_statements() as sent:
        await delete_user(api, KEY, eraseKey=True)
    of_imports = [(s, p) for s, p in sent if "UPDATE import_" in s]
    assert len(of_imports) == 3
    for statement, parameters in of_imports:
        assert await scanned_rows(sql, statement, parameters) <= 4, statement
    assert await places_with(sql, KEY) == set()


async def test_result_that_is_made_while_the_key_is_erased_is_made_again(
    api: Api, imports: Imports, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_users(api)
    started = await imports.start(LIST, identity="KEY")
    upload = imports.context.storage.upload

    async def upload_late(*args: Any, **named: Any) -> int:
        size = await upload(*args, **named)
        monkeypatch.undo()
        await delete_user(api, KEY, eraseKey=True)
        return size

    monkeypatch.setattr(imports.context.storage, "upload", upload_late)
    await imports.work(started["id"])
    assert (await imports.read(started["id"]))["resultUrl"] is None
    await imports.finish(started["id"])
    assert await lines_of_result(await imports.read(started["id"])) == [
        "1,,,JOINED,",
        f"2,{OTHER},2,JOINED,",
        "3,,,DUPLICATE,",
    ]
