"""One `updateSegmentMembers` makes the same changes as one `updateUserSegments` for each user.

The test takes some seconds, because each example runs up to 30 transactions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentql.adapters.database import Database
from segmentql.memberships.records import Expiry, MemberLists, OnExcluded, OnExisting
from segmentql.memberships.segment_members import update_segment_members
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.tables import RowOutcome
from tests.back_dating import NOON, advance_time, insert_membership
from tests.conftest import Sql, empty_tables
from tests.timeline import history_inconsistencies, make_segment

KEYS: Final = {1: "one", 2: "two"}
"""The keys of the users with one. Users 1 to 4 are stored, 5 and 6 are not."""
STORED: Final = range(1, 5)
NEW_KEYS: Final = ("x", "y")
STEP: Final = timedelta(seconds=1000)


@dataclass(frozen=True)
class Change:
    """The input of one change. A user is an id or a key."""

    add: tuple[int | str, ...]
    remove: tuple[int | str, ...]
    ttl_steps: int | None
    on_existing: OnExisting
    on_excluded: OnExcluded

    @property
    def ttl(self) -> timedelta | None:
        return None if self.ttl_steps is None else self.ttl_steps * STEP

    @property
    def lists(self) -> MemberLists:
        return MemberLists(
            [user for user in self.add if isinstance(user, int)],
            [user for user in self.remove if isinstance(user, int)],
            [user for user in self.add if isinstance(user, str)],
            [user for user in self.remove if isinstance(user, str)],
        )


def identity(user: int | str) -> int | str:
    """Return the id of a user with a known key, and any other user as it is."""
    return next((user_id for user_id, key in KEYS.items() if key == user), user)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    users = st.lists(st.sampled_from([*range(1, 7), *KEYS.values(), *NEW_KEYS]), max_size=8)
    add = draw(users)
    added = {identity(user) for user in add}
    remove = [user for user in draw(users) if identity(user) not in added]
    return Change(
        tuple(add),
        tuple(remove),
        draw(st.none() | st.integers(1, 4)),
        draw(st.sampled_from(OnExisting)),
        draw(st.sampled_from(OnExcluded)),
    )


async def prepare(sql: Sql, states: list[str]) -> None:
    """Store the users 1 to 4, each in a state of the segment A."""
    await empty_tables(sql)
    await make_segment(sql, "A")
    for user_id, state in zip(STORED, states, strict=True):
        await sql.execute(
            "INSERT INTO users (id, created_at, key) VALUES ($1, $2, $3)",
            user_id,
            NOON,
            KEYS.get(user_id),
        )
        if state == "excluded":
            await sql.execute("INSERT INTO exclusions VALUES ($1, 1, $2)", user_id, NOON)
        elif state != "out":
            now = await sql.fetchval("SELECT clock_timestamp()")
            ends = {"expired": now - STEP, "ends": now + 2 * STEP}
            await insert_membership(
                sql,
                user_id,
                "A",
                joined_at=NOON,
                expires_at=ends.get(state),
                cause="ROLLOUT" if state == "rollout" else "MANUAL",
            )


async def apply_at_once(database: Database, change: Change) -> dict[str, int]:
    """Send one change, and return its counts."""
    update = await database.transaction(
        lambda session: update_segment_members(
            session,
            slug="A",
            lists=change.lists,
            expiry=Expiry(change.ttl),
            on_existing=change.on_existing,
            on_excluded=change.on_excluded,
        )
    )
    assert sum(entry.count for entry in update.counts) == len(change.add) + len(change.remove)
    outcomes = [entry.outcome for entry in update.counts]
    assert outcomes == [outcome for outcome in RowOutcome if outcome in outcomes]
    return {entry.outcome.value: entry.count for entry in update.counts}


async def apply_one_by_one(database: Database, sql: Sql, change: Change) -> dict[str, int]:
    """Send a change for each user; return the counts that one change for all should return."""
    counts = {"JOINED": 0, "END_CHANGED": 0, "ALREADY_IN": 0, "LEFT": 0, "NOT_IN": 0}
    counts |= {"DUPLICATE": 0, "EXCLUDED": 0, "UNKNOWN_USER": 0}
    for users, adds in ((change.remove, False), (_ids_first(change.add), True)):
        seen: set[int | str] = set()
        for user in users:
            if identity(user) in seen:
                counts["DUPLICATE"] += 1
                continue
            seen.add(identity(user))
            named = {"user_key": user} if isinstance(user, str) else {"user_id": user}
            column = "key" if isinstance(user, str) else "id"
            user_id = await sql.fetchval(f"SELECT id FROM users WHERE {column} = $1", user)
            excluded = await sql.fetchval(
                "SELECT EXISTS (SELECT FROM exclusions WHERE user_id = $1)", user_id
            )
            if not adds and user_id is None:
                counts["UNKNOWN_USER"] += 1
                continue
            if adds and excluded and change.on_excluded is OnExcluded.SKIP:
                counts["EXCLUDED"] += 1
                continue
            update = await database.transaction(
                lambda session, named=named, adds=adds: update_user_segments(  # type: ignore[misc]
                    session,
                    **named,
                    add=["A"] if adds else [],
                    remove=[] if adds else ["A"],
                    ttl=change.ttl,
                    on_existing=change.on_existing,
                    actor=NO_ACTOR,
                )
            )
            if adds:
                outcome = (
                    "JOINED" if update.added else "END_CHANGED" if update.extended else "ALREADY_IN"
                )
            else:
                outcome = "LEFT" if update.removed else "NOT_IN"
            counts[outcome] += 1
    return {outcome: count for outcome, count in counts.items() if count}


def _ids_first(users: tuple[int | str, ...]) -> Iterator[int | str]:
    yield from (user for user in users if isinstance(user, int))
    yield from (user for user in users if isinstance(user, str))


async def state(sql: Sql) -> dict[str, Any]:
    """Return everything that the changes wrote. New keys stand for their ids, ends are in steps."""
    names = {
        row["id"]: row["key"] if row["key"] in NEW_KEYS else row["id"]
        for row in await sql.fetch("SELECT id, key FROM users")
    }
    memberships = await sql.fetch(
        """
        SELECT user_id, cause::text, joined_at = $1,
            round(extract(epoch FROM expires_at - clock_timestamp()) / $2::int)
        FROM memberships
        """,
        NOON,
        STEP.seconds,
    )
    history = await sql.fetch(
        "SELECT user_id, operation::text, cause::text FROM history ORDER BY user_id, position"
    )
    log = await sql.fetch("SELECT user_id, operation::text FROM exclusion_log ORDER BY id")
    exclusions = await sql.fetch("SELECT user_id FROM exclusions")
    return {
        "users": sorted(map(str, names.values())),
        "memberships": {names[row[0]]: tuple(row)[1:] for row in memberships},
        "history": {
            names[user_id]: [tuple(row)[1:] for row in rows]
            for user_id, rows in groupby(history, key=lambda row: row["user_id"])
        },
        "exclusions": {names[row["user_id"]] for row in exclusions},
        "exclusion log": sorted((str(names[row[0]]), row[1]) for row in log),
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    states=st.lists(
        st.sampled_from(["out", "in", "ends", "expired", "rollout", "excluded"]),
        min_size=len(STORED),
        max_size=len(STORED),
    ),
    first=changes(),
    second=changes(),
)
async def test_changes_at_once_and_one_by_one_are_the_same(
    sql: Sql, database: Database, states: list[str], first: Change, second: Change
) -> None:
    results = []
    for at_once in (True, False):
        await prepare(sql, states)
        result: list[Any] = []
        for change in (first, second):
            if at_once:
                result.append(await apply_at_once(database, change))
            else:
                result.append(await apply_one_by_one(database, sql, change))
            result.append(await state(sql))
            await advance_time(sql, 1.5 * STEP)
        assert await history_inconsistencies(sql) == {}
        results.append(result)
    assert results[0] == results[1]
