"""`createImport` rejects invalid input with a path, and then changes nothing."""

from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from tests.conftest import Api, Sql
from tests.imports.lists import APPLY, CANCEL, CREATE, START, Imports, counts
from tests.imports.test_decisions import state
from tests.keys.clients import KeyClient, make_key
from tests.operations import delete_segment, make_segments
from tests.timeline import database_now

UPLOAD = {"upload": {"sizeBytes": 2}}


async def rejected(imports: Imports, sql: Sql, **fields: Any) -> list[tuple[str, list[str]]]:
    """Send an invalid `createImport`; return its errors as code and path."""
    before = await state(sql)
    payload = await imports.send(CREATE, **{"slug": "a", "source": UPLOAD, **fields})
    assert (payload["import"], payload["upload"]) == (None, None)
    assert await state(sql) == before
    return [(error["code"], error["path"]) for error in payload["errors"]]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"slug": ""}, ["slug"]),
        ({"slug": "a b"}, ["slug"]),
        ({"column": ""}, ["column"]),
        ({"column": "x" * 256}, ["column"]),
        ({"column": "a\0b"}, ["column"]),
        ({"columnNumber": 0}, ["columnNumber"]),
        ({"columnNumber": -1}, ["columnNumber"]),
        ({"column": "x", "columnNumber": 1}, ["columnNumber"]),
        ({"ttlSeconds": 0}, ["ttlSeconds"]),
        ({"ttlSeconds": 315360001}, ["ttlSeconds"]),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, ["expiresAt"]),
        ({"expiresAt": "2999-01-01T00:00:00Z"}, ["expiresAt"]),
        ({"ttlSeconds": 60, "expiresAt": "2999-01-01T00:00:00Z"}, ["expiresAt"]),
        ({"mode": "REMOVE", "ttlSeconds": 60}, ["ttlSeconds"]),
        ({"mode": "REMOVE", "expiresAt": "2030-01-01T00:00:00Z"}, ["expiresAt"]),
        ({"maxRejected": -1}, ["maxRejected"]),
        ({"maxRemovedPercent": -0.1}, ["maxRemovedPercent"]),
        ({"maxRemovedPercent": 100.1}, ["maxRemovedPercent"]),
        ({"source": {"upload": {"sizeBytes": -1}}}, ["source", "upload", "sizeBytes"]),
        ({"source": {"upload": {"sizeBytes": 268435457}}}, ["source", "upload", "sizeBytes"]),
        (
            {"source": {"upload": {"sizeBytes": 1, "fileName": ""}}},
            ["source", "upload", "fileName"],
        ),
        (
            {"source": {"upload": {"sizeBytes": 1, "fileName": "x" * 256}}},
            ["source", "upload", "fileName"],
        ),
        (
            {"source": {"upload": {"sizeBytes": 1, "fileName": "x\0"}}},
            ["source", "upload", "fileName"],
        ),
        (
            {"source": {"upload": {"sizeBytes": 1, "sha256": "0" * 63}}},
            ["source", "upload", "sha256"],
        ),
        ({"source": {"segments": {}}}, ["source", "segments"]),
        ({"source": {"segments": {"anyOf": []}}}, ["source", "segments"]),
        ({"source": {"segments": {"noneOf": ["a"]}}}, ["source", "segments"]),
        ({"source": {"segments": {"anyOf": ["a"] * 101}}}, ["source", "segments"]),
        (
            {"source": {"segments": {"anyOf": ["a"] * 50, "noneOf": ["a"] * 51}}},
            ["source", "segments"],
        ),
        ({"source": {"segments": {"allOf": ["a", "a b"]}}}, ["source", "segments", "allOf", "1"]),
        (
            {"source": {"segments": {"anyOf": ["a"], "asOf": "2999-01-01T00:00:00Z"}}},
            ["source", "segments", "asOf"],
        ),
    ],
)
async def test_invalid_field_is_rejected_by_name(
    api: Api, imports: Imports, sql: Sql, fields: dict[str, Any], path: list[str]
) -> None:
    await make_segments(api, "a")
    assert await rejected(imports, sql, **fields) == [("INVALID_INPUT", path)]


async def test_all_invalid_fields_are_named_at_once(api: Api, imports: Imports, sql: Sql) -> None:
    await make_segments(api, "a")
    errors = await rejected(imports, sql, slug="", ttlSeconds=0, maxRejected=-1)
    assert {tuple(path) for _, path in errors} == {("slug",), ("ttlSeconds",), ("maxRejected",)}


async def test_unknown_and_deleted_segments_are_rejected(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a", "gone")
    await delete_segment(api, "gone")
    for slug in ("gone", "never"):
        assert await rejected(imports, sql, slug=slug) == [("SEGMENT_NOT_FOUND", ["slug"])]
    source = {"segments": {"anyOf": ["a", "gone"], "allOf": ["never"], "noneOf": ["a", "gone"]}}
    assert await rejected(imports, sql, source=source) == [
        ("SEGMENT_NOT_FOUND", ["source", "segments", "anyOf", "1"]),
        ("SEGMENT_NOT_FOUND", ["source", "segments", "allOf", "0"]),
        ("SEGMENT_NOT_FOUND", ["source", "segments", "noneOf", "1"]),
    ]


async def test_null_means_the_default(api: Api, imports: Imports, sql: Sql) -> None:
    await make_segments(api, "a")
    defaults = [
        *("mode", "identity", "column", "columnNumber", "header", "delimiter", "ttlSeconds"),
        *("expiresAt", "onExisting", "onExcluded", "onUnknownUser", "exclude", "maxRejected"),
        *("maxRemovedPercent", "allowEmpty", "dryRun"),
    ]
    payload = await imports.send(CREATE, slug="a", source=UPLOAD, **dict.fromkeys(defaults))
    assert payload["errors"] == []
    await imports.send(CREATE, slug="a", source=UPLOAD)
    first, second = await sql.fetch("SELECT mode, options::text FROM imports ORDER BY id")
    assert first == second


async def test_largest_values_are_accepted(api: Api, imports: Imports, sql: Sql) -> None:
    await make_segments(api, "a")
    end = await database_now(sql) + timedelta(seconds=315_360_000 - 60)
    upload = {"sizeBytes": 268435456, "fileName": "x" * 255, "sha256": "A" * 64}
    payload = await imports.send(
        CREATE,
        slug="a",
        source={"upload": upload},
        column="x" * 255,
        expiresAt=end.isoformat(),
        maxRejected=2**53,
        maxRemovedPercent=100,
    )
    assert payload["errors"] == []
    assert payload["import"]["status"] == "AWAITING_UPLOAD"
    assert payload["upload"]["method"] == "PUT"


async def test_list_that_was_not_uploaded_cannot_be_started(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    created = await imports.create(b"1\n")
    await sql.execute("UPDATE imports SET upload_key = upload_key || 'x'")
    before = await state(sql)
    payload = await imports.send(START, id=created["id"])
    (error,) = payload["errors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["id"])
    assert error["message"].startswith("id is not valid: the file was not uploaded. Allowed: ")
    assert await state(sql) == before


@pytest.mark.parametrize(("mode", "is_allowed"), [("ADD", True), ("REPLACE", False)])
async def test_replace_needs_an_admin_at_each_step(
    *,
    auth_api: Api,
    database: Database,
    sql: Sql,
    imports: Imports,
    mode: str,
    is_allowed: bool,
) -> None:
    admin = KeyClient(auth_api, await make_key(database, "ADMIN", "ada"))
    editor = KeyClient(auth_api, await make_key(database, "EDITOR", "edith"))
    await make_segments(admin, "a")
    by_admin = Imports(admin, imports.context, imports.sent)

    async def is_done(mutation: str, **fields: Any) -> bool:
        before = await state(sql)
        body = await editor.body(mutation, input=fields)
        if "errors" not in body:
            return True
        (error,) = body["errors"]
        assert error["extensions"]["code"] == "FORBIDDEN"
        assert await state(sql) == before
        return False

    assert await is_done(CREATE, slug="a", source=UPLOAD, mode=mode) == is_allowed
    first = await by_admin.create(b"1\n", mode=mode, dryRun=True)
    assert await is_done(START, id=first["id"]) == is_allowed
    if not is_allowed:
        await by_admin.send(START, id=first["id"])
    await by_admin.work(first["id"])
    assert (await by_admin.read(first["id"]))["status"] == "VALIDATED"
    assert await is_done(APPLY, id=first["id"]) == is_allowed
    if not is_allowed:
        await by_admin.send(APPLY, id=first["id"])
    await by_admin.work(first["id"])
    finished = await by_admin.read(first["id"])
    assert (finished["status"], finished["actor"]) == ("COMPLETED", "ada")
    assert counts(finished) == {"JOINED": 1}
    second = await by_admin.create(b"1\n", mode=mode)
    assert await is_done(CANCEL, id=second["id"])
