"""The object at `info.context`: what a resolver uses of the process and of the request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import strawberry

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.adapters.storage import Storage
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.client_connection import ClientConnection
from segmentql.graphql.cost.deadlines import Deadline
from segmentql.graphql.cost.scheduling import BackgroundLimiter, ExpensiveSlot
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.types.dataloader import L, LoaderRegistry
from segmentql.graphql.types.error_causes import FailureCause
from segmentql.graphql.types.idempotency import RequestIdempotencyKeys
from segmentql.principal import Actor, Principal

T = TypeVar("T")


@dataclass(slots=True)
class Context:
    """The context of one request. It has no database session: resolvers run concurrently."""

    database: Database
    storage: Storage
    stopping: asyncio.Event
    """An event that is set when the process shuts down. A resolver that waits must then return."""

    background: BackgroundLimiter
    """The limiter of mutations that only start work that runs later."""

    primary_loaders: LoaderRegistry
    replica_loaders: LoaderRegistry
    request_id: str
    principal: Principal
    primary: bool
    """Whether reads must see every commit so far. If False, a replica may serve them."""

    client: ClientConnection | None = None
    """The client of an HTTP request, for resolvers that wait. None if the transport itself ends the
    operation when the client disconnects or its API key is revoked."""

    features: Mapping[type, Any] = field(default_factory=dict)
    """The objects that features share among all requests of the process, by their type."""

    expensive_slot: ExpensiveSlot | None = None
    """The slot of an expensive query; None if the query is not expensive."""

    database_error: Unavailable | TimedOut | None = None
    """The database error of the query's plan. It is raised again without a second attempt."""

    deadline: Deadline | None = None
    """The deadline of the request; None if it has none."""

    is_mutation: bool = False
    """Whether the executed operation is a mutation."""

    idempotency_keys: RequestIdempotencyKeys | None = None
    """The idempotency keys of the request; None if it has none."""

    cause: FailureCause | None = None
    """The reason why the request was rejected or failed, for its log line."""

    response_bytes: int = 0
    """The maximum size of the response in bytes."""

    remaining_bytes: int = 0
    """The part of `response_bytes` that is not used yet."""

    @property
    def counted_bytes(self) -> int:
        """The bytes of the response that are counted, a lower bound of its size."""
        return self.response_bytes - self.remaining_bytes

    def count_bytes(self, size: int) -> None:
        """Count bytes of the response.

        Raises:
            ResponseTooLarge: The response exceeds its limit.
        """
        self.remaining_bytes -= size
        if self.remaining_bytes < 0:
            raise self.response_too_large()

    def response_too_large(self) -> ResponseTooLarge:
        """Return the error of a response that exceeds its limit."""
        return ResponseTooLarge(self.response_bytes, self.counted_bytes)

    @property
    def actor(self) -> Actor:
        """The author of the request's changes."""
        return Actor(self.principal.name, self.principal.key_id, self.request_id)

    def pause_deadline(self) -> AbstractContextManager[None]:
        """Return a context manager that pauses the request's deadline.

        It is for waits that the client requested, such as `waitSeconds`.
        """
        return self.deadline.pause() if self.deadline else nullcontext()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Pause the request's deadline within the block, and let other expensive queries run.

        It is for waits that the client requested, in queries. Several blocks may overlap.
        """
        async with self.expensive_slot.pause() if self.expensive_slot else nullcontext():
            with self.pause_deadline():
                yield

    def feature(self, kind: type[T]) -> T:
        """Return the object of a feature that all requests of the process share."""
        found: T = self.features[kind]
        return found

    def check_database_error(self) -> None:
        """Raise the database error of the query's plan, if a read that no loader batches failed.

        Raises:
            Unavailable, TimedOut: The plan failed with this error.
        """
        error = self.database_error
        if isinstance(error, Unavailable) or (error and error.source is None):
            raise error

    def loader(self, loader_type: type[L]) -> L:
        """Return the process's loader of a type, for the database that the request reads.

        Raises:
            Unavailable, TimedOut: The query's plan failed with this error, and the loader would
                fail with it again.
        """
        loaders = self.primary_loaders if self.primary else self.replica_loaders
        loader = loaders.get(loader_type)
        error = self.database_error
        if isinstance(error, Unavailable):
            raise error
        if error and (
            error.source is loader or getattr(error.source, "subsumes", None) is loader_type
        ):
            raise error
        return loader

    async def read(self, work: Callable[[ReadSession], Awaitable[T]]) -> T:
        """Run a read that no loader can batch.

        Raises:
            Unavailable, TimedOut: The read failed, or such a read failed in the query's plan.
        """
        self.check_database_error()
        return await self.database.read_one(work, primary=self.primary)


Info: TypeAlias = strawberry.Info[Context, None]


def selects_field(info: Info, field: str) -> bool:
    """Return whether the client selects `field`, without arguments, on the resolver's result.

    Only a plan knows the selection (`plans.py`). If graphql-core executes the operation, the result
    is False.
    """
    return field in getattr(info._raw_info, "selected_fields", ())
