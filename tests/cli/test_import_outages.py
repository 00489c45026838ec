"""`segmentql import` survives an API that does not respond for a moment, and follows no redirect.

A test takes a second or more, because each import waits for the worker.
"""

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from segmentql.cli.api_client import ApiClient, Unavailable
from tests.cli.api_process import RunImport, listening
from tests.conftest import Api, Sql, until
from tests.network_cut import NetworkLink

STATUS = "SELECT status FROM imports"
MEMBERS = "SELECT array_agg(user_id ORDER BY user_id) FROM memberships"


async def test_outage_during_the_import_is_waited_for(
    import_list: RunImport, api: Api, address: str, sql: Sql
) -> None:
    async with NetworkLink(address).open() as link:
        command = asyncio.create_task(import_list(b"5\n", "--url", link.url))

        async def is_queued() -> bool:
            return bool(await sql.fetchval(STATUS) == "QUEUED")

        await until(is_queued)
        link.cut()
        attempts = link.attempts
        await until(lambda: link.was_attempted(attempts + 2))
        link.restore()
        await api('mutation { cancelImport(input: {id: "imp_1"}) { errors { message } } }')
        result = await command
    assert result.code == 1
    assert result.output == "The import imp_1 was cancelled. What was applied stays.\n"


async def test_long_outage_ends_the_command_and_names_the_import(
    import_list: RunImport, address: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segmentql.cli.polling.MAX_OUTAGE_SECONDS", 0.2)
    async with NetworkLink(address).open() as link:
        command = asyncio.create_task(import_list(b"5\n", "--url", link.url))

        async def is_queued() -> bool:
            return bool(await sql.fetchval(STATUS) == "QUEUED")

        await until(is_queued)
        link.cut()
        result = await command
    assert (result.code, result.output, result.errors.count("\n")) == (1, "", 1)
    assert result.errors.endswith(' The import imp_1 may continue: query import(id: "imp_1").\n')


@pytest.mark.usefixtures("import_worker")
async def test_lost_response_to_the_start_does_not_start_twice(
    import_list: RunImport, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate = ApiClient.mutate
    lost: list[object] = []

    def lose_first_response(client: ApiClient, document: str, **fields: object) -> Any:
        payload = mutate(client, document, **fields)
        if "startImport" in document and not lost:
            lost.append(payload)
            raise Unavailable("The response was lost.")
        return payload

    monkeypatch.setattr(ApiClient, "mutate", lose_first_response)
    result = await import_list(b"5\n")
    assert (result.code, len(lost), await sql.fetchval(MEMBERS)) == (0, 1, [5])


async def test_redirect_does_not_get_the_api_key(
    import_list: RunImport, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[str] = []

    async def other(request: Request) -> Response:
        received.append(request.headers.get("authorization", ""))
        return JSONResponse({"data": None})

    async def redirect(request: Request) -> Response:
        return RedirectResponse(elsewhere, status_code=302)

    monkeypatch.setenv("SEGMENTQL_API_KEY", "sgql_secret")
    async with listening(Starlette(routes=[Route("/", other, methods=["GET", "POST"])])) as url:
        elsewhere = url + "/"
        app = Starlette(routes=[Route("/graphql", redirect, methods=["POST"])])
        async with listening(app) as address:
            result = await import_list(b"5\n", "--url", address)
    assert (result.code, received) == (1, [])
    assert "it responds with HTTP 302 and no GraphQL" in result.errors
