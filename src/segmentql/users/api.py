"""GraphQL types, queries and mutations of users."""

from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry import Parent

from segmentql import errors, validators
from segmentql.adapters.database import WriteSession
from segmentql.graphql.context import Info, selects_field
from segmentql.graphql.cost.field_cost import HISTORY_REPLAY, HISTORY_SCAN, cost
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.errors import (
    ErrorCode,
    MutationError,
    as_mutation_error,
    limit_exceeded,
)
from segmentql.graphql.types.mutations import run_mutation
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    parse_page_arguments,
)
from segmentql.graphql.types.permissions import NeedsAdmin, NeedsEditor
from segmentql.graphql.types.validation import InputValidator, argument_value
from segmentql.history.loaders import SegmentsAsOf, history_connection
from segmentql.history.records import HistoryEntryRecord
from segmentql.memberships.loaders import (
    IsExcluded,
    IsIn,
    MembershipBySlug,
    MembershipsByUser,
    SegmentsByUser,
    UserWithSegments,
    UserWithSegmentsByKey,
)
from segmentql.memberships.records import MembershipRecord
from segmentql.reports.generation import remake_reports_with_keys
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord
from segmentql.users import service
from segmentql.users.loaders import UserById, UserByKey
from segmentql.users.records import UserDeletion, UserRecord

if TYPE_CHECKING:
    from segmentql.history.api import HistoryEntry
    from segmentql.memberships.api import Membership


@strawberry.type(
    description="A stored user. The client chooses the id, or a mutation allocates one. The user"
    " may also have a key, which the client chooses."
)
class User:
    user_id: strawberry.ID = strawberry.field(name="id", description="The user's id.")
    key: str | None = strawberry.field(
        description="The client's own name of the user, such as a UUID or an account name. Null if"
        " the user has none."
    )
    created_at: datetime = strawberry.field(description="When the user was stored.")

    # These resolvers return the loader's future. An `async def` would need a task for each user.

    @strawberry.field(
        description="The segments that the user is in, in order of their slugs.",
        graphql_type=list[Segment],
        metadata=cost(if_given={"asOf": HISTORY_REPLAY}),
    )
    @staticmethod
    def segments(
        user: Parent[UserRecord],
        info: Info,
        as_of: Annotated[
            datetime | None,
            strawberry.argument(description="A time in the past. If omitted, now."),
        ] = strawberry.UNSET,
    ) -> Awaitable[Sequence[SegmentRecord]] | Sequence[SegmentRecord]:
        if as_of:
            return info.context.loader(SegmentsAsOf).load((user.user_id, as_of))
        if user.segments is not None:
            return user.segments
        return info.context.loader(SegmentsByUser).load(user.user_id)

    @strawberry.field(
        description="The active memberships of the user, in order of the segments' slugs.",
        graphql_type=list[Annotated["Membership", strawberry.lazy("segmentql.memberships.api")]],
    )
    @staticmethod
    def memberships(user: Parent[UserRecord], info: Info) -> Awaitable[list[MembershipRecord]]:
        return info.context.loader(MembershipsByUser).load(user.user_id)

    @strawberry.field(
        description="The active membership of the user in the segment with this slug. Null if the"
        " user is not a member now, or if there is no such segment.",
        graphql_type=Annotated["Membership", strawberry.lazy("segmentql.memberships.api")] | None,
        metadata=cost(1),
    )
    @staticmethod
    def membership(
        user: Parent[UserRecord],
        info: Info,
        slug: Annotated[str, strawberry.argument(description="The slug of a segment.")],
    ) -> Awaitable[MembershipRecord | None] | None:
        if not validators.is_slug(slug):
            return None
        return info.context.loader(MembershipBySlug).load((user.user_id, slug))

    @strawberry.field(
        description="Whether the user is in the segment with this slug. False if there is no such"
        " segment.",
        graphql_type=bool,
        metadata=cost(1),
    )
    @staticmethod
    def is_in(
        user: Parent[UserRecord],
        info: Info,
        slug: Annotated[str, strawberry.argument(description="The slug of a segment.")],
    ) -> Awaitable[bool] | bool:
        if not validators.is_slug(slug):
            return False
        return info.context.loader(IsIn).load((user.user_id, slug))

    @strawberry.field(
        description="Whether the segment's rollout excludes the user. `updateUserSegments` and"
        " `updateSegmentMembers` exclude a user that they remove, until the user is added again.",
        graphql_type=bool,
        metadata=cost(1),
    )
    @staticmethod
    def is_excluded(
        user: Parent[UserRecord],
        info: Info,
        slug: Annotated[str, strawberry.argument(description="The slug of a segment.")],
    ) -> Awaitable[bool] | bool:
        if not validators.is_slug(slug):
            return False
        return info.context.loader(IsExcluded).load((user.user_id, slug))

    @strawberry.field(
        description="The joins and leaves of the user, newest first.",
        graphql_type=Connection[
            Annotated["HistoryEntry", strawberry.lazy("segmentql.history.api")]
        ],
        metadata=cost(HISTORY_SCAN),
    )
    @staticmethod
    async def history(
        user: Parent[UserRecord],
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
        from_: Annotated[
            datetime | None,
            strawberry.argument(name="from", description="The earliest time, inclusive."),
        ] = strawberry.UNSET,
        to: Annotated[
            datetime | None,
            strawberry.argument(description="The latest time, exclusive."),
        ] = strawberry.UNSET,
        slug: Annotated[
            str | None,
            strawberry.argument(description="Return only entries of segments with this slug."),
        ] = strawberry.UNSET,
    ) -> Connection[HistoryEntryRecord]:
        return await history_connection(
            info.context,
            first=first,
            after=after,
            since=from_,
            until=to,
            user_id=user.user_id,
            slug=slug,
        )


@strawberry.type(description="The user is not stored.")
class UserNotFound(MutationError):
    pass


@strawberry.type(description="The user is already stored.")
class UserAlreadyExists(MutationError):
    user: UserRecord = strawberry.field(graphql_type=User, description="The stored user.")


@as_mutation_error.register
def _(reason: errors.UserNotFound) -> MutationError:
    return UserNotFound(
        code=ErrorCode.USER_NOT_FOUND,
        message="No stored user has this key."
        if reason.user_id is None
        else f"User {reason.user_id} is not stored.",
        path=list(reason.path),
    )


@as_mutation_error.register
def _(reason: errors.UserAlreadyExists) -> MutationError:
    return UserAlreadyExists(
        code=ErrorCode.USER_ALREADY_EXISTS,
        message=f"User {reason.user.user_id} already has this key."
        if reason.path == ("key",)
        else f"User {reason.user.user_id} is already stored.",
        path=list(reason.path),
        user=reason.user,
    )


def _user_loader(info: Info) -> Loader[int, UserRecord | None]:
    """Return the loader of users, which also reads their segments if the query selects them."""
    return info.context.loader(UserWithSegments if selects_field(info, "segments") else UserById)


def _user_by_key_loader(info: Info) -> Loader[str, UserRecord | None]:
    """Return the same loader for users by key."""
    return info.context.loader(
        UserWithSegmentsByKey if selects_field(info, "segments") else UserByKey
    )


@strawberry.type
class UserQueries:
    @strawberry.field(
        description="One user. Null if the user is not stored.", graphql_type=User | None
    )
    def user(
        self,
        info: Info,
        id: Annotated[  # noqa: A002 - the name of the GraphQL argument
            strawberry.ID, strawberry.argument(description="The user's id.")
        ],
    ) -> Awaitable[UserRecord | None]:
        return _user_loader(info).load(argument_value(validators.user_id, id, "id"))

    @strawberry.field(
        description="One user. Null if no stored user has the key.", graphql_type=User | None
    )
    def user_by_key(
        self,
        info: Info,
        key: Annotated[
            str,
            strawberry.argument(description="The user's key. It is compared byte by byte."),
        ],
    ) -> Awaitable[UserRecord | None]:
        return _user_by_key_loader(info).load(argument_value(validators.user_key, key, "key"))

    @strawberry.field(
        description="Many users, in the order of `keys` and with repeats. Null for each key that no"
        " stored user has.",
        graphql_type=list[User | None] | None,
        metadata=cost(size_of="keys"),
    )
    def users_by_key(
        self,
        info: Info,
        keys: Annotated[
            list[str],
            strawberry.argument(description="The keys of the users, at most 1000."),
        ],
    ) -> Awaitable[list[UserRecord | None]]:
        if len(keys) > validators.MAX_USERS_BY_KEY:
            raise limit_exceeded("keys", limit=validators.MAX_USERS_BY_KEY, value=len(keys))
        user_keys = [
            argument_value(validators.user_key, key, f"keys.{position}")
            for position, key in enumerate(keys)
        ]
        return _user_by_key_loader(info).load_many(user_keys)

    @strawberry.field(
        description="Many users, in the order of `ids` and with repeats. Null for each user that"
        " is not stored.",
        graphql_type=list[User | None] | None,
        metadata=cost(size_of="ids"),
    )
    def users_by_id(
        self,
        info: Info,
        ids: Annotated[
            list[strawberry.ID],
            strawberry.argument(description="The ids of the users, at most 1000."),
        ],
    ) -> Awaitable[list[UserRecord | None]]:
        if len(ids) > validators.MAX_USERS_BY_ID:
            raise limit_exceeded("ids", limit=validators.MAX_USERS_BY_ID, value=len(ids))
        user_ids = [
            argument_value(validators.user_id, id_, f"ids.{position}")
            for position, id_ in enumerate(ids)
        ]
        return _user_loader(info).load_many(user_ids)

    @strawberry.field(
        description="All stored users, in order of their ids.", graphql_type=Connection[User] | None
    )
    async def users(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
    ) -> Connection[UserRecord]:
        page = parse_page_arguments("users", (is_row_id,), first, after)
        last = int(page.after[0]) if page.after else 0
        users = await info.context.read(
            lambda session: service.user_page(session, after=last, rows=page.first + 1)
        )
        return page.page(users, lambda user: (user.user_id,))


@strawberry.input(description="Input of `createUser`.")
class CreateUserInput:
    id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The user's id. If omitted, the next unused id is allocated; a user with a key"
        " gets an id of at least 100000000000000.",
    )
    key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The user's key: 1 to 255 characters without control characters. The mutation"
        " is rejected if a stored user has the key.",
    )


@strawberry.type(description="Result of `createUser`.")
class CreateUserPayload:
    user: UserRecord | None = strawberry.field(
        default=None,
        graphql_type=User | None,
        description="The user. Null if the mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.input(description="Input of `updateUser`.")
class UpdateUserInput:
    id: strawberry.ID = strawberry.field(description="The user's id.")
    key: str = strawberry.field(
        description="The key: 1 to 255 characters without control characters. It is set once: the"
        " mutation is rejected if the user has another key, or if another user has the key. If"
        " the user already has the key, the mutation succeeds and changes nothing."
    )


@strawberry.type(description="Result of `updateUser`.")
class UpdateUserPayload:
    user: UserRecord | None = strawberry.field(
        default=None,
        graphql_type=User | None,
        description="The user. Null if the mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.input(description="Input of `deleteUser`.")
class DeleteUserInput:
    id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="The user's id. Use either `id` or `key`."
    )
    key: str | None = strawberry.field(default=strawberry.UNSET, description="The user's key.")
    erase_key: bool | None = strawberry.field(
        default=False,
        description="Whether to erase the user's key: every key that a user with this id had"
        " becomes null in the history of all deleted users, and reports with keys are made again."
        " The user may have been deleted earlier.",
    )


@strawberry.type(description="Result of `deleteUser`.")
class DeleteUserPayload:
    deleted_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The id of the deleted user. Null if the mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type
class UserMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Store a user. The user is in no segment yet, except those whose rollouts"
        " enroll new users. Needs EDITOR.",
    )
    async def create_user(
        self,
        info: Info,
        input: CreateUserInput,  # noqa: A002
    ) -> CreateUserPayload | None:
        validator = InputValidator()
        user_id = validator.optional(validators.user_id, input.id, "id", absent=None)
        user_key = validator.optional(validators.user_key, input.key, "key", absent=None)
        return await run_mutation(
            info,
            CreateUserPayload,
            validator,
            lambda session: service.create_user(
                session, user_id, user_key=user_key, actor=info.context.actor
            ),
            lambda user: CreateUserPayload(user=user),
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Set the key of a stored user that has none. A key is never changed. Needs"
        " EDITOR.",
    )
    async def update_user(
        self,
        info: Info,
        input: UpdateUserInput,  # noqa: A002
    ) -> UpdateUserPayload | None:
        validator = InputValidator()
        user_id = validator.value(validators.user_id, input.id, "id")
        user_key = validator.value(validators.user_key, input.key, "key")
        return await run_mutation(
            info,
            UpdateUserPayload,
            validator,
            lambda session: service.set_user_key(session, user_id, user_key),
            lambda user: UpdateUserPayload(user=user),
        )

    @strawberry.mutation(
        permission_classes=[NeedsAdmin],
        description="Delete a user. The memberships end, the exclusions are deleted and the history"
        " stays, with the user's key unless `eraseKey` is true. Needs ADMIN.",
    )
    async def delete_user(
        self,
        info: Info,
        input: DeleteUserInput,  # noqa: A002
    ) -> DeleteUserPayload | None:
        validator = InputValidator()
        user_id = validator.optional(validators.user_id, input.id, "id", absent=None)
        user_key = validator.optional(validators.user_key, input.key, "key", absent=None)
        validator.check_exactly_one(("id", user_id), ("key", user_key))

        async def delete(session: WriteSession) -> UserDeletion:
            deletion = await service.delete_user(
                session,
                user_id,
                user_key=user_key,
                erase_key=input.erase_key or False,
                actor=info.context.actor,
            )
            if deletion.users_with_erased_key:
                await remake_reports_with_keys(session, deletion.users_with_erased_key)
            return deletion

        return await run_mutation(
            info,
            DeleteUserPayload,
            validator,
            delete,
            lambda deletion: DeleteUserPayload(deleted_id=strawberry.ID(str(deletion.user_id))),
        )
