"""The cache of API keys of one process: a request with a cached key needs no SQL statement.

A background task reads at a short interval which of the cached keys are revoked. An entry is valid
for `CACHE_TTL_SECONDS` after the start of the last successful read of its key. If the entry has
expired or the key is not cached, the request reads the key from the database. So a revoked key is
rejected within a second, even if the task or the database fails.
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
from segmentql.keys.records import StoredKey
from segmentql.keys.service import hash_secret
from segmentql.principal import Principal

log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 0.4
"""The interval between the starts of two refreshes."""

CACHE_TTL_SECONDS: Final = 0.9
"""The time after a read during which a key is trusted: one second, less the time of a request."""

MAX_KEYS: Final = 10_000
"""The maximum number of cached keys. The least recently used keys are evicted first."""

IDLE_SECONDS: Final = 60
"""A key that is not used for this time is evicted, so that an idle process does not refresh."""

FLUSH_SECONDS: Final = 10
"""The interval at which uses are written to the database: the maximum delay of `last_used_at`."""

FLUSH_TIMEOUT_SECONDS: Final = 2
"""The time limit of the last flush, when the process stops."""

_AUTHORIZATION: Final = re.compile(rb"(?i:bearer) +sgql_([a-z0-9]{12})_([0-9a-f]{64}) *")


@dataclass(slots=True)
class _CacheEntry:
    stored: StoredKey
    verified_at: float
    """The start of the last read that found the key valid, in monotonic seconds."""

    used_at: float
    """The last use, in monotonic seconds."""


class ApiKeyCache:
    """The cache of the API keys that callers of this process use."""

    def __init__(
        self,
        database: Database,
        lookup: Callable[[str], Awaitable[StoredKey | None]],
        *,
        max_keys: int = MAX_KEYS,
    ) -> None:
        """Create an empty cache.

        Args:
            database: The database for refreshes and flushes.
            lookup: Reads one key by its public id.
            max_keys: The maximum number of entries.
        """
        self._max_keys = max_keys
        self._database = database
        self._lookup = lookup
        self._entries: OrderedDict[str, _CacheEntry] = OrderedDict()
        self._is_not_empty = asyncio.Event()
        self._used: set[str] = set()
        self._refresh_is_failing = False

    async def authenticate(self, authorization: bytes | None) -> Principal:
        """Return the principal of an Authorization header.

        Raises:
            Unauthenticated: the header is missing or malformed, or its key is not valid.
            Unavailable, TimedOut: the key is not cached, and the database cannot be read.
        """
        if authorization is None:
            raise Unauthenticated(AuthenticationFailure.MISSING)
        match = _AUTHORIZATION.fullmatch(authorization)
        if match is None:
            raise Unauthenticated(AuthenticationFailure.MALFORMED)
        public_id, secret = match[1].decode(), match[2]
        entry = self._entries.get(public_id)
        if entry is not None:
            _verify_secret(entry.stored, secret)
        now = time.monotonic()
        if entry is None or now - entry.verified_at >= CACHE_TTL_SECONDS:
            entry = await self._read_key(public_id, secret)
        entry.used_at = now
        self._entries.move_to_end(public_id)
        self._used.add(public_id)
        return entry.stored.principal

    async def _read_key(self, public_id: str, secret: bytes) -> _CacheEntry:
        started_at = time.monotonic()
        stored = await self._lookup(public_id)
        if stored is None:
            self._entries.pop(public_id, None)
            raise Unauthenticated(AuthenticationFailure.UNKNOWN)
        _verify_secret(stored, secret)
        if stored.is_revoked:
            self._entries.pop(public_id, None)
            raise Unauthenticated(AuthenticationFailure.REVOKED)
        entry = self._entries.get(public_id)
        if entry is None:
            entry = self._entries[public_id] = _CacheEntry(stored, started_at, started_at)
            if len(self._entries) > self._max_keys:
                self._entries.popitem(last=False)
            self._is_not_empty.set()
        entry.verified_at = max(entry.verified_at, started_at)
        return entry

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Refresh the cache and flush uses in the background until the exit."""
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
            started_at = time.monotonic()
            try:
                await self._refresh()
            except Exception as error:  # noqa: BLE001 - entries expire, and requests read keys
                if not self._refresh_is_failing:
                    log.warning("api_keys_not_refreshed", reason=type(error).__name__)
                self._refresh_is_failing = True
            else:
                self._refresh_is_failing = False
            await asyncio.sleep(REFRESH_SECONDS - (time.monotonic() - started_at))

    async def _refresh(self) -> None:
        started_at = time.monotonic()
        idle_since = started_at - IDLE_SECONDS
        while self._entries and next(iter(self._entries.values())).used_at < idle_since:
            self._entries.popitem(last=False)
        if not self._entries:
            self._is_not_empty.clear()
            return
        public_ids = list(self._entries)
        revoked = await self._database.read_one(
            lambda session: service.revoked_keys(session, public_ids)
        )
        for public_id in revoked:
            self._entries.pop(public_id, None)
        for public_id in public_ids:
            entry = self._entries.get(public_id)
            if entry is not None:
                entry.verified_at = max(entry.verified_at, started_at)

    async def _flush_loop(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush_last_used()

    async def _flush_last_used(self) -> None:
        used, self._used = self._used, set()
        if not used:
            return
        is_written = False
        try:
            await self._database.transaction(
                lambda session: service.record_last_used(session, used)
            )
            is_written = True
        except Exception as error:  # noqa: BLE001 - the next flush writes them
            log.warning("api_key_uses_not_written", reason=type(error).__name__)
        finally:
            if not is_written:
                self._used |= used


def _verify_secret(stored: StoredKey, secret: bytes) -> None:
    if not hmac.compare_digest(hash_secret(secret), stored.secret_hash):
        raise Unauthenticated(AuthenticationFailure.WRONG_SECRET)
