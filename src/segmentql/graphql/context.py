"""What a resolver finds at `info.context`: never a session, for resolvers run side by side."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import strawberry

from segmentql.adapters.database import Database, ReadSession
from segmentql.graphql.batching import L, Loaders

T = TypeVar("T")


@dataclass(slots=True)
class Context:
    """One request's view of the service."""

    database: Database
    primary_loaders: Loaders
    replica_loaders: Loaders
    request_id: str
    primary: bool
    """Whether reads must see every commit so far: false only where a replica may answer."""

    actor: str | None = None
    """Who asks, as history will name them; None when nobody said."""

    def loader(self, kind: type[L]) -> L:
        """The process' loader of this kind, for the database that this request reads."""
        return (self.primary_loaders if self.primary else self.replica_loaders).get(kind)

    async def read(self, work: Callable[[ReadSession], Awaitable[T]]) -> T:
        """Run a read that cannot share a statement with others."""
        return await self.database.read_one(work, primary=self.primary)


Info: TypeAlias = strawberry.Info[Context, None]
