"""The GraphQL error of an idempotency key that was used for something else."""

import strawberry

from segmentql import errors
from segmentql.graphql.types.errors import ErrorCode, MutationError, as_mutation_error


@strawberry.type(description="The idempotency key was used with another mutation or another input.")
class IdempotencyKeyReused(MutationError):
    pass


@as_mutation_error.register
def _(reason: errors.IdempotencyKeyReused) -> MutationError:
    return IdempotencyKeyReused(
        code=ErrorCode.IDEMPOTENCY_KEY_REUSED,
        message="The idempotency key was used with another mutation or another input in the last"
        " 24 hours. Use a new key for a new mutation.",
        path=list(reason.path),
    )
