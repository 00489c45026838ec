"""GraphQL mutations of users, with their inputs, payloads and errors."""

import strawberry

from segmentql import errors, validators
from segmentql.exports.user_deletion import delete_user_everywhere
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import ErrorCode, MutationError, as_mutation_error
from segmentql.graphql.types.mutations import DRY_RUN, run_mutation
from segmentql.graphql.types.permissions import NeedsAdmin, NeedsEditor
from segmentql.graphql.types.validation import InputValidator
from segmentql.users import service
from segmentql.users.api import User
from segmentql.users.records import UserRecord


@strawberry.type(description="No stored user has this id or this key.")
class UserNotFound(MutationError):
    pass


@strawberry.type(description="A stored user already has this id or this key.")
class UserAlreadyExists(MutationError):
    user: UserRecord = strawberry.field(
        graphql_type=User, description="The user that has the id or the key."
    )


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


@strawberry.input(description="Input of `createUser`.")
class CreateUserInput:
    id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The user's id, 1 to 9223372036854775807. The mutation is rejected if a stored"
        " user has it. If omitted, the user gets an id that no user ever had: with a key, an id of"
        " at least 100000000000000; without a key, the next unused id after the last one that was"
        " allocated.",
    )
    key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The user's key: 1 to 255 characters without control characters. The mutation"
        " is rejected if a stored user has the key. If omitted, the user has no key; `updateUser`"
        " can set one.",
    )
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type(description="Result of `createUser`.")
class CreateUserPayload:
    user: UserRecord | None = strawberry.field(
        default=None,
        graphql_type=User | None,
        description="The user. Null if the mutation was rejected or was a dry run.",
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
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type(description="Result of `updateUser`.")
class UpdateUserPayload:
    user: UserRecord | None = strawberry.field(
        default=None,
        graphql_type=User | None,
        description="The user. Null if the mutation was rejected or was a dry run.",
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
    key: str | None = strawberry.field(
        default=strawberry.UNSET, description="The user's key. Use either `id` or `key`."
    )
    erase_key: bool | None = strawberry.field(
        default=False,
        description="Whether to erase the user's key as well. It erases every key that a user with"
        " this id ever had, from the history of all deleted users who had one of them; reports with"
        " their keys are made again, results of imports that may have their keys are deleted, and"
        " exports that may have their keys become FAILED. A stored"
        " user with another id keeps the key. If no stored user has the `id` or the `key`, it"
        " erases the keys of the user who was deleted last with it.",
    )
    dry_run: bool | None = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type(description="Result of `deleteUser`.")
class DeleteUserPayload:
    deleted_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The id of the deleted user. Null if the mutation was rejected or was a"
        " dry run.",
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
            dry_run=input.dry_run,
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
            dry_run=input.dry_run,
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
        return await run_mutation(
            info,
            DeleteUserPayload,
            validator,
            lambda session: delete_user_everywhere(
                session,
                user_id,
                user_key=user_key,
                erase_key=bool(input.erase_key),
                actor=info.context.actor,
            ),
            lambda deletion: DeleteUserPayload(deleted_id=strawberry.ID(str(deletion.user_id))),
            dry_run=input.dry_run,
        )
