"""Cancellations, deadlines and passed ends of imports."""

import pytest

from segmentql.errors import MutationRejected
from segmentql.imports import service
from segmentql.imports.actors import advance_import, clean_up_imports
from segmentql.principal import NO_ACTOR
from tests.conftest import Api, Sql
from tests.imports.lists import APPLY, CANCEL, START, Imports, counts, lines_of_result
from tests.imports.test_decisions import conflict, state, tomorrow
from tests.operations import make_segments, update_user_segments
from tests.rollouts.helpers import members


async def test_cancelled_import_keeps_what_was_applied(
    api: Api, imports: Imports, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segmentql.imports.chunks.CHUNK_USERS", 2)
    monkeypatch.setattr("segmentql.imports.actors.MAX_RUN_SECONDS", -1)
    await make_segments(api, "a")
    for user_id in (7, 8, 9):
        await update_user_segments(api, user_id, add=["a"])
    started = await imports.start(b"1\n2\n3\n", mode="REPLACE")
    for _ in range(3):
        await advance_import(imports.context, 1)
    payload = await imports.send(CANCEL, id=started["id"])
    assert payload["import"]["removals"] == 2
    await imports.work(started["id"])
    finished = await imports.read(started["id"])
    assert (finished["status"], finished["failure"]) == ("CANCELLED", None)
    assert counts(finished) == {"JOINED": 3}
    assert set(await members(sql, 1)) == {1, 2, 3, 9}


async def test_cancelled_dry_run_reached_no_user(api: Api, imports: Imports, sql: Sql) -> None:
    await make_segments(api, "a")
    validated = await imports.run(b"user_id\n1\n1\n2\n", dryRun=True)
    payload = await imports.send(CANCEL, id=validated["id"])
    assert counts(payload["import"]) == {"HEADER": 1, "DUPLICATE": 1, "NOT_REACHED": 2}
    await imports.finish(validated["id"])
    finished = await imports.read(validated["id"])
    assert [line.split(",")[3] for line in await lines_of_result(finished)] == [
        "HEADER",
        "NOT_REACHED",
        "DUPLICATE",
        "NOT_REACHED",
    ]


@pytest.mark.parametrize("status", ["AWAITING_UPLOAD", "VALIDATED", "HELD"])
@pytest.mark.parametrize("is_late", [True, False])
async def test_imports_that_wait_too_long_are_cancelled(
    api: Api, imports: Imports, sql: Sql, status: str, *, is_late: bool
) -> None:
    await make_segments(api, "a")
    if status == "AWAITING_UPLOAD":
        waiting = await imports.create(b"1\n")
    else:
        waiting = await imports.run(b"", mode="REPLACE", dryRun=status == "VALIDATED")
    assert waiting["status"] == status
    days = 1 if status == "AWAITING_UPLOAD" else 7
    remaining = await sql.fetchval("SELECT extract(epoch FROM deadline_at - now()) FROM imports")
    assert 0 <= days * 86400 - remaining < 60
    seconds = days * 86400 + (0 if is_late else -60)
    await sql.execute(
        "UPDATE imports SET deadline_at = deadline_at - make_interval(secs => $1)", seconds
    )
    await clean_up_imports(imports.context)
    read = await imports.read(waiting["id"])
    if not is_late:
        assert read["status"] == status
        return
    missed = "`startImport` was not called within 24 hours"
    if status != "AWAITING_UPLOAD":
        missed = "`applyImport` was not called within 7 days"
    assert (read["status"], read["failure"]) == ("CANCELLED", missed)
    assert (
        await sql.fetchval(
            "SELECT count(*) FROM audit_log WHERE action = 'import.cancelled' AND actor IS NULL"
        )
        == 1
    )


@pytest.mark.parametrize("status", ["AWAITING_UPLOAD", "VALIDATED", "HELD"])
async def test_import_is_cancelled_if_it_is_started_or_applied_after_its_deadline(
    api: Api, imports: Imports, sql: Sql, status: str
) -> None:
    await make_segments(api, "a")
    await update_user_segments(api, 7, add=["a"])
    if status == "AWAITING_UPLOAD":
        waiting = await imports.create(b"1\n")
    else:
        waiting = await imports.run(b"", mode="REPLACE", dryRun=status == "VALIDATED")
    assert waiting["status"] == status
    await sql.execute("UPDATE imports SET deadline_at = now() - interval '1 s'")
    mutation = START if status == "AWAITING_UPLOAD" else APPLY
    fields = {} if status == "AWAITING_UPLOAD" else {"allowRemovals": 9}
    payload = await imports.send(mutation, id=waiting["id"], **fields)
    assert conflict(payload) == ("ImportStateConflict", "IMPORT_STATE_CONFLICT", ["id"])
    assert payload["errors"][0]["message"] == (
        "The import's status CANCELLED does not allow this mutation."
    )
    await imports.work(waiting["id"])
    read = await imports.read(waiting["id"])
    assert (read["status"], read["failure"].partition(" was not called")[1]) == (
        "CANCELLED",
        " was not called",
    )
    assert set(await members(sql, 1)) == {7}


@pytest.mark.parametrize("step", ["start", "apply"])
async def test_deadline_that_passes_during_the_request_changes_nothing(
    api: Api, imports: Imports, sql: Sql, step: str
) -> None:
    await make_segments(api, "a")
    await (imports.create(b"1\n") if step == "start" else imports.run(b"1\n", dryRun=True))
    await sql.execute("UPDATE imports SET deadline_at = now() - interval '1 s'")
    before = await state(sql)
    with pytest.raises(MutationRejected):
        await imports.context.database.transaction(
            lambda session: (
                service.start_import(session, 1, "imports/files/x", actor=NO_ACTOR)
                if step == "start"
                else service.apply_import(session, 1, allowed_removals=None, actor=NO_ACTOR)
            )
        )
    assert await state(sql) == before


async def test_passed_end_of_memberships_fails_the_import(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    validated = await imports.run(b"1\n", dryRun=True, expiresAt=await tomorrow(sql))
    await sql.execute(
        """UPDATE imports SET options = options || '{"expires_at": "2020-01-01T00:00:00+00:00"}'"""
    )
    await imports.send(APPLY, id=validated["id"])
    await imports.work(validated["id"])
    finished = await imports.read(validated["id"])
    assert (finished["status"], finished["failure"]) == (
        "FAILED",
        "`expiresAt` passed before all users were added",
    )
    assert counts(finished) == {"NOT_REACHED": 1}
    assert await members(sql, 1) == {}
