"""What all mutations share: they validate input, run one transaction and build a payload."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from segmentql.errors import IdempotencyKeyInUse, MutationRejected
from segmentql.graphql.context import Info
from segmentql.graphql.cost.scheduling import BackgroundLimiter
from segmentql.graphql.types.errors import mutation_errors
from segmentql.graphql.types.idempotency import (
    IdempotentRunner,
    MutationWork,
    ReplayedResult,
    Work,
)
from segmentql.graphql.types.stored_results import decode_payload, encode_payload
from segmentql.graphql.types.validation import InputValidator

R = TypeVar("R")
P = TypeVar("P")

DRY_RUN: Final = (
    "If true, the mutation is checked and changes nothing. The payload has the errors and counts"
    " that the mutation would have now. Its other fields are null."
)
"""The description of `dryRun` in inputs."""
RETRY_SECONDS: Final = 1
"""When a client should retry a mutation whose idempotency key is in use, in seconds."""


async def run_mutation(
    info: Info,
    payload: Callable[..., P],
    validator: InputValidator,
    work: Work[R],
    build: Callable[[R], P],
    *,
    dry_run: bool | None = False,
    preview: Callable[[R], Awaitable[P]] | None = None,
    limiter: BackgroundLimiter | None = None,
) -> P:
    """Run a mutation in one transaction if its input is valid.

    If the mutation has an idempotency key, it is executed once for the key.

    Args:
        info: The resolver's info.
        payload: The payload's type. Its only required argument may be `errors`.
        validator: The validator that has read all input.
        work: The work, which may run several times (see `Database.transaction`).
        build: Builds the payload from the result of the work. It has no effects.
        dry_run: Whether to roll the work back. The idempotency key is not used then.
        preview: Builds the payload of a dry run, which has counts and no entities. None if the
            payload has no counts.
        limiter: The limiter of the transaction, if any.

    Returns:
        The built payload; if the input is invalid or a service rejected the mutation, a payload
        with `errors` only. A dry run without `preview` returns a payload without values.
    """

    async def prepare() -> Work[R]:
        return work

    try:
        validator.raise_errors()
        mutation = MutationWork(prepare, build, needs_lookup=False, limiter=limiter)
        if dry_run:
            async with mutation.limited():
                result = await info.context.database.transaction(work, dry_run=True)
            return await preview(result) if preview else payload()
        return await _run(info, payload, mutation)
    except MutationRejected as rejected:
        return payload(errors=mutation_errors(rejected))


async def run_prepared_mutation(
    info: Info,
    payload: Callable[..., P],
    validator: InputValidator,
    prepare: Callable[[], Awaitable[Work[R]]],
    build: Callable[[R], P],
    *,
    limiter: BackgroundLimiter | None = None,
) -> P:
    """Run a mutation that reads or writes something before its transaction.

    Args:
        info: The resolver's info.
        payload: The payload's type. Its only required argument may be `errors`.
        validator: The validator that has read all input.
        prepare: Returns the work of the transaction. It can reject the mutation. With an
            idempotency key, it may run in several processes, of which one commits its work.
        build: Builds the payload from the result of the work. It has no effects.
        limiter: The limiter of the preparation and the transaction, if any.

    Returns:
        The payload, as `run_mutation` returns it.
    """
    try:
        validator.raise_errors()
        return await _run(
            info, payload, MutationWork(prepare, build, needs_lookup=True, limiter=limiter)
        )
    except MutationRejected as rejected:
        return payload(errors=mutation_errors(rejected))


async def _run(info: Info, payload: Callable[..., P], work: MutationWork[R, P]) -> P:
    context = info.context
    keys = context.idempotency_keys
    if keys is None or keys.current_call is None:
        async with work.limited():
            result = await context.database.transaction(await work.prepare())
        return work.build(result)
    try:
        runner = context.feature(IdempotentRunner)  # type: ignore[type-abstract]
        outcome = await runner.run(keys.current_call, work, encode_payload)
    except IdempotencyKeyInUse:
        keys.retry_after_seconds = RETRY_SECONDS
        raise
    if isinstance(outcome, ReplayedResult):
        return await decode_payload(payload, context, outcome.stored)
    return outcome.payload
