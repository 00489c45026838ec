"""The middleware of graphql-core, which it calls for each field of operations without a plan."""

from collections.abc import Callable
from typing import Any, Final

from graphql import GraphQLResolveInfo
from segmentql.graphql.context import Context
from segmentql.graphql.execution.idempotency_keys import find_idempotent_call
from segmentql.graphql.execution.input_coercion import DEFINITION
from segmentql.graphql.execution.plans import MutationResult
from segmentql.graphql.types.errors import forbidden
from segmentql.tables import Role

EVALUATOR_FIELDS: Final = frozenset({"viewer", "__typename"})
"""The root fields that the role EVALUATOR may query."""


def build_middleware(context: Context, mutation_result: MutationResult | None) -> list[Any] | None:
    """Return the middleware of an operation.

    Args:
        context: The context of the request.
        mutation_result: The result of the mutation, if a plan has already called its resolver.
    """
    middleware: list[Any] = []
    if mutation_result:
        middleware.append(mutation_result)
    elif context.idempotency_keys:
        middleware.append(IdempotentCallMiddleware)
    if context.principal.role is Role.EVALUATOR:
        middleware.append(require_reader_at_root)
    return middleware or None


class IdempotentCallMiddleware:
    """Middleware that stores the idempotent call of each root field for its resolver."""

    @staticmethod
    def resolve(resolver: Callable[..., Any], source: Any, info: Any, **values: Any) -> Any:
        """Store the call, and call the resolver."""
        if info.path.prev is None:
            field = info.parent_type.fields.get(info.field_name)  # __typename has no definition
            info.context.idempotency_keys.current_call = field and find_idempotent_call(
                info.context, info.path.key, info.field_name, field, values
            )
        return resolver(source, info, **values)


def require_reader_at_root(
    resolve: Callable[..., Any], source: Any, info: GraphQLResolveInfo[Any], **arguments: Any
) -> Any:
    """Call the resolver of a field unless only other roles may query it.

    Fields of queries have no permission (`types/permissions.py`), because every other role may
    query them. So the operations of an EVALUATOR have no plan. A root field with a permission
    checks the role itself.

    Raises:
        GraphQLError: The role may not query the root field (FORBIDDEN).
    """
    if info.path.prev is None and info.field_name not in EVALUATOR_FIELDS:
        field = info.parent_type.fields.get(info.field_name)  # None for introspection
        definition = field.extensions.get(DEFINITION) if field else None
        if not getattr(definition, "permission_classes", None):
            raise forbidden(info.field_name, needed=Role.READER, held=info.context.principal.role)
    return resolve(source, info, **arguments)
