"""The deletion of a user together with the files that have an erased key of the user."""

from segmentql.adapters.database import WriteSession
from segmentql.exports.generation import fail_exports_with_keys
from segmentql.imports.erasure import delete_user_and_erase_key
from segmentql.principal import Actor
from segmentql.users.records import UserDeletion


async def delete_user_and_files(
    session: WriteSession,
    user_id: int | None = None,
    *,
    user_key: str | None = None,
    erase_key: bool = False,
    actor: Actor,
) -> UserDeletion:
    """Delete a user, and erase the key from reports, imports and exports.

    The exports whose files may have the key fail, and the files are deleted.

    Raises:
        MutationRejected: the user is not stored. With `erase_key`: the user was never stored, or
            no user has or had the key.
    """
    deletion = await delete_user_and_erase_key(
        session, user_id, user_key=user_key, erase_key=erase_key, actor=actor
    )
    if deletion.users_with_erased_key:
        await fail_exports_with_keys(session, deletion.users_with_erased_key)
    return deletion
