"""The execution of mutations with idempotency keys.

A client that got no response retries its mutation with the same key, often while the first call is
still running. Calls in one process join the first one before they take a connection. Calls in
different processes wait for each other in the database, when they insert the row of the key.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import IdempotencyKeyReused, MutationRejected
from segmentql.graphql.types.idempotency import (
    IdempotentCall,
    IdempotentRunner,
    MutationWork,
    NewResult,
    ReplayedResult,
    StoredResult,
)
from segmentql.idempotency import service
from segmentql.idempotency.exceptions import copy_exception
from segmentql.idempotency.records import StoredCall

R = TypeVar("R")
P = TypeVar("P")

_Outcome: TypeAlias = StoredCall | Exception | None
"""The end of a call: the mutation that is stored under its key, or an error; None if the call was
cancelled."""


@dataclass(frozen=True, slots=True)
class _RunningCall:
    """A call that other calls with the same key join."""

    fingerprint: bytes
    outcome: asyncio.Future[_Outcome]


@dataclass(frozen=True, slots=True)
class _Committed(Generic[P]):
    """The result of a transaction."""

    stored: StoredCall
    new: NewResult[P] | None
    """The result of the mutation; None if an earlier transaction has executed it."""


class DatabaseIdempotentRunner(IdempotentRunner):
    """The runner of one process, which stores the results in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running: dict[tuple[str | None, str], _RunningCall] = {}
        """The running calls by their API key and idempotency key."""

    async def run(
        self, call: IdempotentCall, work: MutationWork[R, P], encode: Callable[[P], StoredResult]
    ) -> NewResult[P] | ReplayedResult:
        identity = (call.api_key_id, call.key)
        while (running := self._running.get(identity)) is not None:
            # shield: if this call is cancelled, the others still wait for the future.
            outcome = await asyncio.shield(running.outcome)
            if isinstance(outcome, StoredCall):
                return _replay(call, outcome, state="running")
            if outcome is not None and running.fingerprint == call.fingerprint:
                raise copy_exception(outcome)
            # The first call was cancelled, or failed with another input: this one may be the next.
        future: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        self._running[identity] = _RunningCall(call.fingerprint, future)
        outcome = None
        try:
            committed = await self._execute(call, work, encode)
            outcome = committed.stored
        except Exception as error:
            outcome = error
            raise
        finally:
            del self._running[identity]
            future.set_result(outcome)
        return committed.new or _replay(call, committed.stored, state="stored")

    async def _execute(
        self, call: IdempotentCall, work: MutationWork[R, P], encode: Callable[[P], StoredResult]
    ) -> _Committed[P]:
        """Execute a mutation, or find its result in the database."""
        if work.needs_lookup and (stored := await self._find(call)):
            return _Committed(stored, None)
        async with work.limited():
            try:
                transaction_work = await work.prepare()
            except MutationRejected:
                # Another process may have executed the mutation since the lookup, and that may be
                # the reason of the rejection.
                if work.needs_lookup and (stored := await self._find(call)):
                    return _Committed(stored, None)
                raise

            async def attempt(session: WriteSession) -> _Committed[P]:
                claim = await service.claim_key(
                    session, call.api_key_id, call.key, call.fingerprint
                )
                if isinstance(claim, StoredCall):
                    return _Committed(claim, None)
                payload = work.build(await transaction_work(session))
                result = encode(payload)
                await service.store_result(session, claim, result)
                return _Committed(StoredCall(call.fingerprint, result), NewResult(payload))

            return await self._database.transaction(attempt)

    async def _find(self, call: IdempotentCall) -> StoredCall | None:
        return await self._database.read_one(
            lambda session: service.find_call(session, call.api_key_id, call.key)
        )


def _replay(call: IdempotentCall, stored: StoredCall, *, state: str) -> ReplayedResult:
    """Return the stored result of an earlier call.

    Raises:
        MutationRejected: The earlier call had another mutation or input.
    """
    if stored.fingerprint != call.fingerprint:
        raise MutationRejected(IdempotencyKeyReused(()))
    metrics.IDEMPOTENT_REPLAYS.labels(state).inc()
    return ReplayedResult(stored.result)
