"""Rejected, repeated and ineffective changes leave no entry of their own."""

import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction
from segmentql.principal import Actor
from segmentql.segments.service import create_segment, update_segment
from tests.audit.clients import Client, log, summary
from tests.audit.entries import empty_log
from tests.conftest import Sql

ADA = Actor("ada", "adaadaadaada", "req-ada")


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
