"""Every audited change leaves exactly one entry, and nothing else leaves one."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction
from segmentql.keys import service as keys
from segmentql.principal import Actor
from segmentql.rollouts.actors import INTERNAL_FAILURE, advance_rollout
from segmentql.rollouts.passes import MAX_FAILURES
from segmentql.segments.service import create_segment, update_segment
from tests.audit.clients import Client, log, summary
from tests.conftest import Api, Sql
from tests.keys.clients import make_key
from tests.operations import parse_timestamp
from tests.rollouts.helpers import store_users
from tests.timeline import database_now

DOCUMENT = (Path(__file__).parents[2] / "docs" / "audit-log.md").read_text()
FIELDS = {
    action: (re.findall(r"`(\w+)`", before), re.findall(r"`(\w+)`", after))
    for action, before, after in re.findall(
        r"^\| `(\w+\.\w+)` \| `\w+` \|(.*)\|(.*)\|$", DOCUMENT, re.MULTILINE
    )
}
"""The documented fields of `before` and `after`, by action."""

ADA = Actor("ada", "adaadaadaada", "req-ada")


@pytest.fixture
async def ada(auth_api: Api, database: Database, sql: Sql) -> Client:
    """A client with the role ADMIN. The log has no entry of its key."""
    client = Client(auth_api, await make_key(database, "ADMIN", "ada"))
    await empty_log(sql)
    return client


async def empty_log(sql: Sql) -> None:
    await sql.execute("DELETE FROM audit_log")


def assert_documented(entries: Sequence[Any]) -> None:
    """Check that the states have exactly the documented fields."""
    for entry in entries:
        before, after = FIELDS[entry["action"]]
        if entry["before"] is None:
            assert not before or entry["action"] == AuditAction.ROLLOUT_SET
        else:
            assert sorted(entry["before"]) == sorted(before)
        assert sorted(entry["after"] or ()) == sorted(after)


async def test_segment_changes_leave_one_entry_each(ada: Client, sql: Sql) -> None:
    started = await database_now(sql)
    await ada.change("createSegment", 'slug: "A", name: "Ä \\" name"', request_id="req-1")
    await ada.change("updateSegment", 'slug: "A", name: null, description: "d"', request_id="req-2")
    await ada.change("deleteSegment", 'slug: "A"', request_id="req-3")
    ended = await database_now(sql)
    deleted, updated, created = entries = await log(ada)
    assert [summary(entry) for entry in entries] == [
        ("segment.deleted", "seg_1", "ada", "req-3"),
        ("segment.updated", "seg_1", "ada", "req-2"),
        ("segment.created", "seg_1", "ada", "req-1"),
    ]
    first = {"slug": "A", "name": 'Ä " name', "description": None, "version": 1}
    second = {"slug": "A", "name": None, "description": "d", "version": 2}
    assert (created["before"], created["after"]) == (None, first)
    assert (updated["before"], updated["after"]) == (first, second)
    assert (deleted["before"], deleted["after"]) == ({**second, "rollout": None}, None)
    assert_documented(entries)
    times = [parse_timestamp(entry["at"]) for entry in entries]
    assert started < times[2] < times[1] < times[0] < ended
    rows = await sql.fetch("SELECT DISTINCT api_key_id, segment_id FROM audit_log")
    assert [tuple(row) for row in rows] == [(ada.key.public_id, 1)]


async def test_rollout_changes_leave_one_entry_each(ada: Client, sql: Sql) -> None:
    await ada.change(
        "createSegment",
        'slug: "A", rollout: {expiresAt: "2030-01-01T00:00:00Z", stages: ['
        '{percent: 12.5, startsAt: "2028-01-01T01:00:00+01:00"},'
        ' {percent: 99.999, startsAt: "2029-01-01T00:00:00Z"}]}',
        request_id="req-1",
    )
    await ada.change("pauseRollout", 'slug: "A"', request_id="req-2")
    await ada.change("resumeRollout", 'slug: "A"', request_id="req-3")
    await ada.change(
        "setRollout",
        'slug: "A", rollout: {stages: [{percent: 3, startsAt: "2028-06-01T00:00:00Z"}],'
        " enrollNewUsers: false}",
        request_id="req-4",
    )
    await ada.change("cancelRollout", 'slug: "A"', request_id="req-5")
    *entries, created_segment = await log(ada)
    assert [summary(entry) for entry in entries] == [
        ("rollout.cancelled", "rol_1", "ada", "req-5"),
        ("rollout.set", "rol_1", "ada", "req-4"),
        ("rollout.resumed", "rol_1", "ada", "req-3"),
        ("rollout.paused", "rol_1", "ada", "req-2"),
        ("rollout.set", "rol_1", "ada", "req-1"),
    ]
    assert summary(created_segment) == ("segment.created", "seg_1", "ada", "req-1")
    first = {
        "slug": "A",
        "status": "SCHEDULED",
        "enrollNewUsers": True,
        "expiresAt": "2030-01-01T00:00:00.000000Z",
        "stages": [
            {"percent": 12.5, "startsAt": "2028-01-01T00:00:00.000000Z"},
            {"percent": 99.999, "startsAt": "2029-01-01T00:00:00.000000Z"},
        ],
        "failure": None,
    }
    cancelled, replaced, resumed, paused, set_first = entries
    assert (set_first["before"], set_first["after"]) == (None, first)
    assert (paused["before"], paused["after"]) == (first, {**first, "status": "PAUSED"})
    delayed = resumed["after"]["stages"]  # by the length of the pause
    assert resumed["before"] == paused["after"]
    assert resumed["after"] == {**first, "stages": delayed}
    assert [stage["percent"] for stage in delayed] == [12.5, 99.999]
    assert delayed[0]["startsAt"] > first["stages"][0]["startsAt"]  # type: ignore[index]
    second = {
        "slug": "A",
        "status": "SCHEDULED",
        "enrollNewUsers": False,
        "expiresAt": None,
        "stages": [{"percent": 3.0, "startsAt": "2028-06-01T00:00:00.000000Z"}],
        "failure": None,
    }
    assert (replaced["before"], replaced["after"]) == (resumed["after"], second)
    assert (cancelled["before"], cancelled["after"]) == (second, {**second, "status": "CANCELLED"})
    assert_documented(entries)


async def test_withdrawal_is_the_status_after_the_cancellation(
    ada: Client, sql: Sql, database: Database
) -> None:
    await store_users(sql, 10)
    await ada.change("createSegment", 'slug: "A", rollout: {percent: 100}')
    await advance_rollout(database, 1)
    await empty_log(sql)
    await ada.change("cancelRollout", 'slug: "A", withdraw: true')
    await advance_rollout(database, 1)
    (entry,) = await log(ada)
    assert entry["before"]["status"] == "COMPLETED"
    assert entry["after"] == {**entry["before"], "status": "WITHDRAWING"}


async def test_deletion_of_a_segment_records_its_rollout_in_one_entry(
    ada: Client, sql: Sql
) -> None:
    await ada.change("createSegment", 'slug: "A", rollout: {percent: 7}')
    _, set_rollout = (await log(ada))[::-1]
    await empty_log(sql)
    await ada.change("deleteSegment", 'slug: "A"')
    (entry,) = await log(ada)
    assert (entry["action"], entry["target"], entry["after"]) == ("segment.deleted", "seg_1", None)
    assert entry["before"]["rollout"] == {**set_rollout["after"], "status": "RUNNING"}
    assert_documented([entry])


async def test_failed_rollout_is_recorded_once_by_the_worker(
    ada: Client, sql: Sql, database: Database
) -> None:
    await store_users(sql, 10)
    await ada.change("createSegment", 'slug: "A", rollout: {percent: 100}')
    await empty_log(sql)
    await sql.execute("ALTER TABLE memberships ADD CONSTRAINT nobody CHECK (user_id <> 5)")
    try:
        for _ in range(MAX_FAILURES):
            assert await log(ada) == []
            with pytest.raises(Exception, match="nobody"):
                await advance_rollout(database, 1)
        await advance_rollout(database, 1)  # nothing is left to do
    finally:
        await sql.execute("ALTER TABLE memberships DROP CONSTRAINT nobody")
    (entry,) = entries = await log(ada)
    assert summary(entry) == ("rollout.failed", "rol_1", None, None)
    assert (entry["before"]["status"], entry["before"]["failure"]) == ("RUNNING", None)
    assert entry["after"] == {**entry["before"], "status": "FAILED", "failure": INTERNAL_FAILURE}
    assert_documented(entries)


async def test_key_changes_leave_entries_without_a_secret(ada: Client, sql: Sql) -> None:
    document = """mutation { createApiKey(input: {name: "bob", role: READER}) {
      apiKey { id } token } }"""
    created = (await ada(document, request_id="req-1"))["createApiKey"]
    key_id, token = created["apiKey"]["id"], created["token"]
    await ada.change("revokeApiKey", f'id: "{key_id}"', request_id="req-2")
    await ada.change("revokeApiKey", f'id: "{key_id}"', request_id="req-3")  # changes nothing
    entries = await log(ada)
    state = {"name": "bob", "role": "READER"}
    assert [(*summary(entry), entry["before"], entry["after"]) for entry in entries] == [
        ("api_key.revoked", key_id, "ada", "req-2", state, None),
        ("api_key.created", key_id, "ada", "req-1", None, state),
    ]
    assert_documented(entries)
    stored = await sql.fetchval("SELECT string_agg(to_json(a)::text, '') FROM audit_log a")
    assert token.split("_")[2] not in stored


async def test_first_key_leaves_one_entry_without_an_actor(
    ada: Client, sql: Sql, database: Database
) -> None:
    for _ in range(2):
        await database.transaction(
            lambda session: keys.ensure_first_key(session, "sgql_firstfirst12_" + "a" * 64)
        )
    (entry,) = await log(ada)
    assert summary(entry) == ("api_key.created", "key_firstfirst12", None, None)
    assert (entry["before"], entry["after"]) == (None, {"name": "first", "role": "ADMIN"})


async def test_requested_reports_leave_one_entry_each(ada: Client, sql: Sql) -> None:
    await store_users(sql, 3)
    await ada.change("createReport", "userId: 3, year: 2024, month: 3, waitSeconds: 0")
    await ada.change("createReport", "year: 2024, month: 4, waitSeconds: 0", request_id="req-2")
    entries = await log(ada)
    assert [(*summary(entry), entry["before"], entry["after"]) for entry in entries] == [
        (
            "report.requested",
            "rep_2",
            "ada",
            "req-2",
            None,
            {"userId": None, "year": 2024, "month": 4, "withKeys": False},
        ),
        (
            "report.requested",
            "rep_1",
            "ada",
            "req-1",
            None,
            {"userId": "3", "year": 2024, "month": 3, "withKeys": False},
        ),
    ]
    assert_documented(entries)


async def test_requested_exports_leave_one_entry_each(ada: Client, sql: Sql) -> None:
    await ada.change("createSegment", 'slug: "A"')
    await empty_log(sql)
    await ada.change(
        "createExport", 'slug: "A", asOf: "2024-03-01T13:00:00+01:00", gzip: true, waitSeconds: 0'
    )
    (entry,) = entries = await log(ada)
    assert summary(entry) == ("export.requested", "exp_1", "ada", "req-1")
    assert (entry["before"], entry["after"]) == (
        None,
        {"slug": "A", "asOf": "2024-03-01T12:00:00.000000Z", "gzip": True},
    )
    assert_documented(entries)


async def test_every_action_is_tested_here() -> None:
    others = ("imports/test_audit.py", "documents/test_push.py")
    files = [Path(__file__), *(Path(__file__).parents[1] / name for name in others)]
    text_of_tests = "".join(file.read_text() for file in files)
    assert [action for action in AuditAction if f'"{action}"' not in text_of_tests] == []
    assert list(FIELDS) == [*AuditAction]


# --- Changes that are not made --------------------------------------------------------------------


async def test_rejected_mutations_leave_no_entry(ada: Client, sql: Sql) -> None:
    await ada.change("createSegment", 'slug: "A"')
    await ada.change("createSegment", 'slug: "B", rollout: {percent: 1}')
    await ada.change("cancelRollout", 'slug: "B"')
    await empty_log(sql)
    for mutation, arguments, code in (
        ("createSegment", 'slug: "A"', "SEGMENT_ALREADY_EXISTS"),
        ("createSegment", 'slug: "C", name: ""', "INVALID_INPUT"),
        (  # rejected after the segment was inserted
            "createSegment",
            'slug: "C", rollout: {percent: 1, expiresAt: "2020-01-01T00:00:00Z"}',
            "INVALID_INPUT",
        ),
        ("updateSegment", 'slug: "NONE", name: "x"', "SEGMENT_NOT_FOUND"),
        ("updateSegment", 'slug: "A", name: "x", expectedVersion: 9', "VERSION_CONFLICT"),
        ("deleteSegment", 'slug: "NONE"', "SEGMENT_NOT_FOUND"),
        ("deleteSegment", 'slug: "A", expectedVersion: 9', "VERSION_CONFLICT"),
        ("setRollout", 'slug: "NONE", rollout: {percent: 1}', "SEGMENT_NOT_FOUND"),
        ("pauseRollout", 'slug: "A"', "ROLLOUT_NOT_FOUND"),
        ("pauseRollout", 'slug: "B"', "ROLLOUT_STATE_CONFLICT"),
        ("resumeRollout", 'slug: "B"', "ROLLOUT_STATE_CONFLICT"),
        ("cancelRollout", 'slug: "B"', "ROLLOUT_STATE_CONFLICT"),
        ("createApiKey", 'name: "", role: READER', "INVALID_INPUT"),
        ("revokeApiKey", 'id: "key_aaaaaaaaaaaa"', "API_KEY_NOT_FOUND"),
        ("createReport", "userId: 1, year: 2024, month: 3", "USER_NOT_FOUND"),
        ("createReport", "year: 9999, month: 12", "INVALID_INPUT"),
        ("createExport", 'slug: "NONE"', "SEGMENT_NOT_FOUND"),
        ("createExport", 'slug: "A", asOf: "9999-01-01T00:00:00Z"', "INVALID_INPUT"),
    ):
        await ada.reject(mutation, arguments, code)
    assert await log(ada) == []


async def test_changes_without_an_effect_leave_no_entry(ada: Client, sql: Sql) -> None:
    await ada.change("createSegment", 'slug: "A", name: "n"')
    await empty_log(sql)
    await ada.change("updateSegment", 'slug: "A"')
    await ada.change("updateSegment", 'slug: "A", name: "n", description: null')
    assert await log(ada) == []


async def test_changes_of_users_and_memberships_leave_no_entry(ada: Client, sql: Sql) -> None:
    await ada.change("createSegment", 'slug: "A"')
    await empty_log(sql)
    await ada.change("createUser", "id: 1")
    await ada.change("updateUserSegments", 'userId: 1, add: ["A"]')
    await ada.change("updateUserSegments", 'userId: 1, remove: ["A"]')
    await ada.change("deleteUser", "id: 1")
    assert await log(ada) == []


async def test_rolled_back_change_leaves_no_entry(ada: Client, database: Database) -> None:
    async def create_and_fail(session: WriteSession) -> None:
        await create_segment(session, slug="A", name=None, description=None, actor=ADA)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await database.transaction(create_and_fail)
    assert await log(ada) == []


async def test_retried_transaction_leaves_one_entry(
    ada: Client, sql: Sql, database: Database
) -> None:
    await ada.change("createSegment", 'slug: "A"')
    await empty_log(sql)
    attempts = 0

    async def update(session: WriteSession) -> None:
        nonlocal attempts
        attempts += 1
        await update_segment(
            session,
            slug="A",
            name="new",
            description=None,
            expected_version=None,
            actor=Actor(request_id=f"attempt-{attempts}"),
        )
        if attempts == 1:
            await session.execute(
                text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END $$")
            )

    await database.transaction(update)
    assert attempts == 2
    assert [summary(entry) for entry in await log(ada)] == [
        ("segment.updated", "seg_1", None, "attempt-2")
    ]


async def test_state_without_a_form_in_json_is_an_error(database: Database) -> None:
    async def record(session: WriteSession) -> None:
        await audit.record(
            session,
            actor=ADA,
            action=AuditAction.SEGMENT_CREATED,
            target="seg_1",
            after={"slug": object()},  # type: ignore[dict-item]
        )

    with pytest.raises(TypeError):
        await database.transaction(record)


async def test_concurrent_changes_of_one_segment_are_in_order(ada: Client, sql: Sql) -> None:
    await ada.change("createSegment", 'slug: "A"')
    await asyncio.gather(
        *(ada.change("updateSegment", f'slug: "A", name: "n{number}"') for number in range(12))
    )
    *changes, created = await log(ada)
    states = [created["after"], *(entry["after"] for entry in reversed(changes))]
    assert [state["version"] for state in states] == [*range(1, 14)]
    assert [entry["before"] for entry in reversed(changes)] == states[:-1]
