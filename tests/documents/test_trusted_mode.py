"""What a service that executes only stored documents needs at its start, and its own clients."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from segmentql.command_documents import COMMAND_DOCUMENTS
from segmentql.errors import SettingsError
from segmentql.schema import document_errors
from segmentql.settings import Settings, require_pages_for_trusted_documents
from tests.cli.api_process import listening, run_command
from tests.conftest import Api, Sql, environment
from tests.documents.requests import id_of, send
from tests.timeline import add_membership, make_segment


def test_graphiql_must_be_off(settings: Settings, trusted_settings: Settings) -> None:
    require_pages_for_trusted_documents(settings)
    require_pages_for_trusted_documents(trusted_settings)
    with pytest.raises(SettingsError) as raised:
        require_pages_for_trusted_documents(trusted_settings.model_copy(update={"graphiql": "on"}))
    assert "Set SEGMENTQL_GRAPHIQL=off" in str(raised.value)


async def test_serve_explains_the_setting(settings: Settings) -> None:
    variables = {**environment(settings), "SEGMENTQL_DOCUMENTS": "trusted"}
    result = await run_command("serve", stdin=None, **variables)
    assert result.code == 1
    assert "Set SEGMENTQL_GRAPHIQL=off" in result.errors


async def test_documents_of_commands_are_valid(settings: Settings) -> None:
    assert list(document_errors(settings, COMMAND_DOCUMENTS)) == []


@pytest.mark.parametrize("document", COMMAND_DOCUMENTS)
async def test_documents_of_commands_need_no_push(trusted: Api, document: str) -> None:
    """Most of them get an error for their missing variables, so they are known."""
    _, body = await send(trusted, documentId=id_of(document))
    codes = [error["extensions"]["code"] for error in body.get("errors", [])]
    assert codes != ["DOCUMENT_NOT_FOUND"]
    assert "BAD_REQUEST" in codes


async def test_changes_command_works(trusted: Api, sql: Sql, tmp_path: Path) -> None:
    segment_id = await make_segment(sql, "a")
    await add_membership(sql, 7, segment_id)
    transport: Any = trusted.http._transport
    async with listening(transport.app) as address:
        result = await run_command(
            *("changes", "--from", "earliest", "--no-follow"), SEGMENTQL_URL=address
        )
    assert (result.code, result.errors) == (0, "")
    (line,) = result.output.splitlines()
    assert orjson.loads(line)["userId"] == "7"
