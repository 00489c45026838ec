"""Dry runs, safeguards, confirmations, cancellations and deadlines of imports."""

from datetime import timedelta
from typing import Any

import pytest

from segmentql.tables import ImportStatus
from tests.conftest import Api, Sql
from tests.imports.lists import APPLY, CANCEL, START, Imports, counts, id_list, lines_of_result
from tests.operations import make_segments, update_user_segments
from tests.rollouts.helpers import members
from tests.timeline import add_members, database_now, make_segment

FINISHED = ("COMPLETED", "REFUSED", "FAILED", "CANCELLED")


async def set_status(sql: Sql, status: str) -> None:
    """Give the only import a status."""
    await sql.execute(
        """
        UPDATE imports SET status = $1::import_status,
            finished_at = CASE WHEN $2 THEN now() END,
            deadline_at = CASE WHEN $3 THEN now() + interval '1 hour' END,
            next_attempt_at = CASE WHEN NOT $2 AND NOT $3 THEN now() + interval '1 hour' END
        """,
        status,
        status in FINISHED,
        status in {"AWAITING_UPLOAD", "VALIDATED", "HELD"},
    )


async def state(sql: Sql) -> list[str]:
    """Return all rows that a rejected mutation must not change."""
    return [
        str(row[0])
        for table in ("imports", "users", "memberships", "history", "audit_log", "import_users")
        for row in await sql.fetch(f"SELECT to_json(t)::text FROM {table} t ORDER BY 1")
    ]


async def tomorrow(sql: Sql) -> str:
    return (await database_now(sql) + timedelta(days=1)).isoformat()


def conflict(payload: Any) -> tuple[str, str, list[str]]:
    (error,) = payload["errors"]
    assert payload["import"] is None
    return error["__typename"], error["code"], error["path"]


async def test_dry_run_changes_nothing_until_it_is_applied(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    await update_user_segments(api, 1, add=["a"])
    validated = await imports.run(b"1\n2\n2\n", dryRun=True)
    assert (validated["status"], validated["progress"]) == ("VALIDATED", 0)
    assert (validated["failure"], validated["finishedAt"]) == (None, None)
    assert counts(validated) == {"ALREADY_IN": 1, "JOINED": 1, "DUPLICATE": 1}
    assert validated["resultUrl"] is None
    assert set(await members(sql, 1)) == {1}
    assert await sql.fetchval("SELECT count(*) FROM users") == 1
    payload = await imports.send(APPLY, id=validated["id"])
    applying = payload["import"]
    assert (applying["status"], counts(applying)) == (
        "APPLYING",
        {"DUPLICATE": 1, "NOT_REACHED": 2},
    )
    await imports.work(validated["id"])
    finished = await imports.read(validated["id"])
    assert (finished["status"], finished["progress"]) == ("COMPLETED", 1)
    assert counts(finished) == counts(validated)
    assert set(await members(sql, 1)) == {1, 2}


@pytest.mark.parametrize(
    ("existing", "removed", "percent", "status"),
    [
        (100, 20, 20, "COMPLETED"),
        (100, 21, 20, "HELD"),
        (99, 99, 20, "COMPLETED"),
        (200, 1, 0.5, "COMPLETED"),
        (200, 2, 0.5, "HELD"),
        (100, 1, 0, "HELD"),
        (100, 100, 100, "COMPLETED"),
    ],
)
@pytest.mark.parametrize("mode", ["REMOVE", "REPLACE"])
async def test_too_many_removals_are_held(
    *,
    imports: Imports,
    sql: Sql,
    existing: int,
    removed: int,
    percent: float,
    status: str,
    mode: str,
) -> None:
    segment_id = await make_segment(sql, "a")
    await add_members(sql, segment_id, existing)
    listed = range(1, removed + 1) if mode == "REMOVE" else range(removed + 1, existing + 1)
    stopped = await imports.run(
        id_list(listed), mode=mode, maxRemovedPercent=percent, allowEmpty=True
    )
    assert stopped["status"] == status
    assert stopped["removals"] == removed
    left = removed if status == "COMPLETED" else 0
    assert len(await members(sql, segment_id)) == existing - left
    if status == "HELD":
        assert stopped["failure"] == (
            f"the segment would lose {removed} of {existing} members, more than {percent} percent"
        )


async def test_held_import_needs_a_confirmation_of_its_removals(imports: Imports, sql: Sql) -> None:
    segment_id = await make_segment(sql, "a")
    await add_members(sql, segment_id, 100)
    held = await imports.run(id_list(range(31, 101)), mode="REPLACE")
    assert (held["status"], held["removals"], counts(held)) == ("HELD", 30, {"ALREADY_IN": 70})
    for allowed in ({}, {"allowRemovals": None}, {"allowRemovals": 29}):
        payload = await imports.send(APPLY, id=held["id"], **allowed)
        assert payload["errors"] == []
        assert payload["import"]["status"] == "HELD"
        assert payload["import"]["failure"] == held["failure"]
    assert len(await members(sql, segment_id)) == 100
    payload = await imports.send(APPLY, id=held["id"], allowRemovals=30)
    assert (payload["import"]["status"], payload["import"]["failure"]) == ("APPLYING", None)
    await imports.work(held["id"])
    finished = await imports.read(held["id"])
    assert (finished["status"], finished["removals"]) == ("COMPLETED", 30)
    assert set(await members(sql, segment_id)) == set(range(31, 101))


async def test_dry_run_with_too_many_removals_says_so_and_is_held_when_applied(
    imports: Imports, sql: Sql
) -> None:
    segment_id = await make_segment(sql, "a")
    await add_members(sql, segment_id, 100)
    validated = await imports.run(id_list(range(31, 101)), mode="REPLACE", dryRun=True)
    reason = "the segment would lose 30 of 100 members, more than 20 percent"
    assert (validated["status"], validated["failure"]) == ("VALIDATED", reason)
    payload = await imports.send(APPLY, id=validated["id"])
    assert (payload["import"]["status"], payload["import"]["failure"]) == ("HELD", reason)


async def test_import_held_by_allow_removals_still_needs_a_confirmation(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    for user_id in (1, 2):
        await update_user_segments(api, user_id, add=["a"])
    validated = await imports.run(b"3\n", mode="REPLACE", dryRun=True)
    assert (validated["failure"], validated["removals"]) == (None, 2)
    reason = "the segment would lose 2 members, and `allowRemovals` is 1"
    for allowed in ({"allowRemovals": 1}, {}, {"allowRemovals": 0}):
        payload = await imports.send(APPLY, id=validated["id"], **allowed)
        assert (payload["import"]["status"], payload["import"]["failure"]) == ("HELD", reason)
    payload = await imports.send(APPLY, id=validated["id"], allowRemovals=2)
    assert payload["import"]["status"] == "APPLYING"


@pytest.mark.parametrize("data", [b"", b"user_id\n", b"\n\n"])
async def test_empty_list_does_not_replace_the_members_unless_allowed(
    api: Api, imports: Imports, sql: Sql, data: bytes
) -> None:
    await make_segments(api, "a")
    await update_user_segments(api, 1, add=["a"])
    held = await imports.run(data, mode="REPLACE")
    assert (held["status"], held["removals"]) == ("HELD", 1)
    assert held["failure"] == "the list has no user, and the segment would lose 1 members"
    assert set(await members(sql, 1)) == {1}
    finished = await imports.run(data, mode="REPLACE", allowEmpty=True)
    assert (finished["status"], finished["removals"]) == ("COMPLETED", 1)
    assert await members(sql, 1) == {}
    assert sum(counts(finished).values()) == finished["rows"]


@pytest.mark.parametrize(("max_rejected", "status"), [(1, "REFUSED"), (2, "COMPLETED")])
async def test_more_rejected_rows_than_allowed_refuse_the_file(
    api: Api, imports: Imports, sql: Sql, max_rejected: int, status: str
) -> None:
    await make_segments(api, "a")
    finished = await imports.run(b"5\nx\n-1\n5\n", maxRejected=max_rejected)
    assert finished["status"] == status
    assert [r["line"] for r in finished["rejections"]] == [2, 3]
    if status == "REFUSED":
        assert counts(finished) == {"MALFORMED": 2, "NOT_REACHED": 2}
        assert finished["failure"] == (
            "2 rows are rejected, and `maxRejected` is 1; nothing was applied"
        )
        assert finished["removals"] is None
        lines = await lines_of_result(finished)
        assert [line.split(",")[3] for line in lines] == [
            "NOT_REACHED",
            "MALFORMED",
            "MALFORMED",
            "NOT_REACHED",
        ]
        assert await sql.fetchval("SELECT count(*) FROM users") == 0
    else:
        assert counts(finished) == {"JOINED": 1, "DUPLICATE": 1, "MALFORMED": 2}


@pytest.mark.parametrize("status", list(ImportStatus))
async def test_mutations_need_a_status(
    api: Api, imports: Imports, sql: Sql, status: ImportStatus
) -> None:
    await make_segments(api, "a")
    created = await imports.create(b"1\n")
    if status is not ImportStatus.AWAITING_UPLOAD:
        await set_status(sql, status)
    allowed: dict[str, set[str]] = {
        START: {"AWAITING_UPLOAD"},
        APPLY: {"VALIDATED", "HELD"},
        CANCEL: {str(status) for status in ImportStatus} - set(FINISHED),
    }
    for mutation, statuses in allowed.items():
        before = await state(sql)
        if status not in statuses:
            payload = await imports.send(mutation, id=created["id"])
            assert conflict(payload) == ("ImportStateConflict", "IMPORT_STATE_CONFLICT", ["id"])
            assert await state(sql) == before
    if status in allowed[CANCEL]:
        payload = await imports.send(CANCEL, id=created["id"])
        assert (payload["errors"], payload["import"]["status"]) == ([], "CANCELLED")
        assert payload["import"]["finishedAt"] is not None


@pytest.mark.parametrize("mutation", [START, APPLY, CANCEL])
@pytest.mark.parametrize(
    ("import_id", "expected"),
    [
        ("imp_7", ("ImportNotFound", "IMPORT_NOT_FOUND", ["id"])),
        ("7", ("InvalidInput", "INVALID_INPUT", ["id"])),
        ("seg_7", ("InvalidInput", "INVALID_INPUT", ["id"])),
        ("", ("InvalidInput", "INVALID_INPUT", ["id"])),
    ],
)
async def test_unknown_imports_are_rejected(
    imports: Imports, mutation: str, import_id: str, expected: Any
) -> None:
    assert conflict(await imports.send(mutation, id=import_id)) == expected
