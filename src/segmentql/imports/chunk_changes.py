"""The changes of memberships by one chunk of an import.

A chunk either adds or removes users of the list, or ends memberships as planned. Each outcome is
decided here, with the users locked.
"""

from collections.abc import Mapping, Sequence

from segmentql.adapters.sessions import WriteSession
from segmentql.imports.chunk_users import AppliedChunk, ChunkUser
from segmentql.imports.records import ImportMode, ImportRecord, OnUnknownUser
from segmentql.imports.removals import (
    PlannedRemoval,
    remove_as_planned,
    remove_without_exclusion,
)
from segmentql.memberships.bulk_changes import add_members, remove_members
from segmentql.memberships.bulk_locks import lock_segment_for_members, lock_users
from segmentql.memberships.records import Expiry
from segmentql.principal import Actor
from segmentql.rollouts.finished_sample import lock_finished_sample
from segmentql.tables import RowOutcome


async def change_members(
    session: WriteSession, record: ImportRecord, users: Sequence[ChunkUser]
) -> AppliedChunk | None:
    """Change the memberships of the users; return None if the segment is deleted.

    Args:
        session: The session, which holds the lock of the import's row.
        record: The import.
        users: The users, at least one: either all are in the list or none is.

    Raises:
        MutationRejected: `expiresAt` of the import has passed.
    """
    is_planned = not users[0].is_listed
    stores = (
        record.mode is not ImportMode.REMOVE
        and record.options.on_unknown_user is OnUnknownUser.STORE
        and not is_planned
    )
    # A user whose key was erased since has neither an id nor a key.
    ids = [user.user_id for user in users if user.user_id is not None and user.user_key is None]
    keys = [user.user_key for user in users if user.user_key is not None]
    segment_id = record.segment.segment_id
    store_ids, store_keys = (ids, keys) if stores else ([], [])
    find_ids, find_keys = ([], []) if stores else (ids, keys)
    segment = await lock_segment_for_members(
        session, segment_id, store_ids=store_ids, store_keys=store_keys
    )
    if segment is None:
        return None
    if is_planned or (record.mode is ImportMode.REMOVE and not record.options.exclude):
        await lock_finished_sample(session, segment_id)
    actor = Actor(record.actor, record.api_key_id)
    locked = await lock_users(
        session,
        store_ids=store_ids,
        store_keys=store_keys,
        find_ids=find_ids,
        find_keys=find_keys,
        actor=actor,
    )
    stored = [*(ids if stores else locked.found_ids), *locked.ids_by_key.values()]
    if is_planned:
        outcomes = await _remove_planned(session, record, users, set(stored), actor)
    elif record.mode is ImportMode.REMOVE:
        outcomes = await _remove(session, record, stored, actor)
    else:
        outcomes = await _add(session, record, stored, actor)
    return AppliedChunk(outcomes, locked.ids_by_key)


async def _add(
    session: WriteSession, record: ImportRecord, user_ids: Sequence[int], actor: Actor
) -> dict[int, RowOutcome]:
    return _by_user(
        await add_members(
            session,
            segment_id=record.segment.segment_id,
            user_ids=user_ids,
            expiry=Expiry(record.options.ttl, record.options.expires_at),
            on_existing=record.options.on_existing,
            on_excluded=record.options.on_excluded,
            actor=actor,
            import_id=record.import_id,
        )
    )


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
        **dict.fromkeys(user_ids, RowOutcome.NOT_IN),
        **dict.fromkeys(removed.in_sample, RowOutcome.ALREADY_IN),
        **dict.fromkeys(removed.ended, RowOutcome.LEFT),
    }


async def _remove_planned(
    session: WriteSession,
    record: ImportRecord,
    users: Sequence[ChunkUser],
    stored: set[int],
    actor: Actor,
) -> dict[int, RowOutcome]:
    """End the planned memberships that have not changed since the plan; skip the others."""
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
        **dict.fromkeys(removed.in_sample, RowOutcome.ALREADY_IN),
        **dict.fromkeys(removed.ended, RowOutcome.LEFT),
    }


def _by_user(by_outcome: Mapping[RowOutcome, Sequence[int]]) -> dict[int, RowOutcome]:
    return {user_id: outcome for outcome, user_ids in by_outcome.items() for user_id in user_ids}
