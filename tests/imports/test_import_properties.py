"""Any list has the outcomes of an independent model, also if workers die at any transaction.

The forecast of a dry run equals the result. Dead workers are found by the periodic checks only. A
worker dies before or after the commit of a transaction, and does nothing afterwards.
"""

import asyncio
import contextlib
import csv
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.adapters.storage import Storage
from segmentql.imports import actors, chunks, reading, staging
from segmentql.imports.actors import ImportContext
from segmentql.objects.actors import ObjectContext, delete_objects
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Sql, empty_tables
from tests.imports.list_model import BAD_ROWS, TTL_HOURS, Options, State, run
from tests.imports.lists import APPLY, Imports, counts, download
from tests.imports.stored_objects import object_keys
from tests.rollouts.helpers import excluded, expected_sample, set_plan
from tests.timeline import HOUR, history_inconsistencies, make_segment

T = TypeVar("T")
USERS = range(1, 13)
STORED = range(1, 10)

pytestmark = [
    pytest.mark.slow,
    # The thread that sends jobs to Redis uses `random` meanwhile.
    pytest.mark.filterwarnings("ignore:Do not use the `random` module"),
]


class Killed(BaseException):
    """The worker's process has died."""


class DyingDatabase(Database):
    """The database of a worker that dies at its n-th transaction, before or after the commit."""

    def __init__(self, database: Database, transactions: int, *, commits: bool) -> None:
        self.__dict__ = dict(database.__dict__)
        self._left = transactions
        self._commits = commits

    async def transaction(
        self,
        work: Callable[[WriteSession], Awaitable[T]],
        *,
        seconds: float | None = None,
        dry_run: bool = False,
    ) -> T:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._commits):
            raise Killed
        result = await super().transaction(work, seconds=seconds, dry_run=dry_run)
        if self._left == 0:
            raise Killed
        return result


deaths = st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=4)


@st.composite
def lists(draw: st.DrawFn) -> tuple[Options, list[str]]:
    options = Options(
        mode=draw(st.sampled_from(["ADD", "REMOVE", "REPLACE"])),
        identity=draw(st.sampled_from(["ID", "KEY"])),
        has_ttl=draw(st.booleans()),
        on_existing=draw(st.sampled_from(["EXTEND", "REPLACE", "KEEP"])),
        on_excluded=draw(st.sampled_from(["SKIP", "ADMIT"])),
        on_unknown_user=draw(st.sampled_from(["STORE", "SKIP"])),
        exclude=draw(st.booleans()),
    )
    if options.mode == "REMOVE":
        options = replace(options, has_ttl=False)
    bad = sorted(BAD_ROWS) if options.identity == "ID" else [""]
    names = [name_of(user_id, options.identity) for user_id in USERS]
    return options, draw(st.lists(st.sampled_from([*names, *bad]), max_size=20))


def name_of(user_id: int, identity: str) -> str:
    return str(user_id) if identity == "ID" else f"key {user_id}"


async def store(sql: Sql, database: Database, kinds: list[str], percent: int | None) -> int:
    """Store a segment and its members; return the segment's id."""
    segment_id = await make_segment(sql, "a")
    await sql.execute(
        "INSERT INTO users (id, key, created_at)"
        " SELECT id, 'key ' || id, now() - interval '1 day' FROM unnest($1::bigint[]) AS id",
        list(STORED),
    )
    hours = {"manual": None, "short": 24, "long": 72, "expired": -1}
    for user_id, kind in zip(STORED, kinds, strict=True):
        if kind in hours:
            end = hours[kind]
            await sql.execute(
                """
                INSERT INTO memberships
                    (user_id, segment_id, joined_at, updated_at, expires_at, cause)
                SELECT $1, $2, at - interval '2 h', at - interval '2 h', at + $3::interval, 'MANUAL'
                FROM clock_timestamp() AS at
                """,
                user_id,
                segment_id,
                None if end is None else end * HOUR,
            )
        elif kind == "excluded":
            await sql.execute(
                "INSERT INTO exclusions (user_id, segment_id, excluded_at) VALUES ($1, $2, now())",
                user_id,
                segment_id,
            )
    if percent is not None:
        await set_plan(database, "a", percent)
        await advance_rollout(database, segment_id)
    return segment_id


async def read_state(sql: Sql, segment_id: int, identity: str) -> State:
    rows = await sql.fetch(
        """
        SELECT user_id, cause::text,
            round(extract(epoch FROM expires_at - clock_timestamp()) / 3600)::int AS hours
        FROM memberships WHERE segment_id = $1
          AND (expires_at IS NULL OR expires_at > clock_timestamp())
        """,
        segment_id,
    )
    users = await sql.fetch("SELECT id, coalesce(key, '') AS key FROM users")
    name = {row["id"]: str(row["id"]) if identity == "ID" else row["key"] for row in users}
    return State(
        set(name.values()),
        {name[row["user_id"]]: (row["cause"], row["hours"]) for row in rows},
        {name[user_id] for user_id in await excluded(sql, segment_id)},
    )


async def work(sql: Sql, database: Database, context: ImportContext, plan: list[Any]) -> None:
    """Run the workers, which die as planned, until the periodic checks find no more work."""
    while True:
        await sql.execute(
            "UPDATE imports SET next_attempt_at = next_attempt_at - interval '1 minute',"
            " finished_at = finished_at - interval '1 minute'"
        )
        messages = await actors.find_due(database)
        if not messages:
            return
        for message in messages:
            actor = {each.job: each.work for each in actors.ACTORS}[message.job]
            first = context
            if plan:
                transactions, commits = plan.pop()
                dying = DyingDatabase(database, transactions, commits=commits)
                first = replace(context, database=dying)
            results = await asyncio.gather(
                actor(first, *message.args),
                actor(context, *message.args),
                return_exceptions=True,
            )
            for result in results:
                assert result is None or isinstance(result, Killed), result


@contextlib.contextmanager
def small_chunks(users: int) -> Iterator[None]:
    with (
        mock.patch.object(chunks, "CHUNK_USERS", users),
        mock.patch.object(reading, "BATCH_ROWS", users),
        mock.patch.object(staging, "DELETE_ROWS", users),
        mock.patch.object(actors, "MAX_RUN_SECONDS", -1),
    ):
        yield


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    of_list=lists(),
    kinds=st.lists(
        st.sampled_from(["manual", "short", "long", "expired", "excluded", "none"]),
        min_size=len(STORED),
        max_size=len(STORED),
    ),
    percent=st.sampled_from([None, 30, 60]),
    chunk_users=st.integers(1, 6),
    plans=st.tuples(deaths, deaths),
)
async def test_lists_have_the_outcomes_of_the_model(
    *,
    sql: Sql,
    imports: Imports,
    storage: Storage,
    of_list: tuple[Options, list[str]],
    kinds: list[str],
    percent: int | None,
    chunk_users: int,
    plans: tuple[list[Any], list[Any]],
) -> None:
    options, rows = of_list
    context, database = imports.context, imports.context.database
    await delete_objects(ObjectContext(database, storage))
    await empty_tables(sql)
    objects_before = await object_keys(storage)
    segment_id = await store(sql, database, kinds, percent)
    before = await read_state(sql, segment_id, options.identity)
    ids = expected_sample(segment_id, STORED, percent or 0)
    sample = {name_of(user_id, options.identity) for user_id in ids}
    expected = run(rows, options, before, sample)
    fields: dict[str, Any] = {"ttlSeconds": TTL_HOURS * 3600} if options.has_ttl else {}
    data = "".join(f"{row}\n" for row in rows)
    with small_chunks(chunk_users):
        started = await imports.start(
            data.encode(),
            mode=options.mode,
            identity=options.identity,
            onExisting=options.on_existing,
            onExcluded=options.on_excluded,
            onUnknownUser=options.on_unknown_user,
            exclude=options.exclude,
            header="ABSENT",
            maxRejected=100,
            allowEmpty=True,
            dryRun=True,
            **fields,
        )
        await work(sql, database, context, plans[0])
        validated = await imports.read(started["id"])
        assert (validated["status"], validated["failure"]) == ("VALIDATED", None)
        assert (Counter(counts(validated)), validated["removals"]) == (
            expected.counts,
            expected.removals,
        )
        await imports.send(APPLY, id=started["id"])
        await work(sql, database, context, plans[1])
    finished = await imports.read(started["id"])
    assert (finished["status"], finished["rows"]) == ("COMPLETED", len(rows))
    assert Counter(counts(finished)) == expected.counts
    assert finished["removals"] == expected.removals
    assert await read_state(sql, segment_id, options.identity) == before
    assert await history_inconsistencies(sql) == {}
    result = list(csv.DictReader(io.StringIO(await download(finished["resultUrl"]), newline="")))
    assert [(row["line"], row["value"]) for row in result] == [
        (str(line), row) for line, row in enumerate(rows, start=1)
    ]
    assert Counter(row["outcome"] for row in result) == expected.counts
    assert await sql.fetchval("SELECT count(*) FROM import_rows") == 0
    assert await sql.fetchval("SELECT count(*) FROM import_users") == 0
    await sql.execute("UPDATE objects_to_delete SET next_attempt_at = now()")
    await delete_objects(ObjectContext(database, storage))
    left = await object_keys(storage) - objects_before
    assert left == {await sql.fetchval("SELECT result_key FROM imports")}
