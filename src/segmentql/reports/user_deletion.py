"""The deletion of a user together with the reports that have an erased key of the user."""

from segmentql.adapters.database import WriteSession
from segmentql.principal import Actor
from segmentql.reports.generation import remake_reports_with_keys
from segmentql.users import service as users
from segmentql.users.records import UserDeletion


async def delete_user_and_remake_reports(
    session: WriteSession,
    user_id: int | None = None,
    *,
    user_key: str | None = None,
    erase_key: bool = False,
    actor: Actor,
) -> UserDeletion:
    """Delete a user (see `delete_user`), and make the reports again that have an erased key.

    Raises:
        MutationRejected: the user is not stored. With `erase_key`: the user was never stored, or
            no user has or had the key.
    """
    deletion = await users.delete_user(
        session, user_id, user_key=user_key, erase_key=erase_key, actor=actor
    )
    if deletion.users_with_erased_key:
        await remake_reports_with_keys(session, deletion.users_with_erased_key)
    return deletion
