"""The mutation `updateSegmentMembers`: the changes of up to 1,000 users in one segment."""

from collections import Counter
from collections.abc import Iterator

from segmentql.adapters.sessions import WriteSession
from segmentql.errors import InvalidInput, MutationRejected, SegmentNotFound
from segmentql.memberships.bulk_changes import add_members, remove_members
from segmentql.memberships.bulk_locks import LockedUsers, lock_segment_for_members, lock_users
from segmentql.memberships.expiry import check_expiry
from segmentql.memberships.records import (
    NO_EXPIRY,
    Expiry,
    MemberLists,
    OnExcluded,
    OnExisting,
    OutcomeCount,
    SegmentMembersUpdate,
)
from segmentql.principal import NO_ACTOR, Actor
from segmentql.tables import RowOutcome

ONE_LIST = "each user either to add or to remove"


async def update_segment_members(
    session: WriteSession,
    *,
    slug: str,
    lists: MemberLists,
    expiry: Expiry = NO_EXPIRY,
    on_existing: OnExisting = OnExisting.EXTEND,
    on_excluded: OnExcluded = OnExcluded.ADMIT,
    actor: Actor = NO_ACTOR,
) -> SegmentMembersUpdate:
    """Add users to a segment and remove others from it, all or nothing, in five round trips.

    Users to add who are not stored are stored. Users to remove are also excluded from the
    segment's rollout, if they are stored. The second row of a user in a list is a DUPLICATE.

    Args:
        session: The session.
        slug: The segment's slug.
        lists: The users. No id and no key is both to add and to remove.
        expiry: The end of the memberships of the users to add.
        on_existing: The effect of adding an active member.
        on_excluded: The effect of adding an excluded user.
        actor: The author of the change.

    Returns:
        The segment and the counts by outcome, which sum to the number of rows.

    Raises:
        MutationRejected: the segment does not exist, the end is out of range, or a user is to add
            by id and to remove by key, or the reverse.
    """
    segment = await lock_segment_for_members(
        session, slug, store_ids=lists.add, store_keys=lists.add_keys
    )
    if segment is None:
        raise MutationRejected(SegmentNotFound(("slug",), (slug,)))
    users = await lock_users(
        session,
        store_ids=lists.add,
        find_ids=lists.remove,
        store_keys=lists.add_keys,
        find_keys=lists.remove_keys,
        actor=actor,
    )
    if expiry.expires_at is not None:
        check_expiry(expiry.expires_at - users.locked_at)
    add_ids = [*lists.add, *(users.ids_by_key[key] for key in lists.add_keys)]
    remove_ids = [user_id for _, user_id in _stored_users_to_remove(lists, users)]
    _check_one_list(lists, users)
    counts = Counter[RowOutcome]()
    if remove_ids:
        left = await remove_members(
            session, segment_id=segment.segment_id, user_ids=list(set(remove_ids)), actor=actor
        )
        counts.update({outcome: len(user_ids) for outcome, user_ids in left.items()})
    if add_ids:
        joined = await add_members(
            session,
            segment_id=segment.segment_id,
            user_ids=list(set(add_ids)),
            expiry=expiry,
            on_existing=on_existing,
            on_excluded=on_excluded,
            actor=actor,
        )
        counts.update({outcome: len(user_ids) for outcome, user_ids in joined.items()})
    unknown = {user_id for user_id in lists.remove if user_id not in users.found_ids}
    unknown_keys = {key for key in lists.remove_keys if key not in users.ids_by_key}
    counts[RowOutcome.UNKNOWN_USER] = len(unknown) + len(unknown_keys)
    rows = sum(map(len, (lists.add, lists.remove, lists.add_keys, lists.remove_keys)))
    counts[RowOutcome.DUPLICATE] = rows - counts.total()  # Each user has one other outcome.
    return SegmentMembersUpdate(
        segment,
        [OutcomeCount(outcome, counts[outcome]) for outcome in RowOutcome if counts[outcome]],
    )


def _check_one_list(lists: MemberLists, users: LockedUsers) -> None:
    """Check that no user is both to add and to remove."""
    first_paths: dict[int, str] = {}
    for position, user_id in enumerate(lists.add):
        first_paths.setdefault(user_id, f"add.{position}")
    for position, key in enumerate(lists.add_keys):
        first_paths.setdefault(users.ids_by_key[key], f"addKeys.{position}")
    errors = [
        InvalidInput(path, f"the user is already in {first_paths[user_id]}", ONE_LIST)
        for path, user_id in _stored_users_to_remove(lists, users)
        if user_id in first_paths
    ]
    if errors:
        raise MutationRejected(*errors)


def _stored_users_to_remove(
    lists: MemberLists, users: LockedUsers
) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield the path in the input and the id of each row of a stored user to remove."""
    for position, user_id in enumerate(lists.remove):
        if user_id in users.found_ids:
            yield ("remove", str(position)), user_id
    for position, key in enumerate(lists.remove_keys):
        if key in users.ids_by_key:
            yield ("removeKeys", str(position)), users.ids_by_key[key]
