"""The users of one chunk of an import, and their outcomes, in `import_users`.

The outcomes, the counts and the position of the import are stored in the chunk's transaction.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.imports.attempts import LEASE_END
from segmentql.imports.records import ImportMode, ImportRecord
from segmentql.imports.stored_json import counts_to_json
from segmentql.tables import RowOutcome

# Arrays, because SQLAlchemy takes more time for each row than PostgreSQL.
_READ = text("""
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
    allowed_removals = coalesce(allowed_removals, CAST(:allowed_removals AS bigint)),
    next_attempt_at = {LEASE_END}
WHERE id = :import_id
""")

_OUTCOMES: Final = {outcome.value: outcome for outcome in RowOutcome}


class ChunkUser(NamedTuple):
    """A row of `import_users`."""

    number: int
    is_listed: bool
    """Whether the user is in the list. Otherwise the row is a planned removal."""
    user_id: int | None
    user_key: str | None
    membership_id: int | None
    membership_updated_at: datetime | None
    expected: RowOutcome


@dataclass(frozen=True, slots=True)
class AppliedChunk:
    """What a chunk has changed."""

    outcomes: Mapping[int, RowOutcome]
    """The outcomes by user id. Users that are not stored, and planned removals that were skipped,
    are absent."""
    ids_by_key: Mapping[str, int]

    @property
    def removed(self) -> int:
        """The number of members who left."""
        return sum(outcome is RowOutcome.LEFT for outcome in self.outcomes.values())

    def id_of(self, user: ChunkUser) -> int | None:
        """Return the id of a user; None if a user with a key is not stored."""
        return user.user_id if user.user_key is None else self.ids_by_key.get(user.user_key)


async def read_chunk(session: WriteSession, record: ImportRecord, users: int) -> list[ChunkUser]:
    """Return up to `users` users that are applied next.

    Users of the list and planned removals are not in one chunk.
    """
    applied = record.applied_users
    bound = record.listed_users if applied < record.listed_users else record.total_users
    values = {
        "import_id": record.import_id,
        "applied": applied,
        "last": min(applied + users, bound),
    }
    row = (await session.execute(_READ, values)).one()
    if not row.numbers:
        return []
    columns = (row.user_ids, row.user_keys, row.membership_ids, row.membership_updated_times)
    outcomes = [_OUTCOMES[outcome] for outcome in row.outcomes]
    return [
        ChunkUser(*user)
        for user in zip(row.numbers, row.are_listed, *columns, outcomes, strict=True)
    ]


async def store_chunk(
    session: WriteSession,
    record: ImportRecord,
    users: Sequence[ChunkUser],
    applied: AppliedChunk,
    *,
    allowed_removals: int | None,
) -> None:
    """Store the outcomes that differ from the forecast, the counts and the position.

    Args:
        session: The session.
        record: The import before the chunk.
        users: The users of the chunk.
        applied: What the chunk has changed.
        allowed_removals: The maximum number of removals, if it is known by now.
    """
    counts = Counter(record.count_by_outcome)
    listed = [user for user in users if user.is_listed]
    changed: list[tuple[int, RowOutcome, int | None]] = []
    for user in listed:
        user_id = applied.id_of(user)
        outcome = RowOutcome.UNKNOWN_USER
        if user_id is not None:
            outcome = applied.outcomes.get(user_id, RowOutcome.UNKNOWN_USER)
        counts[RowOutcome.NOT_REACHED] -= 1
        counts[outcome] += 1
        if outcome is not user.expected or user_id != user.user_id:
            changed.append((user.number, outcome, user_id))
    if record.mode is ImportMode.REPLACE:
        await _keep_listed(session, record, listed, applied)
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
            "removed": applied.removed,
            "allowed_removals": allowed_removals,
            "counts": counts_to_json(counts),
        },
    )


async def _keep_listed(
    session: WriteSession,
    record: ImportRecord,
    listed: Sequence[ChunkUser],
    applied: AppliedChunk,
) -> None:
    """Drop the planned removals of members who have a key of the list only since the plan."""
    user_ids = [
        user_id
        for user in listed
        if user.user_key is not None
        and (user_id := applied.id_of(user)) is not None
        and user_id != user.user_id
        and applied.outcomes.get(user_id) is not RowOutcome.JOINED
    ]
    if user_ids:
        values = {"import_id": record.import_id, "user_ids": user_ids}
        await session.execute(_KEEP_LISTED, values)
