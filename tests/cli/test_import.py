"""`segmentql import` uploads a list through the API and reports what became of each row.

A test with a worker takes a second or more, because each import waits for the worker.
"""

import asyncio
import gzip
import hashlib
import os
from pathlib import Path

import pytest

from tests.cli.api_process import RunImport, run_command
from tests.conftest import Api, Sql
from tests.operations import make_segments

MEMBERS = "SELECT array_agg(user_id ORDER BY user_id) FROM memberships"


@pytest.mark.usefixtures("import_worker")
async def test_list_is_imported_and_its_rows_are_counted(import_list: RunImport, sql: Sql) -> None:
    result = await import_list(b"user_id\n7\n5\n7\n\n")
    assert (result.code, result.output) == (
        0,
        "The import imp_1 was completed.\n"
        "  HEADER        1\n"
        "  BLANK         1\n"
        "  JOINED        2\n"
        "  DUPLICATE     1\n"
        "  all rows      5\n",
    )
    assert result.errors == (
        'The outcome of each row: query import(id: "imp_1") { resultUrl }, or use --result FILE.\n'
    )
    assert await sql.fetchval(MEMBERS) == [5, 7]
    source = await sql.fetchval("SELECT source::text FROM imports")
    digest = hashlib.sha256(b"user_id\n7\n5\n7\n\n").hexdigest()
    assert digest in source
    assert "list.csv" in source


@pytest.mark.usefixtures("import_worker")
async def test_options_reach_the_api(import_list: RunImport, sql: Sql) -> None:
    result = await import_list(
        b"name;mail\nx;ada\n",
        *("--keys", "--column-number", "2", "--header", "present", "--delimiter", "semicolon"),
        *("--ttl", "60", "--on-existing", "keep", "--on-excluded", "admit"),
        *("--on-unknown-user", "store", "--max-rejected", "3", "--max-removed-percent", "1.5"),
    )
    assert result.code == 0, result.errors
    assert await sql.fetchval("SELECT key FROM users") == "ada"
    end = "SELECT expires_at - joined_at = interval '60 s' FROM memberships"
    assert await sql.fetchval(end)
    stored = await sql.fetchval("SELECT options::text FROM imports")
    for value in ('"KEY"', '"PRESENT"', '"SEMICOLON"', '"KEEP"', '"ADMIT"', "1.5"):
        assert value in stored
    result = await import_list(b"5\n", "--expires-at", "2031-01-01T00:00:00+02:00")
    assert result.code == 0, result.errors
    end = "SELECT expires_at = '2030-12-31T22:00:00Z' FROM memberships WHERE user_id = 5"
    assert await sql.fetchval(end)
    result = await import_list(b"5\n", "--mode", "remove", "--no-exclude")
    assert (result.code, await sql.fetchval("SELECT count(*) FROM exclusions")) == (0, 0)
    assert "1 members were removed." in result.output


@pytest.mark.usefixtures("import_worker")
async def test_rejected_rows_are_printed_and_give_another_exit_code(
    import_list: RunImport, sql: Sql
) -> None:
    result = await import_list(b"5\nx\n" + b"0\n" * 24, "--max-rejected", "25")
    assert result.code == 3
    lines = result.output.splitlines()
    first = lines.index("Rejected rows:") + 1
    assert lines[first].startswith("  line 2, 'x': ")
    assert lines[first + 19].startswith("  line 21, '0': ")
    assert lines[first + 20 :] == ["  and 5 more"]
    assert await sql.fetchval(MEMBERS) == [5]


@pytest.mark.usefixtures("import_worker")
async def test_refused_file_gives_its_reason(import_list: RunImport, sql: Sql) -> None:
    result = await import_list(b"5\n\x1b[31m\n")
    assert result.code == 5
    assert "The import imp_1 was refused. Nothing was changed.\n" in result.output
    assert "  line 2, '\\x1b[31m': " in result.output
    assert result.errors.startswith("Error: ")
    result = await import_list(b"PK\x03\x04rest", "--result", "missing/result.csv")
    assert (result.code, result.output.count("\n")) == (5, 1)
    assert "zip" in result.errors
    assert "missing/result.csv is not written, because the import has no result." in result.errors
    assert await sql.fetchval(MEMBERS) is None


@pytest.mark.usefixtures("import_worker")
async def test_dry_run_changes_nothing_and_explains_how_to_apply_it(
    import_list: RunImport, sql: Sql
) -> None:
    result = await import_list(b"5\n6\n", "--dry-run")
    assert result.code == 0
    assert result.output == (
        "The dry run imp_1 is done. Nothing was changed. The expected outcomes are:\n"
        "  JOINED        2\n"
        "  all rows      2\n"
    )
    assert result.errors == (
        "To apply it, run segmentql import --apply imp_1 within 7 days, or call applyImport with"
        " this id.\n"
    )
    assert await sql.fetchval(MEMBERS) is None


@pytest.mark.slow  # carries out seven imports
@pytest.mark.usefixtures("import_worker")
async def test_held_import_is_applied_with_enough_removals(
    import_list: RunImport, sql: Sql
) -> None:
    everybody = b"".join(b"%d\n" % user_id for user_id in range(1, 101))
    assert (await import_list(everybody)).code == 0
    replacement = (b"1\n", "--mode", "replace")
    result = await import_list(*replacement, "--dry-run")
    assert result.code == 4
    result = await import_list(*replacement)
    assert result.code == 4
    assert "99 members would be removed." in result.output
    assert "--allow-removals 99" in result.errors
    result = await import_list(*replacement, "--allow-removals", "98")
    assert (result.code, await sql.fetchval("SELECT count(*) FROM memberships")) == (4, 100)
    result = await import_list(*replacement, "--allow-removals", "99")
    assert (result.code, await sql.fetchval(MEMBERS)) == (0, [1])
    assert "99 members were removed." in result.output
    result = await import_list(b"", "--mode", "replace")
    assert (result.code, await sql.fetchval(MEMBERS)) == (4, [1])
    result = await import_list(b"", "--mode", "replace", "--allow-empty")
    assert (result.code, await sql.fetchval(MEMBERS)) == (0, None)


@pytest.mark.usefixtures("import_worker")
async def test_earlier_dry_run_is_applied(
    import_list: RunImport, address: str, sql: Sql, tmp_path: Path
) -> None:
    assert (await import_list(b"5\n6\n", "--dry-run")).code == 0
    result_file = tmp_path / "result.csv"
    apply = ("import", "--apply", "imp_1", "--result", str(result_file))
    result = await run_command(*apply, SEGMENTQL_URL=address)
    assert (result.code, result.output) == (
        0,
        "The import imp_1 was completed.\n  JOINED        2\n  all rows      2\n",
    )
    assert result_file.read_bytes().splitlines()[1:] == [b"1,5,5,JOINED,", b"2,6,6,JOINED,"]
    assert await sql.fetchval(MEMBERS) == [5, 6]
    again = await run_command("import", "--apply", "imp_1", SEGMENTQL_URL=address)
    assert (again.code, again.output, again.errors) == (
        2,
        "",
        "Error: The import's status COMPLETED does not allow this mutation.\n",
    )


@pytest.mark.usefixtures("import_worker")
async def test_held_import_is_applied_by_its_id(
    import_list: RunImport, address: str, sql: Sql
) -> None:
    await import_list(b"5\n6\n")
    held = await import_list(b"", "--mode", "replace")
    assert held.code == 4
    assert held.errors.endswith(
        "To apply it, run segmentql import --apply imp_2 --allow-removals 2 within 7 days, or call"
        " applyImport with this id and allowRemovals 2.\n"
    )
    for allowed in ([], ["--allow-removals", "1"]):
        result = await run_command("import", "--apply", "imp_2", *allowed, SEGMENTQL_URL=address)
        assert (result.code, result.output) == (4, held.output)
        assert result.errors == held.errors
    result = await run_command(
        "import", "--apply", "imp_2", "--allow-removals", "2", SEGMENTQL_URL=address
    )
    assert (result.code, await sql.fetchval(MEMBERS)) == (0, None)
    assert "2 members were removed." in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--apply", "imp_1"), "Error: No import has this id."),
        (("--apply", "5"), "is not an import id"),
        (("--apply", "imp_1", "--segment", "a"), "--apply and --segment exclude each other."),
        (("--apply", "imp_1", "--mode", "add"), "--apply and --mode exclude each other."),
        (("--apply", "imp_1", "--dry-run"), "--apply and --dry-run exclude each other."),
        (("--apply", "imp_1", "-"), "--apply and FILE exclude each other."),
        (("--segment", "a"), "FILE and --segment are required, except with --apply."),
        (("-",), "FILE and --segment are required, except with --apply."),
        ((), "FILE and --segment are required, except with --apply."),
    ],
)
@pytest.mark.usefixtures("api")
async def test_command_needs_a_list_or_the_id_of_an_import(
    address: str, arguments: tuple[str, ...], message: str
) -> None:
    result = await run_command("import", *arguments, stdin=b"5\n", SEGMENTQL_URL=address)
    assert (result.code, result.output) == (2, "")
    assert message in result.errors


@pytest.mark.usefixtures("import_worker")
async def test_result_is_written_to_a_file_or_to_standard_output(
    import_list: RunImport, tmp_path: Path
) -> None:
    rows = "line,value,user_id,outcome,detail\n1,7,7,JOINED,\n2,7,7,DUPLICATE,\n"
    path = tmp_path / "result.csv"
    result = await import_list(b"7\n7\n", "--result", str(path))
    assert (result.code, path.read_text()) == (0, rows)
    assert result.errors == f"The outcome of each row is in {path}.\n"
    assert sorted(os.listdir(tmp_path)) == ["list.csv", "result.csv"]
    result = await import_list(b"7\n", "--result", str(tmp_path / "missing" / "result.csv"))
    assert result.code == 1
    assert "No such file or directory" in result.errors


@pytest.mark.usefixtures("import_worker")
async def test_standard_input_is_imported(address: str, api: Api, sql: Sql) -> None:
    await make_segments(api, "a")
    packed = gzip.compress(b"7\n8\n")
    result = await run_command(
        "import", "-", "--segment", "a", "--url", f"{address}/graphql/", stdin=packed
    )
    assert (result.code, await sql.fetchval(MEMBERS)) == (0, [7, 8])
    assert "fileName" not in await sql.fetchval("SELECT source::text FROM imports")


@pytest.mark.usefixtures("import_worker")
async def test_pipe_is_copied_before_the_upload(
    address: str, api: Api, sql: Sql, tmp_path: Path
) -> None:
    await make_segments(api, "a")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = run_command("import", str(pipe), "--segment", "a", SEGMENTQL_URL=address)
    _, result = await asyncio.gather(asyncio.to_thread(pipe.write_bytes, b"7\n"), command)
    assert (result.code, await sql.fetchval(MEMBERS)) == (0, [7])
