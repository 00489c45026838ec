"""The cache of API keys of one process: a request with a cached key needs no SQL statement.

A background task reads at a short interval which of the cached keys are revoked. An entry is valid
for `CACHE_TTL_SECONDS` after the start of the last successful read of its key. If the entry has
expired or the key is not cached, the request reads the key from the database. So a revoked key is
rejected within a second, even if the task, Redis or the database fails.
"""

import asyncio
import contextlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from segmentql.adapters.database import Database
from segmentql.errors import AuthenticationFailure, Unauthenticated
from segmentql.keys import service
from segmentql.keys.service import StoredKey, hash_of
from segmentql.principal import Principal

log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 0.4
"""From the beginning of one look to that of the next."""

CACHE_TTL_SECONDS: Final = 0.9
"""A second, less what a request takes on its way here."""

MAX_KEYS: Final = 10_000
"""Keys known at a time; those least lately used go first."""

IDLE_SECONDS: Final = 60
"""A key that was not used for so long is forgotten, so that an idle process does not look."""

FLUSH_SECONDS: Final = 10
"""How often uses are written down: `last_used_at` is late by as much at most."""

FLUSH_TIMEOUT_SECONDS: Final = 2
"""How long the last note may take when the process stops."""

_AUTHORIZATION: Final = re.compile(rb"(?i:bearer) +sgql_([a-z0-9]{12})_([0-9a-f]{64}) *")


@dataclass(slots=True)
class _CacheEntry:
    stored: StoredKey
    verified_at: float
    """When the last read began that found it live; these are monotonic seconds."""

    used_at: float


class ApiKeyCache:
    """The keys that callers of this process use; `lookup` asks the database for one of them."""

    def __init__(
        self,
        database: Database,
        lookup: Callable[[str], Awaitable[StoredKey | None]],
        *,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._max_keys = max_keys
        self._database = database
        self._lookup = lookup
        self._entries: OrderedDict[str, _CacheEntry] = OrderedDict()
        self._is_not_empty = asyncio.Event()
        self._used: set[str] = set()
        self._refresh_is_failing = False

    async def authenticate(self, authorization: bytes | None) -> Principal:
        """Who bears the key of an Authorization header.

        Raises:
            Unauthenticated: nobody whom we know.
            Unavailable, TimedOut: the database would have to be asked, and does not answer.
        """
        if authorization is None:
            raise Unauthenticated(AuthenticationFailure.MISSING)
        found = _AUTHORIZATION.fullmatch(authorization)
        if found is None:
            raise Unauthenticated(AuthenticationFailure.MALFORMED)
        public_id, secret = found[1].decode(), found[2]
        entry = self._entries.get(public_id)
        if entry is not None:
            _check(entry.stored, secret)
        now = time.monotonic()
        if entry is None or now - entry.verified_at >= CACHE_TTL_SECONDS:
            entry = await self._read_key(public_id, secret)
        entry.used_at = now
        self._entries.move_to_end(public_id)
        self._used.add(public_id)
        return entry.stored.principal

    async def _read_key(self, public_id: str, secret: bytes) -> _CacheEntry:
        began = time.monotonic()
        stored = await self._lookup(public_id)
        if stored is None:
            self._entries.pop(public_id, None)
            raise Unauthenticated(AuthenticationFailure.UNKNOWN)
        _check(stored, secret)
        if stored.is_revoked:
            self._entries.pop(public_id, None)
            raise Unauthenticated(AuthenticationFailure.REVOKED)
        entry = self._entries.get(public_id)
        if entry is None:
            entry = self._entries[public_id] = _CacheEntry(stored, began, began)
            if len(self._entries) > self._max_keys:
                self._entries.popitem(last=False)
            self._is_not_empty.set()
        entry.verified_at = max(entry.verified_at, began)
        return entry

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for revoked keys and note uses until the exit."""
        tasks = [
            asyncio.create_task(self._refresh_loop()),
            asyncio.create_task(self._flush_loop()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_TIMEOUT_SECONDS):
                    await self._flush_last_used()

    async def _refresh_loop(self) -> None:
        while True:
            await self._is_not_empty.wait()
            began = time.monotonic()
            try:
                await self._refresh()
            except Exception as error:  # noqa: BLE001 - requests ask for themselves meanwhile
                if not self._refresh_is_failing:
                    log.warning("keys_not_looked_at", reason=type(error).__name__)
                self._refresh_is_failing = True
            else:
                self._refresh_is_failing = False
            await asyncio.sleep(REFRESH_SECONDS - (time.monotonic() - began))

    async def _refresh(self) -> None:
        began = time.monotonic()
        while self._entries and next(iter(self._entries.values())).used_at < began - IDLE_SECONDS:
            self._entries.popitem(last=False)
        if not self._entries:
            self._is_not_empty.clear()
            return
        looked_at = list(self._entries)
        gone = await self._database.read_one(
            lambda session: service.revoked_keys(session, looked_at)
        )
        for public_id in gone:
            self._entries.pop(public_id, None)
        for public_id in looked_at:
            entry = self._entries.get(public_id)
            if entry is not None:
                entry.verified_at = max(entry.verified_at, began)

    async def _flush_loop(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush_last_used()

    async def _flush_last_used(self) -> None:
        used, self._used = self._used, set()
        if not used:
            return
        noted = False
        try:
            await self._database.transaction(
                lambda session: service.record_last_used(session, used)
            )
            noted = True
        except Exception as error:  # noqa: BLE001 - they are noted the next time
            log.warning("key_uses_not_noted", reason=type(error).__name__)
        finally:
            if not noted:
                self._used |= used


def _check(stored: StoredKey, secret: bytes) -> None:
    if not hmac.compare_digest(hash_of(secret), stored.secret_hash):
        raise Unauthenticated(AuthenticationFailure.WRONG_SECRET)
