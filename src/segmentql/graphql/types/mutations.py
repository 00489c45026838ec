"""What all mutations share: they validate input, run one transaction and build a payload."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from segmentql.adapters.sessions import WriteSession
from segmentql.errors import MutationRejected
from segmentql.graphql.context import Info
from segmentql.graphql.types.errors import mutation_errors
from segmentql.graphql.types.validation import InputValidator

R = TypeVar("R")
P = TypeVar("P")

DRY_RUN: Final = (
    "Whether to check the mutation without a change: the errors and counts are those of the"
    " mutation if it ran now, and everything else in the payload is null."
)
"""The description of `dryRun` in inputs."""


async def run_mutation(
    info: Info,
    payload: Callable[..., P],
    validator: InputValidator,
    work: Callable[[WriteSession], Awaitable[R]],
    build: Callable[[R], P],
    *,
    dry_run: bool | None = False,
    preview: Callable[[R], Awaitable[P]] | None = None,
) -> P:
    """Run a mutation in one transaction if its input is valid.

    Args:
        info: The resolver's info.
        payload: The payload's type. Its only required argument may be `errors`.
        validator: The validator that has read all input.
        work: The work, which may run several times (see `Database.transaction`).
        build: Builds the payload from the result of the committed work.
        dry_run: Whether to roll the work back.
        preview: Builds the payload of a dry run, which has counts and no entities. None if the
            payload has no counts.

    Returns:
        The built payload; if the input is invalid or a service rejected the mutation, a payload
        with `errors` only. A dry run without `preview` returns a payload without values.
    """
    try:
        validator.raise_errors()
        result = await info.context.database.transaction(work, dry_run=bool(dry_run))
    except MutationRejected as rejected:
        return payload(errors=mutation_errors(rejected))
    if not dry_run:
        return build(result)
    return await preview(result) if preview else payload()
