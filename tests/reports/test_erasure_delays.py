"""A series of erasures restarts a report once, after a delay with a maximum."""

from segmentql.adapters.jobs import Message
from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext
from segmentql.reports import key_erasure
from segmentql.reports.actors import make_report
from segmentql.reports.file_kind import REPORT_FILES
from segmentql.reports.jobs import MAKE_REPORT
from tests.conftest import Api, Sql
from tests.reports.erased_keys import (
    ALICE,
    BOB,
    CAROL,
    KEYS,
    Files,
    erase,
    pass_delay,
    row,
    users_with,
)
from tests.reports.queries import report


async def test_series_of_erasures_restarts_a_report_once(
    api: Api, sql: Sql, report_context: FileContext, files: Files, *, ready: None
) -> None:
    await erase(api, ALICE)
    await pass_delay(sql, key_erasure.REMAKE_DELAY_SECONDS / 2)
    await erase(api, BOB)
    await pass_delay(sql, key_erasure.REMAKE_DELAY_SECONDS / 2)
    await make_report(report_context, 1)
    waiting = await row(sql)
    assert (waiting["state"], waiting["attempts"]) == ("QUEUED", 0)
    # The time counts from the first erasure.
    age = (waiting["now"] - waiting["remade_at"]).total_seconds()
    assert age >= key_erasure.REMAKE_DELAY_SECONDS
    assert (await report(api, "rep_1"))["downloadUrl"] is None
    await pass_delay(sql, key_erasure.REMAKE_DELAY_SECONDS / 2)
    await make_report(report_context, 1)
    assert (await row(sql))["state"] == "READY"
    assert CAROL in await users_with(files)
    await erase(api, CAROL)
    waiting = await row(sql)
    assert (waiting["now"] - waiting["remade_at"]).total_seconds() < 5


async def test_erasures_delay_a_restart_by_at_most_the_maximum(
    api: Api, sql: Sql, report_context: FileContext, *, ready: None
) -> None:
    await erase(api, ALICE)
    half_delay = key_erasure.REMAKE_DELAY_SECONDS / 2
    await pass_delay(sql, key_erasure.MAX_REMAKE_DELAY_SECONDS - half_delay)
    await erase(api, BOB)
    await make_report(report_context, 1)
    assert (await row(sql))["attempts"] == 0
    await pass_delay(sql, half_delay)
    await erase(api, CAROL)
    await make_report(report_context, 1)
    assert (await row(sql))["state"] == "READY"


async def test_interrupted_attempt_restarts_after_the_delay(
    api: Api, sql: Sql, report_context: FileContext, *, ready: None
) -> None:
    await erase(api, ALICE)
    await pass_delay(sql, key_erasure.MAX_REMAKE_DELAY_SECONDS + 60)
    attempt = await report_context.database.transaction(
        lambda session: attempts.claim(session, REPORT_FILES, 1)
    )
    assert attempt is not None
    await erase(api, BOB)
    await make_report(report_context, 1)
    interrupted = await row(sql)
    assert (interrupted["state"], interrupted["attempts"]) == ("QUEUED", 0)
    wait = (interrupted["next_attempt_at"] - interrupted["now"]).total_seconds()
    assert key_erasure.REMAKE_DELAY_SECONDS - 5 < wait <= key_erasure.REMAKE_DELAY_SECONDS
    await erase(api, CAROL)
    assert (await row(sql))["next_attempt_at"] == interrupted["next_attempt_at"]


async def test_erasure_does_not_delay_a_report_that_was_never_started(
    api: Api, sql: Sql, report_context: FileContext, files: Files, *, requested: None
) -> None:
    await erase(api, ALICE)
    await make_report(report_context, 1)
    assert (await row(sql))["state"] == "READY"
    assert await users_with(files) == {BOB, CAROL}


async def test_series_of_erasures_sends_one_message(
    sql: Sql, report_context: FileContext, sent: list[Message], *, ready: None
) -> None:
    sent.clear()
    for user_id in KEYS:
        await report_context.database.transaction(
            lambda session, user_id=user_id: key_erasure.remake_reports_with_keys(  # type: ignore[misc]
                session, [user_id]
            )
        )
    delay_seconds = key_erasure.REMAKE_DELAY_SECONDS
    assert [message for message in sent if message.job == MAKE_REPORT] == [
        Message(MAKE_REPORT, (1,), delay_seconds=delay_seconds)
    ]
