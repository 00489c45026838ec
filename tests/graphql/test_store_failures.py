"""An object store that cannot be used is `UNAVAILABLE`, and not a fault of the service."""

from pathlib import Path
from typing import Any

import pytest

from segmentql.adapters.s3 import S3
from segmentql.errors import StoreUnavailable
from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving
from tests.imports.lists import CREATE, START
from tests.operations import make_segments

LINK = '{ report(id: "rep_1") { status downloadUrl } }'
UPLOAD = {"slug": "a", "source": {"upload": {"sizeBytes": 2}}}


@pytest.fixture
def keyless(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Return settings without keys, for which the default chain finds nothing."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return settings.model_copy(update={"s3_access_key": None, "s3_secret_key": None})


async def test_link_without_credentials_is_unavailable(keyless: Settings, sql: Sql) -> None:
    await sql.execute(
        """
        INSERT INTO reports
            (user_id, year, month, status, created_at, next_attempt_at, finished_at, object_key,
                row_count, size_bytes)
        VALUES (7, 2024, 3, 'READY', now(), now(), now(), 'reports/x.csv', 0, 1)
        """
    )
    async with serving(keyless) as api:
        body = await api.body(LINK)
    assert body["data"] == {"report": {"status": "READY", "downloadUrl": None}}
    (error,) = body["errors"]
    assert error["message"] == "The object store is unavailable; the field was not read."
    assert error["extensions"] == {"code": "UNAVAILABLE"}


async def test_import_without_credentials_for_its_link_is_not_created(
    keyless: Settings, sql: Sql
) -> None:
    async with serving(keyless) as api:
        await make_segments(api, "a")
        error = await api.error(CREATE, input=UPLOAD)
    assert error["message"] == "The object store is unavailable; nothing was changed."
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert await sql.fetchval("SELECT count(*) FROM imports") == 0


async def test_import_is_not_created_if_credentials_vanish_after_their_check(
    api: Api, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The credentials vanish between the check and the signature of the upload link."""
    await make_segments(api, "a")

    async def find_no_credentials(_: S3) -> None:
        raise StoreUnavailable("there are no credentials")

    with monkeypatch.context() as patch:
        patch.setattr(S3, "signer", find_no_credentials)
        response = await api.http.post(
            "/graphql",
            json={"query": CREATE, "variables": {"input": UPLOAD}},
            headers={"idempotency-key": "a key"},
        )
    (error,) = response.json()["errors"]
    assert error["message"] == "The object store is unavailable; nothing was changed."
    assert await sql.fetchval("SELECT count(*) FROM imports") == 0
    assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == 0
    assert (await api(CREATE, input=UPLOAD))["createImport"]["upload"]["method"] == "PUT"


INVALID: list[tuple[str, dict[str, Any], list[str]]] = [
    ("createImport", {**UPLOAD, "slug": "a b"}, ["slug"]),
    ("createImport", {**UPLOAD, "slug": "unknown"}, ["slug"]),
    ("startImport", {"id": "1"}, ["id"]),
    ("createReport", {"userId": 1, "year": 2024, "month": 13}, ["month"]),
    ("createExport", {"slug": "unknown"}, ["slug"]),
]


@pytest.mark.usefixtures("sql")
@pytest.mark.parametrize(("field", "values", "path"), INVALID)
async def test_invalid_input_is_rejected_without_credentials(
    keyless: Settings, field: str, values: dict[str, Any], path: list[str]
) -> None:
    input_type = f"{field[0].upper()}{field[1:]}Input"
    query = (
        f"mutation M($input: {input_type}!) {{ {field}(input: $input) {{ errors {{ path }} }} }}"
    )
    async with serving(keyless) as api:
        body = await api.body(query, input=values)
    assert body["data"] == {field: {"errors": [{"path": path}]}}, body


@pytest.mark.slow  # the store is tried three times, with pauses
async def test_import_is_not_started_without_the_store(
    settings: Settings, api: Api, sql: Sql
) -> None:
    await make_segments(api, "a")
    created = (await api(CREATE, input=UPLOAD))["createImport"]["import"]
    closed = settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:1"})
    async with serving(closed) as storeless:
        error = await storeless.error(START, input={"id": created["id"]})
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert await sql.fetchval("SELECT status::text FROM imports") == "AWAITING_UPLOAD"
