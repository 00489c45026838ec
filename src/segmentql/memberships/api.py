"""GraphQL of memberships."""

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import strawberry

from segmentql import errors, validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import MutationError, mutation_errors
from segmentql.graphql.types.permissions import NeedsEditor
from segmentql.graphql.types.validation import InputValidator
from segmentql.history.api import Cause
from segmentql.memberships import service
from segmentql.segments.api import Segment
from segmentql.users.api import User


@strawberry.type(description="One user in one segment, from a join on.")
class Membership:
    id: strawberry.ID = strawberry.field(
        description="Opaque; whoever joins again has another membership."
    )
    segment: Segment = strawberry.field(description="The segment.")
    joined_at: datetime = strawberry.field(description="When the user joined.")
    updated_at: datetime = strawberry.field(
        description="When the membership was changed last: its end, or its cause."
    )
    expires_at: datetime | None = strawberry.field(
        description="When it ends by itself; null: not by itself."
    )
    cause: Cause = strawberry.field(description="Why the user is in: MANUAL or ROLLOUT.")
    actor: str | None = strawberry.field(
        description="Who put the user in, where somebody is known to have."
    )
    row: strawberry.Private[Any]

    @classmethod
    def from_row(cls, row: Any, segment: Segment | None = None) -> "Membership":
        """Make one of a row that has its segment and user, too; the segment may be made already."""
        return cls(
            id=strawberry.ID(f"mem_{row.membership_id}"),
            segment=segment or Segment.from_row(row),
            joined_at=row.joined_at,
            updated_at=row.updated_at,
            expires_at=row.expires_at,
            cause=Cause(row.cause),
            actor=row.actor,
            row=row,
        )

    @strawberry.field(description="The user.")
    def user(self) -> User:
        return User.from_row(self.row)


@strawberry.enum(description="What adding does where the user is an active member already.")
class OnExisting(enum.Enum):
    EXTEND = strawberry.enum_value(
        "EXTEND", description="The later of the two ends; no end beats any."
    )
    REPLACE = strawberry.enum_value("REPLACE", description="The end as asked now.")
    KEEP = strawberry.enum_value("KEEP", description="Nothing changes.")


@strawberry.input(description="Which segments to put a user into and to take the user out of.")
class UpdateUserSegmentsInput:
    user_id: strawberry.ID = strawberry.field(
        description="The caller's number; stored on the way where it is not yet."
    )
    add: list[str] | None = strawberry.field(
        default_factory=list,
        description="Slugs of segments to put the user into. With `remove` 100 at most.",
    )
    remove: list[str] | None = strawberry.field(
        default_factory=list,
        description="Slugs of segments to take the user out of; their rollouts will leave this"
        " user out.",
    )
    ttl_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Ends every membership of `add` so long from now: 1 to 315360000.",
    )
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="Ends every membership of `add` then; instead of `ttlSeconds`.",
    )
    on_existing: OnExisting | None = strawberry.field(
        default=OnExisting.EXTEND,
        description="What adding does where the user is an active member already.",
    )


@strawberry.type(description="What `updateUserSegments` did.")
class UpdateUserSegmentsPayload:
    user: User | None = strawberry.field(description="The user; null when refused.")
    segments_added: int = strawberry.field(description="Joins.")
    segments_removed: int = strawberry.field(description="Leaves by hand.")
    segments_extended: int = strawberry.field(
        description="Memberships that stayed and whose end was changed."
    )
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.type
class MembershipMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Put a user into segments and take the user out of others, all or nothing."
        " Needs EDITOR.",
    )
    async def update_user_segments(
        self,
        info: Info,
        input: UpdateUserSegmentsInput,  # noqa: A002
    ) -> UpdateUserSegmentsPayload | None:
        try:
            check = InputValidator()
            user_id = check.value(validators.user_id, input.user_id, "userId")
            add, remove = input.add or [], input.remove or []
            _check_slugs(check, add, remove)
            ttl = check.optional(validators.ttl, input.ttl_seconds, "ttlSeconds", absent=None)
            expires_at = input.expires_at or None
            if ttl is not None and expires_at is not None:
                check.add_error("`ttlSeconds` is given too", "at most one of the two", "expiresAt")
            on_existing = input.on_existing or OnExisting.EXTEND
            check.raise_errors()
            changed = await info.context.database.transaction(
                lambda session: service.update_user_segments(
                    session,
                    user_id=user_id,
                    add=add,
                    remove=remove,
                    ttl=ttl,
                    expires_at=expires_at,
                    on_existing=service.OnExisting[on_existing.name],
                    actor=info.context.actor,
                )
            )
        except errors.MutationRejected as refused:
            return UpdateUserSegmentsPayload(
                user=None,
                segments_added=0,
                segments_removed=0,
                segments_extended=0,
                errors=mutation_errors(refused),
            )
        return UpdateUserSegmentsPayload(
            user=User.from_row(changed.user),
            segments_added=changed.added,
            segments_removed=changed.removed,
            segments_extended=changed.extended,
            errors=[],
        )


def _check_slugs(check: InputValidator, add: Sequence[str], remove: Sequence[str]) -> None:
    """Each slug well formed, named once in both lists together, and not too many of them."""
    total = len(add) + len(remove)
    if total > validators.MAX_SLUGS_PER_CHANGE:
        longer = "add" if len(add) >= len(remove) else "remove"
        check.add_error(
            f"{total} slugs in `add` and `remove`",
            f"at most {validators.MAX_SLUGS_PER_CHANGE} slugs together",
            longer,
        )
        return
    seen: dict[str, str] = {}
    for field, slugs in (("add", add), ("remove", remove)):
        for position, slug in enumerate(slugs):
            check.value(validators.slug, slug, field, str(position))
            before = seen.setdefault(slug, f"{field}.{position}")
            if before != f"{field}.{position}":
                check.add_error(
                    f"{slug} is named by {before} already",
                    "each slug once, in `add` or in `remove`",
                    field,
                    str(position),
                )
