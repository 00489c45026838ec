"""Applying an import: one chunk of users for each transaction.

A chunk commits its changes, its outcomes, the counts and the position together, under the lock of
the import's row. So two chunks of one import never overlap, and after a crash the next worker
continues with the next chunk. Each outcome is decided again, because the users, the memberships and
the exclusions may have changed since the forecast.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import text

from segmentql.adapters.database import WriteSession
from segmentql.imports.attempts import LEASE_END
from segmentql.imports.completion import finish
from segmentql.imports.reads import IMPORT_COLUMNS, import_record
from segmentql.imports.records import ImportMode, ImportRecord, OnUnknownUser
from segmentql.imports.removals import (
    PlannedRemoval,
    Removed,
    remove_as_planned,
    remove_without_exclusion,
)
from segmentql.imports.schedule import IS_NEXT_TO_APPLY
from segmentql.imports.stored_json import counts_to_json
from segmentql.memberships.bulk_changes import add_members, remove_members
from segmentql.memberships.bulk_locks import lock_segment_for_members, lock_users
from segmentql.memberships.records import Expiry
from segmentql.principal import Actor
from segmentql.rollouts.finished_sample import lock_finished_sample
from segmentql.tables import ImportStatus, RowOutcome

CHUNK_USERS: Final = 5000
"""The maximum number of users in one transaction, about 0.1 s, so that locks are short."""

SEGMENT_DELETED: Final = "the segment was deleted"

_LOCK = text(f"""
SELECT {IMPORT_COLUMNS}, i.listed_users FROM imports i JOIN segments s ON s.id = i.segment_id
WHERE i.id = :import_id AND i.status = 'APPLYING' AND {IS_NEXT_TO_APPLY}
FOR NO KEY UPDATE OF i SKIP LOCKED
""")

# Arrays, because SQLAlchemy takes more time for each row than PostgreSQL.
_CHUNK = text("""
SELECT coalesce(array_agg(number ORDER BY number), '{}') AS numbers,
    array_agg(line IS NOT NULL ORDER BY number) AS are_listed,
    array_agg(user_id ORDER BY number) AS user_ids,
    array_agg(user_key ORDER BY number) AS user_keys,
    array_agg(membership_id ORDER BY number) AS membership_ids,
    array_agg(membership_updated_at ORDER BY number) AS membership_updated_times,
    array_agg(CAST(outcome AS text) ORDER BY number) AS outcomes
FROM import_users
WHERE import_id = :import_id AND number > :applied AND number <= :last
""")

_STORE_OUTCOMES = text("""
UPDATE import_users u SET outcome = CAST(applied.outcome AS row_outcome), user_id = applied.user_id
FROM unnest(CAST(:numbers AS bigint[]), CAST(:outcomes AS text[]), CAST(:user_ids AS bigint[]))
    AS applied (number, outcome, user_id)
WHERE u.import_id = :import_id AND u.number = applied.number
""")

# A key of the list may have been set for a stored member since the plan.
_KEEP_LISTED = text("""
UPDATE import_users SET membership_id = NULL
WHERE import_id = :import_id AND line IS NULL AND user_id = ANY(CAST(:user_ids AS bigint[]))
""")

_STORE_PROGRESS = text(f"""
UPDATE imports SET
    applied_users = :applied, counts = CAST(CAST(:counts AS text) AS jsonb), attempts = 0,
    removed_users = removed_users + :removed,
    next_attempt_at = {LEASE_END}
WHERE id = :import_id
""")


_OUTCOMES: Final = {outcome.value: outcome for outcome in RowOutcome}


class _User(NamedTuple):
    """A row of `import_users`."""

    number: int
    is_listed: bool
    user_id: int | None
    user_key: str | None
    membership_id: int | None
    membership_updated_at: datetime | None
    expected: RowOutcome


@dataclass(frozen=True, slots=True)
class _Applied:
    """What a chunk has changed."""

    outcomes: Mapping[int, RowOutcome]
    """The outcomes by user id. Users that are not stored are absent."""
    ids_by_key: Mapping[str, int]


async def apply_chunk(session: WriteSession, import_id: int) -> bool:
    """Apply the next users of an import, if it is the import's turn.

    Returns:
        Whether there may be more users to apply.
    """
    row = (await session.execute(_LOCK, {"import_id": import_id})).one_or_none()
    if row is None:
        return False
    record = import_record(row)
    # Users of the list and planned removals are not in one chunk.
    bound = row.listed_users if record.applied_users < row.listed_users else record.total_users
    values = {
        "import_id": import_id,
        "applied": record.applied_users,
        "last": min(record.applied_users + CHUNK_USERS, bound),
    }
    users = await _users(session, values)
    if not users:
        await finish(session, record, ImportStatus.COMPLETED)
        return False
    applied = await _apply(session, record, users)
    if applied is None:
        await finish(session, record, ImportStatus.FAILED, failure=SEGMENT_DELETED)
        return False
    await _store(session, record, users, applied)
    return True


async def _users(session: WriteSession, values: Mapping[str, int]) -> list[_User]:
    row = (await session.execute(_CHUNK, values)).one()
    if not row.numbers:
        return []
    columns = (row.user_ids, row.user_keys, row.membership_ids, row.membership_updated_times)
    outcomes = [_OUTCOMES[outcome] for outcome in row.outcomes]
    return [
        _User(*user) for user in zip(row.numbers, row.are_listed, *columns, outcomes, strict=True)
    ]


async def _apply(
    session: WriteSession, record: ImportRecord, users: Sequence[_User]
) -> _Applied | None:
    """Change the memberships of the users; return None if the segment is deleted."""
    stores = (
        record.mode is not ImportMode.REMOVE
        and record.options.on_unknown_user is OnUnknownUser.STORE
        and users[0].is_listed
    )
    # A user whose key was erased since has neither an id nor a key.
    ids = [user.user_id for user in users if user.user_id is not None and user.user_key is None]
    keys = [user.user_key for user in users if user.user_key is not None]
    segment_id = record.segment.segment_id
    store_ids, store_keys = (ids, keys) if stores else ([], [])
    segment = await lock_segment_for_members(
        session, segment_id, store_ids=store_ids, store_keys=store_keys
    )
    if segment is None:
        return None
    if not users[0].is_listed or (record.mode is ImportMode.REMOVE and not record.options.exclude):
        await lock_finished_sample(session, segment_id)
    actor = Actor(record.actor, record.api_key_id)
    find_ids, find_keys = ([], []) if stores else (ids, keys)
    locked = await lock_users(
        session,
        store_ids=store_ids,
        store_keys=store_keys,
        find_ids=find_ids,
        find_keys=find_keys,
        actor=actor,
    )
    stored = [*(ids if stores else locked.found_ids), *locked.ids_by_key.values()]
    if not users[0].is_listed:
        outcomes = await _remove_planned(session, record, users, set(stored), actor)
    elif record.mode is ImportMode.REMOVE:
        outcomes = await _remove(session, record, stored, actor)
    else:
        by_outcome = await add_members(
            session,
            segment_id=segment_id,
            user_ids=stored,
            expiry=Expiry(record.options.ttl, record.options.expires_at),
            on_existing=record.options.on_existing,
            on_excluded=record.options.on_excluded,
            actor=actor,
            import_id=record.import_id,
        )
        outcomes = _by_user(by_outcome)
    return _Applied(outcomes, locked.ids_by_key)


def _by_user(by_outcome: Mapping[RowOutcome, Sequence[int]]) -> dict[int, RowOutcome]:
    return {user_id: outcome for outcome, user_ids in by_outcome.items() for user_id in user_ids}


async def _remove(
    session: WriteSession, record: ImportRecord, user_ids: Sequence[int], actor: Actor
) -> dict[int, RowOutcome]:
    segment_id, import_id = record.segment.segment_id, record.import_id
    if record.options.exclude:
        return _by_user(
            await remove_members(
                session,
                segment_id=segment_id,
                user_ids=user_ids,
                actor=actor,
                import_id=import_id,
            )
        )
    removed = await remove_without_exclusion(
        session, segment_id=segment_id, user_ids=user_ids, actor=actor, import_id=import_id
    )
    return {
        user_id: _outcome_of_removal(user_id, removed, otherwise=RowOutcome.NOT_IN)
        for user_id in user_ids
    }


async def _remove_planned(
    session: WriteSession,
    record: ImportRecord,
    users: Sequence[_User],
    stored: set[int],
    actor: Actor,
) -> dict[int, RowOutcome]:
    planned = [
        PlannedRemoval(user.user_id, user.membership_id, user.membership_updated_at)
        for user in users
        if user.user_id in stored
        and user.user_id is not None
        and user.membership_id is not None
        and user.membership_updated_at is not None
    ]
    removed = await remove_as_planned(
        session,
        segment_id=record.segment.segment_id,
        planned=planned,
        actor=actor,
        import_id=record.import_id,
    )
    return {
        removal.user_id: _outcome_of_removal(
            removal.user_id, removed, otherwise=RowOutcome.ALREADY_IN
        )
        for removal in planned
    }


def _outcome_of_removal(user_id: int, removed: Removed, *, otherwise: RowOutcome) -> RowOutcome:
    if user_id in removed.ended:
        return RowOutcome.LEFT
    return RowOutcome.ALREADY_IN if user_id in removed.in_sample else otherwise


async def _store(
    session: WriteSession, record: ImportRecord, users: Sequence[_User], applied: _Applied
) -> None:
    """Store the outcomes that differ from the forecast, the counts and the position."""
    counts = Counter(record.count_by_outcome)
    removed = 0
    changed: list[tuple[int, RowOutcome, int | None]] = []
    for user in users:
        user_id = user.user_id if user.user_key is None else applied.ids_by_key.get(user.user_key)
        outcome = RowOutcome.UNKNOWN_USER
        if user_id is not None:
            outcome = applied.outcomes.get(user_id, RowOutcome.UNKNOWN_USER)
        removed += outcome is RowOutcome.LEFT
        if user.is_listed:
            counts[RowOutcome.NOT_REACHED] -= 1
            counts[outcome] += 1
        if outcome is not user.expected or user_id != user.user_id:
            changed.append((user.number, outcome, user_id))
    if record.mode is ImportMode.REPLACE:
        await _keep_listed(session, record, users, applied)
    if changed:
        numbers, outcomes, user_ids = zip(*changed, strict=True)
        await session.execute(
            _STORE_OUTCOMES,
            {
                "import_id": record.import_id,
                "numbers": list(numbers),
                "outcomes": list(outcomes),
                "user_ids": list(user_ids),
            },
        )
    await session.execute(
        _STORE_PROGRESS,
        {
            "import_id": record.import_id,
            "applied": users[-1].number,
            "removed": removed,
            "counts": counts_to_json(counts),
        },
    )


async def _keep_listed(
    session: WriteSession, record: ImportRecord, users: Sequence[_User], applied: _Applied
) -> None:
    """Drop the planned removals of members who have a key of the list only since the plan."""
    user_ids = [
        user_id
        for user in users
        if user.user_key is not None
        and (user_id := applied.ids_by_key.get(user.user_key)) is not None
        and user_id != user.user_id
        and applied.outcomes.get(user_id) is not RowOutcome.JOINED
    ]
    if user_ids:
        values = {"import_id": record.import_id, "user_ids": user_ids}
        await session.execute(_KEEP_LISTED, values)
