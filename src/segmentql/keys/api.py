"""GraphQL types, queries and mutations of API keys."""

from collections.abc import Awaitable
from datetime import datetime

import strawberry
from strawberry import Parent

from segmentql import errors, validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.errors import ErrorCode, MutationError, as_mutation_error
from segmentql.graphql.types.mutations import run_mutation
from segmentql.graphql.types.nodes import register_node
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    parse_page_arguments,
)
from segmentql.graphql.types.permissions import NeedsAdmin, require
from segmentql.graphql.types.stored_results import NOT_STORED, register_entity
from segmentql.graphql.types.validation import InputValidator
from segmentql.keys import service
from segmentql.keys.loaders import ApiKeyByNumber, ApiKeyByPublicId
from segmentql.keys.records import ApiKeyRecord, key_global_id
from segmentql.tables import Role

describe_enum(
    Role,
    "The role of an API key. Each role includes the ones before it.",
    {
        Role.EVALUATOR: "The API key may evaluate segments through OFREP (OpenFeature), and query"
        " `viewer`.",
        Role.READER: "The API key may also run queries, create exports, and request reports on"
        " single users.",
        Role.EDITOR: "The API key may also create and change data, and read the audit log of"
        " segments and rollouts.",
        Role.ADMIN: "The API key may also delete data, request reports on all users, manage API"
        " keys, and read the whole audit log.",
    },
)


def _key_id(key: Parent[ApiKeyRecord]) -> strawberry.ID:
    return strawberry.ID(key.global_id)


@strawberry.type(description="An API key. Only a hash of its secret is stored.")
class ApiKey:
    id: strawberry.ID = strawberry.field(
        resolver=_key_id,
        description="Opaque id, which is not secret: `key_` and the part between the two `_` of the"
        " token.",
    )

    name: str = strawberry.field(
        description="The name, which history shows as `actor`. Several API keys may have the"
        " same name."
    )
    role: Role = strawberry.field(description="The role of the API key.")
    created_at: datetime = strawberry.field(description="When the API key was created.")
    created_by: str | None = strawberry.field(
        description="The name of the API key that created this one. Null if the command line"
        " created it, or if authentication was off."
    )
    last_used_at: datetime | None = strawberry.field(
        description="When the API key was last used, with a delay of about ten seconds. Null if it"
        " was never used."
    )
    revoked_at: datetime | None = strawberry.field(
        description="When the API key was revoked. Every API process rejects it within one second."
    )


@strawberry.type(description="No API key has this id.")
class ApiKeyNotFound(MutationError):
    id: strawberry.ID = strawberry.field(description="The unknown id.")


@as_mutation_error.register
def _(reason: errors.ApiKeyNotFound) -> MutationError:
    key_id = strawberry.ID(key_global_id(reason.public_id))
    return ApiKeyNotFound(
        code=ErrorCode.API_KEY_NOT_FOUND,
        message=f"No API key has the id {key_id}.",
        path=list(reason.path),
        id=key_id,
    )


@strawberry.type(description="The API key of the current request.")
class Viewer:
    name: str = strawberry.field(
        description="The name of the API key, which history shows as `actor`."
    )
    role: Role = strawberry.field(description="The role of the API key.")
    key_id: strawberry.ID | None = strawberry.field(description="The id of the API key.")


@strawberry.type
class KeyQueries:
    @strawberry.field(
        description="The API key of the current request. Null if authentication is off."
    )
    def viewer(self, info: Info) -> Viewer | None:
        principal = info.context.principal
        if principal.key_id is None or principal.name is None:
            return None
        return Viewer(
            name=principal.name,
            role=principal.role,
            key_id=strawberry.ID(key_global_id(principal.key_id)),
        )

    @strawberry.field(
        permission_classes=[NeedsAdmin],
        description="All API keys, newest first, with the revoked ones. Needs ADMIN.",
        graphql_type=Connection[ApiKey] | None,
    )
    async def api_keys(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
    ) -> Connection[ApiKeyRecord]:
        page = parse_page_arguments("keys", (is_row_id,), first, after)
        before = int(page.after[0]) if page.after else validators.MAX_USER_ID
        keys = await info.context.read(
            lambda session: service.key_page(session, before=before, rows=page.first + 1)
        )
        return page.page(keys, lambda key: (key.number,))


@strawberry.input(description="Input of `createApiKey`.")
class CreateApiKeyInput:
    name: str = strawberry.field(
        description="The name, which history shows as `actor`: 1 to 255 characters."
    )
    role: Role = strawberry.field(description="The role of the API key.")


@strawberry.type(description="Result of `createApiKey`.")
class CreateApiKeyPayload:
    api_key: ApiKeyRecord | None = strawberry.field(
        default=None,
        graphql_type=ApiKey | None,
        description="The API key. Null if the mutation was rejected.",
    )
    token: str | None = strawberry.field(
        default=None,
        description="The API key with its secret, for the header `Authorization: Bearer ...`. It is"
        " shown only once. Null if the mutation was rejected, or is retried with the same"
        " idempotency key.",
        metadata=NOT_STORED,
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.input(description="Input of `revokeApiKey`.")
class RevokeApiKeyInput:
    id: strawberry.ID = strawberry.field(description="The id of the API key.")


@strawberry.type(description="Result of `revokeApiKey`.")
class RevokeApiKeyPayload:
    api_key: ApiKeyRecord | None = strawberry.field(
        default=None,
        graphql_type=ApiKey | None,
        description="The revoked API key. Null if the mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type
class KeyMutations:
    @strawberry.mutation(
        permission_classes=[NeedsAdmin],
        description="Create an API key. To replace an API key, create another one and revoke the"
        " old one. Needs ADMIN.",
    )
    async def create_api_key(
        self,
        info: Info,
        input: CreateApiKeyInput,  # noqa: A002
    ) -> CreateApiKeyPayload | None:
        validator = InputValidator()
        name = validator.value(validators.name, input.name, "name")
        return await run_mutation(
            info,
            CreateApiKeyPayload,
            validator,
            lambda session: service.create_key(
                session, name=name, role=input.role, actor=info.context.actor
            ),
            lambda created: CreateApiKeyPayload(api_key=created[0], token=created[1]),
        )

    @strawberry.mutation(
        permission_classes=[NeedsAdmin],
        description="Revoke an API key permanently, which may be your own. Every API process"
        " rejects it within one second. If it is already revoked, nothing changes. Needs ADMIN.",
    )
    async def revoke_api_key(
        self,
        info: Info,
        input: RevokeApiKeyInput,  # noqa: A002
    ) -> RevokeApiKeyPayload | None:
        validator = InputValidator()
        public_id = validator.value(validators.key_id, input.id, "id")
        return await run_mutation(
            info,
            RevokeApiKeyPayload,
            validator,
            lambda session: service.revoke_key(session, public_id, actor=info.context.actor),
            lambda key: RevokeApiKeyPayload(api_key=key),
        )


register_entity(
    ApiKeyRecord,
    "apiKey",
    lambda key: key.number,
    lambda context, key: context.loader(ApiKeyByNumber).load(key),
)


def _load_node(info: Info, public_id: str) -> Awaitable[ApiKeyRecord | None]:
    require(info, Role.ADMIN, "an API key")
    return info.context.loader(ApiKeyByPublicId).load(public_id)


register_node(ApiKey, ApiKeyRecord, "key_", _load_node, parse=validators.key_id)
