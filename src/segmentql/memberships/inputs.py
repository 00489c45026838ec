"""GraphQL inputs of the mutations of memberships, and how they are decoded."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol, TypeVar

import strawberry

from segmentql import validators
from segmentql.graphql.types.errors import limit_exceeded
from segmentql.graphql.types.mutations import DRY_RUN
from segmentql.graphql.types.validation import InputValidator
from segmentql.memberships import segment_members
from segmentql.memberships.records import Expiry, MemberLists, OnExcluded, OnExisting

T = TypeVar("T")

ON_EXISTING: Final = "The effect of adding a user who is already an active member."
ON_EXCLUDED: Final = "The effect of adding a user who is excluded from the segment's rollout."


class ExpiryInput(Protocol):
    """An input with the end of the memberships to add."""

    ttl_seconds: int | None
    expires_at: datetime | None


@strawberry.input(description="Input of `updateUserSegments`.")
class UpdateUserSegmentsInput:
    user_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The user's id. If the user is not stored, the mutation stores the user. Use"
        " either `userId` or `userKey`.",
    )
    user_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The user's key: 1 to 255 characters without control characters. If no stored"
        " user has the key, the mutation stores a user with the key and a new id.",
    )
    add: list[str] | None = strawberry.field(
        default_factory=list,
        description="Slugs of the segments to add the user to. `add` and `remove` together have at"
        " most 100 slugs.",
    )
    remove: list[str] | None = strawberry.field(
        default_factory=list,
        description="Slugs of the segments to remove the user from. The segments' rollouts"
        " exclude the user from then on.",
    )
    ttl_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Seconds until the memberships of `add` end: 1 to 315360000.",
    )
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When the memberships of `add` end. Use it instead of `ttlSeconds`.",
    )
    on_existing: OnExisting | None = strawberry.field(
        default=OnExisting.EXTEND,
        description=ON_EXISTING,
    )
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.input(description="Input of `updateSegmentMembers`.")
class UpdateSegmentMembersInput:
    slug: str = strawberry.field(description="The slug of the segment.")
    add: list[strawberry.ID] | None = strawberry.field(
        default_factory=list,
        description="Ids of the users to add. A user who is not stored is stored. All four lists"
        " together have at most 1000 items.",
    )
    remove: list[strawberry.ID] | None = strawberry.field(
        default_factory=list,
        description="Ids of the users to remove. The segment's rollout excludes them from then on."
        " A user who is not stored stays unknown.",
    )
    add_keys: list[str] | None = strawberry.field(
        default_factory=list,
        description="Keys of the users to add. If no stored user has a key, a user with the key"
        " and a new id is stored.",
    )
    remove_keys: list[str] | None = strawberry.field(
        default_factory=list, description="Keys of the users to remove, like `remove`."
    )
    ttl_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Seconds until the memberships of the users to add end: 1 to 315360000.",
    )
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When the memberships of the users to add end. Use it instead of `ttlSeconds`.",
    )
    on_existing: OnExisting | None = strawberry.field(
        default=OnExisting.EXTEND,
        description=ON_EXISTING,
    )
    on_excluded: OnExcluded | None = strawberry.field(
        default=OnExcluded.ADMIT,
        description=ON_EXCLUDED,
    )
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


def read_expiry(validator: InputValidator, fields: ExpiryInput) -> Expiry:
    """Decode the end of the memberships to add."""
    ttl = validator.optional(validators.ttl, fields.ttl_seconds, "ttlSeconds", absent=None)
    expires_at = fields.expires_at or None
    if ttl is not None and expires_at is not None:
        validator.add_error(
            "both `ttlSeconds` and `expiresAt` are set",
            "at most one of `ttlSeconds` and `expiresAt`",
            "expiresAt",
        )
    return Expiry(ttl, expires_at)


def read_member_lists(validator: InputValidator, fields: UpdateSegmentMembersInput) -> MemberLists:
    """Decode the lists, and check their length and that no value is to add and to remove.

    Raises:
        GraphQLError: The lists have too many items (LIMIT_EXCEEDED).
    """
    add, remove = fields.add or [], fields.remove or []
    add_keys, remove_keys = fields.add_keys or [], fields.remove_keys or []
    total = len(add) + len(remove) + len(add_keys) + len(remove_keys)
    if total > validators.MAX_USERS_PER_CHANGE:
        raise limit_exceeded("input", limit=validators.MAX_USERS_PER_CHANGE, value=total)
    id_lists = _read_lists(validator, validators.user_id, add=add, remove=remove)
    key_lists = _read_lists(
        validator, validators.user_key, addKeys=add_keys, removeKeys=remove_keys
    )
    return MemberLists(
        id_lists["add"], id_lists["remove"], key_lists["addKeys"], key_lists["removeKeys"]
    )


def _read_lists(
    validator: InputValidator, rule: Callable[[str], T], **lists: Sequence[str]
) -> dict[str, list[T]]:
    """Decode a list of users to add and one of users to remove. No value may be in both."""
    decoded = {
        field: [
            validator.value(rule, value, field, str(position))
            for position, value in enumerate(values)
        ]
        for field, values in lists.items()
    }
    (add_field, added), (remove_field, removed) = decoded.items()
    both = set(added).intersection(removed)
    for position, value in enumerate(removed):
        if value in both:
            validator.add_error(
                f"the user is already in {add_field}.{added.index(value)}",
                segment_members.ONE_LIST,
                remove_field,
                str(position),
            )
    return decoded


def validate_slugs(validator: InputValidator, add: Sequence[str], remove: Sequence[str]) -> None:
    """Validate the form, the uniqueness and the number of the slugs of both lists."""
    total = len(add) + len(remove)
    if total > validators.MAX_SLUGS_PER_CHANGE:
        longer = "add" if len(add) >= len(remove) else "remove"
        validator.add_error(
            f"{total} slugs in `add` and `remove`",
            f"at most {validators.MAX_SLUGS_PER_CHANGE} slugs together",
            longer,
        )
        return
    first_paths: dict[str, str] = {}
    for field, slugs in (("add", add), ("remove", remove)):
        for position, slug in enumerate(slugs):
            validator.value(validators.slug, slug, field, str(position))
            path = f"{field}.{position}"
            first_path = first_paths.setdefault(slug, path)
            if first_path != path:
                validator.add_error(
                    f"{slug} is already in {first_path}",
                    "each slug once, in `add` or in `remove`",
                    field,
                    str(position),
                )
