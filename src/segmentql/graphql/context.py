"""What a resolver finds at `info.context`: never a session, for resolvers run side by side."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import strawberry

from segmentql.adapters.database import Database, ReadSession
from segmentql.adapters.storage import Storage
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.cost.deadlines import Deadline
from segmentql.graphql.cost.scheduling import BackgroundLimiter
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.types.dataloader import L, LoaderRegistry
from segmentql.graphql.types.error_causes import FailureCause
from segmentql.principal import Principal

T = TypeVar("T")


@dataclass(slots=True)
class Context:
    """One request's view of the service."""

    database: Database
    storage: Storage
    stopping: asyncio.Event
    """Set when the process is told to stop: whoever only waits should answer now."""

    background: BackgroundLimiter
    """The turns of what can wait."""

    primary_loaders: LoaderRegistry
    replica_loaders: LoaderRegistry
    request_id: str
    principal: Principal
    primary: bool
    """Whether reads must see every commit so far: false only where a replica may answer."""

    fault: Unavailable | TimedOut | None = None
    """What the query met already: told at once where it would be met again."""

    deadline: Deadline | None = None
    """When the request has taken too long; None: never."""

    changes: bool = False
    """Whether what is being executed may change something."""

    cause: FailureCause | None = None
    """Why the request was rejected or failed, for its log line."""

    response_bytes: int = 0
    """The most that the response may have."""

    remaining_bytes: int = 0
    """Of these, how many are not counted yet."""

    def count_bytes(self, size: int) -> None:
        """Count bytes of the response.

        Raises:
            ResponseTooLarge: it has more than it may have.
        """
        self.remaining_bytes -= size
        if self.remaining_bytes < 0:
            raise self.too_large()

    def too_large(self) -> ResponseTooLarge:
        """The error of a response that has more bytes than it may have."""
        return ResponseTooLarge(self.response_bytes, self.response_bytes - self.remaining_bytes)

    @property
    def actor(self) -> str | None:
        """Who asks, as history will name them; None where no key is asked for."""
        return self.principal.name

    def waiting(self) -> AbstractContextManager[None]:
        """What is waited for within, because that was asked for, is not counted as time taken."""
        return self.deadline.pause() if self.deadline else nullcontext()

    def loader(self, kind: type[L]) -> L:
        """The process' loader of this kind, for the database that this request reads.

        Raises:
            Unavailable, TimedOut: it is where this query failed before.
        """
        loader = (self.primary_loaders if self.primary else self.replica_loaders).get(kind)
        fault = self.fault
        if isinstance(fault, Unavailable):
            raise fault
        if fault and (fault.source is loader or getattr(fault.source, "subsumes", None) is kind):
            raise fault
        return loader

    async def read(self, work: Callable[[ReadSession], Awaitable[T]]) -> T:
        """Run a read that cannot share a statement with others.

        Raises:
            Unavailable, TimedOut: also where this query failed before.
        """
        if isinstance(self.fault, Unavailable) or (self.fault and self.fault.source is None):
            raise self.fault
        return await self.database.read_one(work, primary=self.primary)


Info: TypeAlias = strawberry.Info[Context, None]


def selects_field(info: Info, field: str) -> bool:
    """Whether `field`, without arguments, is asked of what the resolver answers with.

    Plans know (`plans.py`); where graphql-core executes it is not looked up, and false.
    """
    return field in getattr(info._raw_info, "selected_fields", ())
