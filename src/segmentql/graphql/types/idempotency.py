"""Idempotency keys of a request, and the interface of the runner of mutations with a key."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from segmentql.adapters.sessions import WriteSession
from segmentql.graphql.cost.scheduling import BackgroundLimiter

R = TypeVar("R")
P = TypeVar("P")

DIRECTIVE_NAME: Final = "idempotent"

Work: TypeAlias = Callable[[WriteSession], Awaitable[R]]
"""The work of a mutation within its transaction."""

StoredResult: TypeAlias = Mapping[str, Any]
"""The ids and counts of a payload, as JSON."""


@dataclass(frozen=True, slots=True)
class IdempotentCall:
    """A call of a mutation with an idempotency key."""

    api_key_id: str | None
    """The API key to which the idempotency key belongs; None if authentication is off."""
    key: str
    fingerprint: bytes
    """The fingerprint of the mutation's name and input."""


@dataclass(slots=True)
class RequestIdempotencyKeys:
    """The idempotency keys of one request."""

    header: bytes | None = None
    """The value of the header `Idempotency-Key`."""
    by_field: Mapping[str, str] = field(default_factory=dict)
    """The keys of the root fields, by their names in the response."""
    current_call: IdempotentCall | None = None
    """The call of the current root field, if the field has a key."""
    retry_after_seconds: int | None = None
    """When the client should retry the request, because its key is in use."""


@dataclass(frozen=True, slots=True)
class MutationWork(Generic[R, P]):
    """The parts of a mutation. None of them runs if its stored result is returned."""

    prepare: Callable[[], Awaitable[Work[R]]]
    """Returns the work of the transaction."""
    build: Callable[[R], P]
    """Builds the payload from the result of the work, without effects."""
    needs_lookup: bool
    """Whether `prepare` has effects or depends on stored data, so that an idempotency key must be
    looked up before it. Otherwise only the transaction reads the key."""
    limiter: BackgroundLimiter | None
    """The limiter of the preparation and the transaction."""

    def limited(self) -> AbstractAsyncContextManager[None]:
        """Return the context manager of the preparation and the transaction."""
        return self.limiter.enter() if self.limiter else nullcontext()


@dataclass(frozen=True, slots=True)
class NewResult(Generic[P]):
    """The payload of a mutation that this call has executed."""

    payload: P


@dataclass(frozen=True, slots=True)
class ReplayedResult:
    """The stored result of an earlier call with the same key."""

    stored: StoredResult


class IdempotentRunner(ABC):
    """Runs the mutations with idempotency keys of one process."""

    @abstractmethod
    async def run(
        self,
        call: IdempotentCall,
        work: MutationWork[R, P],
        encode: Callable[[P], StoredResult],
    ) -> NewResult[P] | ReplayedResult:
        """Run a mutation, unless a mutation with its key was committed in the last 24 hours.

        Args:
            call: The call with its key.
            work: The mutation.
            encode: Returns the ids and counts of the payload, which are stored.

        Raises:
            MutationRejected: A service rejected the mutation, or the key was sent with another
                mutation or input.
            IdempotencyKeyInUse: Too many requests wait for a mutation with the same key.
        """
