"""GraphQL of API keys."""

import enum
from datetime import datetime
from typing import Any

import strawberry

from segmentql import errors, tables, validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import (
    ErrorCode,
    MutationError,
    as_mutation_error,
    mutation_errors,
)
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    parse_page_arguments,
)
from segmentql.graphql.types.permissions import NeedsAdmin
from segmentql.graphql.types.validation import InputValidator
from segmentql.keys import service


@strawberry.enum(description="What a key may do.")
class Role(enum.Enum):
    READER = strawberry.enum_value(
        "READER", description="Queries, and reports on single users, which all roles may."
    )
    EDITOR = strawberry.enum_value(
        "EDITOR", description="Also mutations, but for what only ADMIN may."
    )
    ADMIN = strawberry.enum_value(
        "ADMIN", description="Also deletions, reports on all users, and keys."
    )


@strawberry.type(description="A key that lets its bearer in. Its secret is not kept.")
class ApiKey:
    id: strawberry.ID = strawberry.field(
        description="Opaque, and no secret: `key_` and what is between the two `_` of the key."
    )
    name: str = strawberry.field(
        description="What it is called, as history's `actor` is. Several may be called the same."
    )
    role: Role = strawberry.field(description="What it may do.")
    created_at: datetime = strawberry.field(description="When it was made.")
    created_by: str | None = strawberry.field(
        description="The name of the key that made it; null: made by the command line."
    )
    last_used_at: datetime | None = strawberry.field(
        description="When it was used last, within some ten seconds; null: never."
    )
    revoked_at: datetime | None = strawberry.field(
        description="When it was revoked; a second later it let nobody in any more."
    )

    @classmethod
    def from_row(cls, row: Any) -> "ApiKey":
        return cls(
            id=_id(row.public_id),
            name=row.name,
            role=Role(row.role),
            created_at=row.created_at,
            created_by=row.created_by,
            last_used_at=row.last_used_at,
            revoked_at=row.revoked_at,
        )


def _id(public_id: str) -> strawberry.ID:
    return strawberry.ID(f"key_{public_id}")


@strawberry.type(description="No key has this id.")
class ApiKeyNotFound(MutationError):
    id: strawberry.ID = strawberry.field(description="The id that none has.")


@as_mutation_error.register
def _(refusal: errors.ApiKeyNotFound) -> MutationError:
    return ApiKeyNotFound(
        code=ErrorCode.API_KEY_NOT_FOUND,
        message=f"No key has the id {_id(refusal.public_id)}.",
        path=list(refusal.path),
        id=_id(refusal.public_id),
    )


@strawberry.type(description="Whoever asks, by their key.")
class Viewer:
    name: str = strawberry.field(description="The key's name, which history shows as `actor`.")
    role: Role = strawberry.field(description="What the key may do.")
    key_id: strawberry.ID = strawberry.field(description="The key's id.")


@strawberry.type
class KeyQueries:
    @strawberry.field(description="Who you are; null where the service asks for no keys.")
    def viewer(self, info: Info) -> Viewer | None:
        principal = info.context.principal
        if principal.key_id is None or principal.name is None:
            return None
        return Viewer(name=principal.name, role=Role(principal.role), key_id=_id(principal.key_id))

    @strawberry.field(
        permission_classes=[NeedsAdmin],
        description="The keys, newest first, those that were revoked among them. Needs ADMIN.",
    )
    async def api_keys(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
    ) -> Connection[ApiKey] | None:
        page = parse_page_arguments("keys", (is_row_id,), first, after)
        before = int(page.after[0]) if page.after else validators.MAX_USER_ID
        rows = await info.context.read(
            lambda session: service.key_page(session, before=before, rows=page.first + 1)
        )
        return page.page(rows, ApiKey.from_row, lambda row: (row.key_number,))


@strawberry.input(description="The key to make.")
class CreateApiKeyInput:
    name: str = strawberry.field(
        description="What it is called, as history will name its bearer: 1 to 255 characters."
    )
    role: Role = strawberry.field(description="What it may do.")


@strawberry.type(description="What `createApiKey` did.")
class CreateApiKeyPayload:
    api_key: ApiKey | None = strawberry.field(description="The key; null when refused.")
    token: str | None = strawberry.field(
        description="What its bearer sends as `Authorization: Bearer ...`. It is shown now and"
        " never again; null when refused."
    )
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.input(description="Which key to revoke.")
class RevokeApiKeyInput:
    id: strawberry.ID = strawberry.field(description="The key's id.")


@strawberry.type(description="What `revokeApiKey` did.")
class RevokeApiKeyPayload:
    api_key: ApiKey | None = strawberry.field(
        description="The key as it is now; null when refused."
    )
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.type
class KeyMutations:
    @strawberry.mutation(
        permission_classes=[NeedsAdmin],
        description="Make a key. To replace one, make another, then revoke it. Needs ADMIN.",
    )
    async def create_api_key(
        self,
        info: Info,
        input: CreateApiKeyInput,  # noqa: A002
    ) -> CreateApiKeyPayload | None:
        try:
            check = InputValidator()
            name = check.value(validators.name, input.name, "name")
            check.raise_errors()
            row, token = await info.context.database.transaction(
                lambda session: service.create_key(
                    session,
                    name=name,
                    role=tables.Role[input.role.name],
                    actor=info.context.actor,
                )
            )
        except errors.MutationRejected as refused:
            return CreateApiKeyPayload(api_key=None, token=None, errors=mutation_errors(refused))
        return CreateApiKeyPayload(api_key=ApiKey.from_row(row), token=token, errors=[])

    @strawberry.mutation(
        permission_classes=[NeedsAdmin],
        description="Revoke a key for good, your own if you like: a second later it lets nobody in."
        " One that was revoked before stays as it is. Needs ADMIN.",
    )
    async def revoke_api_key(
        self,
        info: Info,
        input: RevokeApiKeyInput,  # noqa: A002
    ) -> RevokeApiKeyPayload | None:
        try:
            check = InputValidator()
            public_id = check.value(validators.key_id, input.id, "id")
            check.raise_errors()
            row = await info.context.database.transaction(
                lambda session: service.revoke_key(session, public_id, actor=info.context.actor)
            )
        except errors.MutationRejected as refused:
            return RevokeApiKeyPayload(api_key=None, errors=mutation_errors(refused))
        return RevokeApiKeyPayload(api_key=ApiKey.from_row(row), errors=[])
