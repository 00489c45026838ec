"""GraphQL of users."""

from collections.abc import Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from segmentql import errors, validators
from segmentql.graphql.context import Info, selects_field
from segmentql.graphql.cost.field_cost import HISTORY_REPLAY, HISTORY_SCAN, cost
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.errors import (
    ErrorCode,
    MutationError,
    as_mutation_error,
    limit_exceeded,
    mutation_errors,
)
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
from segmentql.memberships.loaders import (
    ActiveByUser,
    IsExcluded,
    IsIn,
    SegmentsByUser,
    UserWithSegments,
)
from segmentql.segments.api import Segment
from segmentql.users import service
from segmentql.users.loaders import UserById

if TYPE_CHECKING:
    from segmentql.history.api import HistoryEntry
    from segmentql.memberships.api import Membership


@strawberry.type(description="A user who is stored now: a number that the caller owns.")
class User:
    id: strawberry.ID = strawberry.field(description="The caller's number for this user.")
    created_at: datetime = strawberry.field(description="When the user was stored.")
    number: strawberry.Private[int]
    known_segments: strawberry.Private[list[Segment] | None] = None
    """The segments this user is in, where they were read along; None: to be read."""

    @classmethod
    def of(
        cls, number: int, created_at: datetime, known_segments: list[Segment] | None = None
    ) -> "User":
        return cls(
            id=strawberry.ID(str(number)),
            created_at=created_at,
            number=number,
            known_segments=known_segments,
        )

    @classmethod
    def from_row(cls, row: Any) -> "User":
        return cls.of(row.user_id, row.user_created_at)

    # These give the loader's future as it is: an `async def` would cost a task a user.

    @strawberry.field(
        description="The segments this user is in, by slug.",
        graphql_type=list[Segment],
        metadata=cost(if_given={"asOf": HISTORY_REPLAY}),
    )
    def segments(
        self,
        info: Info,
        as_of: Annotated[
            datetime | None,
            strawberry.argument(description="A past moment; without it, now."),
        ] = strawberry.UNSET,
    ) -> Awaitable[list[Segment]] | list[Segment]:
        if as_of:
            return info.context.loader(SegmentsAsOf).load((self.number, as_of))
        if self.known_segments is not None:
            return self.known_segments
        return info.context.loader(SegmentsByUser).load(self.number)

    @strawberry.field(
        description="This user's active memberships, by slug.",
        graphql_type=list[Annotated["Membership", strawberry.lazy("segmentql.memberships.api")]],
    )
    def memberships(self, info: Info) -> Awaitable[list["Membership"]]:
        return info.context.loader(ActiveByUser).load(self.number)

    @strawberry.field(
        description="Whether this user is in the segment that bears the slug; false where none"
        " does.",
        graphql_type=bool,
        metadata=cost(1),
    )
    def is_in(
        self,
        info: Info,
        slug: Annotated[str, strawberry.argument(description="A segment's slug.")],
    ) -> Awaitable[bool] | bool:
        return validators.is_slug(slug) and info.context.loader(IsIn).load((self.number, slug))

    @strawberry.field(
        description="Whether this user was taken out of the segment by hand, so that its rollouts"
        " leave this user out.",
        graphql_type=bool,
        metadata=cost(1),
    )
    def is_excluded(
        self,
        info: Info,
        slug: Annotated[str, strawberry.argument(description="A segment's slug.")],
    ) -> Awaitable[bool] | bool:
        if not validators.is_slug(slug):
            return False
        return info.context.loader(IsExcluded).load((self.number, slug))

    @strawberry.field(
        description="This user's joins and leaves, newest first.", metadata=cost(HISTORY_SCAN)
    )
    async def history(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
        from_: Annotated[
            datetime | None,
            strawberry.argument(name="from", description="The earliest moment, inclusive."),
        ] = strawberry.UNSET,
        to: Annotated[
            datetime | None,
            strawberry.argument(description="The latest moment, exclusive."),
        ] = strawberry.UNSET,
        slug: Annotated[
            str | None,
            strawberry.argument(description="Only segments that bore this slug."),
        ] = strawberry.UNSET,
    ) -> Connection[Annotated["HistoryEntry", strawberry.lazy("segmentql.history.api")]]:
        return await history_connection(
            info.context,
            first=first,
            after=after,
            since=from_,
            until=to,
            user_id=self.number,
            slug=slug,
        )


@strawberry.type(description="The user is not stored.")
class UserNotFound(MutationError):
    pass


@strawberry.type(description="The user is stored already.")
class UserAlreadyExists(MutationError):
    user: User = strawberry.field(description="The user as stored.")


@as_mutation_error.register
def _(refusal: errors.UserNotFound) -> MutationError:
    return UserNotFound(
        code=ErrorCode.USER_NOT_FOUND,
        message=f"User {refusal.user_id} is not stored.",
        path=list(refusal.path),
    )


@as_mutation_error.register
def _(refusal: errors.UserAlreadyExists) -> MutationError:
    return UserAlreadyExists(
        code=ErrorCode.USER_ALREADY_EXISTS,
        message=f"User {refusal.user.user_id} is stored already.",
        path=list(refusal.path),
        user=User.from_row(refusal.user),
    )


def _loader(info: Info) -> Loader[int, User | None]:
    """Reads the users that a field answers with, along with their segments if these are asked."""
    return info.context.loader(UserWithSegments if selects_field(info, "segments") else UserById)


@strawberry.type
class UserQueries:
    @strawberry.field(description="One user; null where not stored now.", graphql_type=User | None)
    def user(
        self,
        info: Info,
        id: Annotated[  # noqa: A002 - the argument's name in the contract
            strawberry.ID, strawberry.argument(description="The caller's number for the user.")
        ],
    ) -> Awaitable[User | None]:
        return _loader(info).load(argument_value(validators.user_id, id, "id"))

    @strawberry.field(
        description="Many users at once, in the order asked and with repeats; null where not"
        " stored.",
        graphql_type=list[User | None] | None,
        metadata=cost(size_of="ids"),
    )
    def users_by_id(
        self,
        info: Info,
        ids: Annotated[
            list[strawberry.ID],
            strawberry.argument(description="The callers' numbers: at most 1000."),
        ],
    ) -> Awaitable[list[User | None]]:
        if len(ids) > validators.MAX_USERS_BY_ID:
            raise limit_exceeded("ids", limit=validators.MAX_USERS_BY_ID, value=len(ids))
        numbers = [
            argument_value(validators.user_id, id_, f"ids.{position}")
            for position, id_ in enumerate(ids)
        ]
        return _loader(info).load_many(numbers)

    @strawberry.field(description="All users, by number.")
    async def users(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
    ) -> Connection[User] | None:
        page = parse_page_arguments("users", (is_row_id,), first, after)
        last = int(page.after[0]) if page.after else 0
        rows = await info.context.read(
            lambda session: service.user_page(session, after=last, rows=page.first + 1)
        )
        return page.page(rows, User.from_row, lambda row: (row.user_id,))


@strawberry.input(description="Which user to store.")
class CreateUserInput:
    id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The caller's number; without it the lowest above the last pick that was"
        " never stored.",
    )


@strawberry.type(description="What `createUser` did.")
class CreateUserPayload:
    user: User | None = strawberry.field(description="The user; null when refused.")
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.input(description="Which user to delete.")
class DeleteUserInput:
    id: strawberry.ID = strawberry.field(description="The caller's number.")


@strawberry.type(description="What `deleteUser` did.")
class DeleteUserPayload:
    deleted_id: strawberry.ID | None = strawberry.field(
        description="The user's number; null when refused."
    )
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.type
class UserMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Store a user who is in no segment yet. Needs EDITOR.",
    )
    async def create_user(self, info: Info, input: CreateUserInput) -> CreateUserPayload | None:  # noqa: A002
        try:
            check = InputValidator()
            number = check.optional(validators.user_id, input.id, "id", absent=None)
            check.raise_errors()
            row = await info.context.database.transaction(
                lambda session: service.create_user(session, number)
            )
        except errors.MutationRejected as refused:
            return CreateUserPayload(user=None, errors=mutation_errors(refused))
        return CreateUserPayload(user=User.from_row(row), errors=[])

    @strawberry.mutation(
        permission_classes=[NeedsAdmin],
        description="Delete a user: memberships end, history stays, exclusions are forgotten."
        " Needs ADMIN.",
    )
    async def delete_user(self, info: Info, input: DeleteUserInput) -> DeleteUserPayload | None:  # noqa: A002
        try:
            check = InputValidator()
            number = check.value(validators.user_id, input.id, "id")
            check.raise_errors()
            await info.context.database.transaction(
                lambda session: service.delete_user(session, number, actor=info.context.actor)
            )
        except errors.MutationRejected as refused:
            return DeleteUserPayload(deleted_id=None, errors=mutation_errors(refused))
        return DeleteUserPayload(deleted_id=strawberry.ID(str(number)), errors=[])
