"""Tests make exports in this process, as a worker would, with the real store."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.csv_files.generation import FileContext
from segmentql.exports.actors import make_export
from tests.conftest import Api
from tests.exports.queries import create_export, download, export, number

MakeFile: TypeAlias = Callable[..., Awaitable[str]]


@pytest.fixture
async def export_context(database: Database, storage: Storage) -> FileContext:
    return FileContext(database, storage, retention_days=30)


@pytest.fixture
async def make_file(api: Api, export_context: FileContext) -> MakeFile:
    """Return a function that makes an export and returns the text of its file."""

    async def made(slug: str = "a", **fields: Any) -> str:
        payload = await create_export(api, slug, **fields)
        assert payload["errors"] == []
        return await finish(payload["export"])

    async def finish(created: Any) -> str:
        await make_export(export_context, number(created["id"]))
        ready = await export(api, created["id"])
        assert (ready["status"], ready["failure"]) == ("READY", None)
        response = await download(ready["downloadUrl"])
        assert len(response.content) == ready["sizeBytes"]
        return response.text

    return made
