"""GraphQL types and queries of users."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import strawberry
from strawberry import Parent

from segmentql import validators
from segmentql.errors import BadValue
from segmentql.graphql.context import Info, selects_field
from segmentql.graphql.cost.field_cost import HISTORY_REPLAY, HISTORY_SCAN, cost
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.errors import limit_exceeded
from segmentql.graphql.types.nodes import register_node
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    parse_page_arguments,
)
from segmentql.graphql.types.stored_results import register_entity
from segmentql.graphql.types.times import AsOf, From, To
from segmentql.graphql.types.validation import argument_value
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
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord
from segmentql.users import service
from segmentql.users.loaders import UserById, UserByKey
from segmentql.users.records import UserRecord

if TYPE_CHECKING:
    from segmentql.history.api import HistoryEntry
    from segmentql.memberships.api import Membership

T = TypeVar("T")


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
        as_of: AsOf = strawberry.UNSET,
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
        from_: From = strawberry.UNSET,
        to: To = strawberry.UNSET,
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


# These loaders also read the segments of the users if the query selects them.


def _loader_by_id(info: Info) -> Loader[int, UserRecord | None]:
    return info.context.loader(UserWithSegments if selects_field(info, "segments") else UserById)


def _loader_by_key(info: Info) -> Loader[str, UserRecord | None]:
    return info.context.loader(
        UserWithSegmentsByKey if selects_field(info, "segments") else UserByKey
    )


def _load_many(
    loader: Loader[T, UserRecord | None],
    rule: Callable[[str], T],
    values: Sequence[str],
    argument: str,
) -> Awaitable[list[UserRecord | None]]:
    """Load the users with these ids or keys, in their order and with repeats.

    Raises:
        GraphQLError: there are more than `MAX_USERS_PER_QUERY` values, or a value is invalid.
    """
    if len(values) > validators.MAX_USERS_PER_QUERY:
        raise limit_exceeded(argument, limit=validators.MAX_USERS_PER_QUERY, value=len(values))
    try:
        keys = [rule(value) for value in values]
    except BadValue:
        keys = [
            argument_value(rule, value, f"{argument}.{position}")
            for position, value in enumerate(values)
        ]
    return loader.load_many(keys)


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
        return _loader_by_id(info).load(argument_value(validators.user_id, id, "id"))

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
        return _loader_by_key(info).load(argument_value(validators.user_key, key, "key"))

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
        return _load_many(_loader_by_key(info), validators.user_key, keys, "keys")

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
        return _load_many(_loader_by_id(info), validators.user_id, ids, "ids")

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


register_entity(
    UserRecord,
    "user",
    lambda user: user.user_id,
    lambda context, key: context.loader(UserById).load(key),
)
register_node(
    User, UserRecord, "", lambda info, user_id: info.context.loader(UserById).load(user_id)
)
