"""The creation of request contexts, which have the objects that all requests share."""

import asyncio
from collections.abc import Mapping
from typing import Any

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.graphql.context import Context
from segmentql.graphql.cost.deadlines import Deadline
from segmentql.graphql.cost.scheduling import BackgroundLimiter
from segmentql.graphql.http.request_parsing import Headers
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.graphql.types.idempotency import RequestIdempotencyKeys
from segmentql.principal import Principal


class ContextFactory:
    """A factory of the contexts of requests and streams. A process has one."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        stopping: asyncio.Event,
        *,
        features: Mapping[type, Any],
    ) -> None:
        """Create the factory.

        Args:
            database: The database.
            storage: The object store.
            stopping: The event that is set when the process shuts down.
            features: The objects that features share among all requests, by their type.
        """
        self._database = database
        self._storage = storage
        self._stopping = stopping
        self._features = features
        self._background = BackgroundLimiter()
        self._primary_loaders = LoaderRegistry(database, primary=True)
        self._replica_loaders = (
            LoaderRegistry(database, primary=False)
            if database.has_replica
            else self._primary_loaders
        )

    def new_context(
        self, headers: Headers, principal: Principal, deadline: Deadline | None, request_id: str
    ) -> Context:
        """Return the context of a request."""
        key = headers.get(b"idempotency-key")
        return Context(
            database=self._database,
            storage=self._storage,
            stopping=self._stopping,
            background=self._background,
            features=self._features,
            primary_loaders=self._primary_loaders,
            replica_loaders=self._replica_loaders,
            request_id=request_id,
            principal=principal,
            deadline=deadline,
            primary=headers.get(b"segmentql-read", b"").lower() == b"primary",
            idempotency_keys=None if key is None else RequestIdempotencyKeys(key),
        )
