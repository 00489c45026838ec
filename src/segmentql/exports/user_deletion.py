"""The deletion of a user, and the erasure of the user's key from everything that may have it."""

from segmentql.adapters.sessions import WriteSession
from segmentql.exports.key_erasure import fail_exports_with_keys
from segmentql.imports.erasure import erase_keys
from segmentql.imports.locks import lock_erasure_of_keys
from segmentql.principal import Actor
from segmentql.reports.key_erasure import remake_reports_with_keys
from segmentql.users import service as users
from segmentql.users.records import UserDeletion


async def delete_user_everywhere(
    session: WriteSession,
    user_id: int | None = None,
    *,
    user_key: str | None = None,
    erase_key: bool = False,
    actor: Actor,
) -> UserDeletion:
    """Delete a user (see `delete_user`), and erase the key from reports, imports and exports.

    Reports with the key are made again. Results of imports that may have the key are deleted.
    Exports whose files may have the key fail, and the files are deleted.

    Raises:
        MutationRejected: The user is not stored. With `erase_key`: the user was never stored, or
            no user has or had the key.
    """
    if erase_key:
        await lock_erasure_of_keys(session)
    deletion = await users.delete_user(
        session, user_id, user_key=user_key, erase_key=erase_key, actor=actor
    )
    if deletion.users_with_erased_key:
        await remake_reports_with_keys(session, deletion.users_with_erased_key)
    if deletion.erased_keys:
        await erase_keys(session, deletion.erased_keys)
    if deletion.users_with_erased_key:
        await fail_exports_with_keys(session, deletion.users_with_erased_key)
    return deletion
