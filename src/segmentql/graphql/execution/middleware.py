"""The middleware of graphql-core for one operation."""

from typing import Any

from segmentql.graphql.context import Context
from segmentql.graphql.execution.plans import MutationResult
from segmentql.graphql.execution.request_keys import KeyedFields
from segmentql.graphql.execution.role_check import require_reader_at_root
from segmentql.tables import Role


def make_middleware(mutation_result: MutationResult | None, context: Context) -> list[Any] | None:
    """Return the middleware of an operation; None if it needs none.

    Args:
        mutation_result: The result of the mutation, if a plan has already called its resolver.
        context: The context of the request.
    """
    middleware: list[Any] = []
    if mutation_result:
        middleware.append(mutation_result)
    elif context.idempotency:
        middleware.append(KeyedFields)
    if context.principal.role is Role.EVALUATOR:
        middleware.append(require_reader_at_root)
    return middleware or None
