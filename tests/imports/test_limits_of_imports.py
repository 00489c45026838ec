"""Imports stay within their limits, and lists of segments ignore the format of files."""

import pytest

from segmentql.imports import forecast, parsing, result
from segmentql.imports.file_format import FileRefused, ListFormat
from tests.conftest import Api, Sql
from tests.imports.lists import CREATE, Imports, counts
from tests.operations import make_segments, update_user_segments


@pytest.mark.parametrize("mode", ["ADD", "REPLACE"])
async def test_list_of_segments_is_read_by_ids_whatever_the_identity(
    api: Api, sql: Sql, imports: Imports, mode: str
) -> None:
    await make_segments(api, "a", "b")
    for user_id in (1, 2, 3):
        await update_user_segments(api, user_id, add=["b"])
    payload = await imports.send(
        CREATE,
        slug="a",
        mode=mode,
        identity="KEY",
        column="user_key",
        source={"segments": {"anyOf": ["b"]}},
    )
    await imports.work(payload["import"]["id"])
    finished = await imports.read(payload["import"]["id"])
    assert (finished["status"], counts(finished)) == ("COMPLETED", {"JOINED": 3})
    assert await sql.fetchval("SELECT count(*) FROM memberships WHERE segment_id = 1") == 3


def test_file_with_too_many_lines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "MAX_LINES", 3)
    assert sum(map(len, parsing.read_rows([b"1\n2\n"], ListFormat()))) == 2
    with pytest.raises(FileRefused, match="more than 3 lines"):
        list(parsing.read_rows([b"1\n2\n3\n4\n"], ListFormat()))


async def test_import_has_few_files_with_some_outcomes(
    api: Api, imports: Imports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result, "MAX_FILTERED_FILES", 1)
    await make_segments(api, "a")
    finished = await imports.run(b"1\n1\n\n")
    assert await imports.filter(finished["id"], ["JOINED"])
    document = """
    query Read($id: ID!, $outcomes: [RowOutcome!]) {
      import(id: $id) { resultUrl(outcomes: $outcomes) }
    }
    """
    # Outcomes that no row has make no further file.
    read = await api(document, id=finished["id"], outcomes=["JOINED", "LEFT"])
    assert read["import"]["resultUrl"]
    error = await api.error(document, id=finished["id"], outcomes=["BLANK"])
    assert error["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "argument": "outcomes",
        "limit": 1,
        "value": 2,
    }


OLD_STATISTICS = """
INSERT INTO import_rows (import_id, line, user_id) SELECT 9, n, n FROM generate_series(1, 2000) n;
INSERT INTO import_users (import_id, number, line, user_id, outcome)
    SELECT 9, n, n, n, 'JOINED' FROM generate_series(1, 2000) n;
ANALYZE import_rows, import_users;
DELETE FROM import_rows;
DELETE FROM import_users;
"""


async def test_no_statement_joins_the_staged_rows_by_a_nested_loop(
    api: Api, sql: Sql, imports: Imports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With such statistics the planner expects few rows of an import.

    A nested loop would read 10,000 x 10,000 rows, which takes longer than these timeouts.
    """
    monkeypatch.setattr(forecast, "FORECAST_TIMEOUT_SECONDS", 5)
    monkeypatch.setattr(result, "RESULT_TIMEOUT_SECONDS", 5)
    await make_segments(api, "a")
    await sql.execute(OLD_STATISTICS)
    finished = await imports.run("".join(f"{n}\n" for n in range(1, 10_001)).encode())
    assert (finished["status"], finished["resultUrl"] is not None) == ("COMPLETED", True)
