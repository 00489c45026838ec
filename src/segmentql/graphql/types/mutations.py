"""What all mutations share: they validate input, run one transaction and build a payload."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from segmentql.adapters.sessions import WriteSession
from segmentql.errors import MutationRejected
from segmentql.graphql.context import Info
from segmentql.graphql.types.errors import mutation_errors
from segmentql.graphql.types.validation import InputValidator

R = TypeVar("R")
P = TypeVar("P")


async def run_mutation(
    info: Info,
    payload: Callable[..., P],
    validator: InputValidator,
    work: Callable[[WriteSession], Awaitable[R]],
    build: Callable[[R], P],
) -> P:
    """Run a mutation in one transaction if its input is valid.

    Args:
        info: The resolver's info.
        payload: The payload's type. Its only required argument may be `errors`.
        validator: The validator that has read all input.
        work: The work, which may run several times (see `Database.transaction`).
        build: Builds the payload from the result of the committed work.

    Returns:
        The built payload; if the input is invalid or a service rejected the mutation, a payload
        with `errors` only.
    """
    try:
        validator.raise_errors()
        result = await info.context.database.transaction(work)
    except MutationRejected as rejected:
        return payload(errors=mutation_errors(rejected))
    return build(result)
