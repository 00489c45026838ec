"""Every audited change leaves exactly one entry."""

import asyncio
from pathlib import Path

import pytest

from segmentql.adapters.database import Database
from segmentql.audit.records import AuditAction
from segmentql.keys import service as keys
from segmentql.rollouts.actors import INTERNAL_FAILURE, advance_rollout
from segmentql.rollouts.passes import MAX_FAILURES
from tests.audit.clients import Client, log, summary
from tests.audit.entries import FIELDS, assert_documented, empty_log
from tests.conftest import Sql
from tests.operations import parse_timestamp
from tests.rollouts.helpers import store_users
from tests.timeline import database_now


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


async def test_concurrent_changes_of_one_segment_are_in_order(ada: Client, sql: Sql) -> None:
    await ada.change("createSegment", 'slug: "A"')
    await asyncio.gather(
        *(ada.change("updateSegment", f'slug: "A", name: "n{number}"') for number in range(12))
    )
    *changes, created = await log(ada)
    states = [created["after"], *(entry["after"] for entry in reversed(changes))]
    assert [state["version"] for state in states] == [*range(1, 14)]
    assert [entry["before"] for entry in reversed(changes)] == states[:-1]
