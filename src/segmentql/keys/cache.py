"""What one process knows of API keys: a request with a known key costs no statement.

A background task looks again and again which of the known keys are revoked. A key is trusted only
for `TRUST_SECONDS` after the beginning of the last successful read that covered it; past that, and
for keys that are not known, the request itself asks the database. So a key that was revoked lets
nobody in a second later, whatever became of the task, of Redis or of the database.
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
from segmentql.errors import KeyFlaw, Unauthenticated
from segmentql.keys import service
from segmentql.keys.service import StoredKey, hash_of
from segmentql.principal import Caller

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.4
"""From the beginning of one look to that of the next."""

TRUST_SECONDS: Final = 0.9
"""A second, less what a request takes on its way here."""

MAX_KEYS: Final = 10_000
"""Keys known at a time; those least lately used go first."""

IDLE_SECONDS: Final = 60
"""A key that was not used for so long is forgotten, so that an idle process does not look."""

NOTE_SECONDS: Final = 10
"""How often uses are written down: `last_used_at` is late by as much at most."""

PARTING_SECONDS: Final = 2
"""How long the last note may take when the process stops."""

_AUTHORIZATION: Final = re.compile(rb"(?i:bearer) +sgql_([a-z0-9]{12})_([0-9a-f]{64}) *")


@dataclass(slots=True)
class _Known:
    stored: StoredKey
    seen_at: float
    """When the last read began that found it live; these are monotonic seconds."""

    used_at: float


class KeyRing:
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
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._knows_any = asyncio.Event()
        self._used: set[str] = set()
        self._looks_fail = False

    async def caller(self, authorization: bytes | None) -> Caller:
        """Who bears the key of an Authorization header.

        Raises:
            Unauthenticated: nobody whom we know.
            Unavailable, TimedOut: the database would have to be asked, and does not answer.
        """
        if authorization is None:
            raise Unauthenticated(KeyFlaw.MISSING)
        found = _AUTHORIZATION.fullmatch(authorization)
        if found is None:
            raise Unauthenticated(KeyFlaw.MALFORMED)
        public_id, secret = found[1].decode(), found[2]
        known = self._known.get(public_id)
        if known is not None:
            _check(known.stored, secret)
        now = time.monotonic()
        if known is None or now - known.seen_at >= TRUST_SECONDS:
            known = await self._ask(public_id, secret)
        known.used_at = now
        self._known.move_to_end(public_id)
        self._used.add(public_id)
        return known.stored.caller

    async def _ask(self, public_id: str, secret: bytes) -> _Known:
        began = time.monotonic()
        stored = await self._lookup(public_id)
        if stored is None:
            self._known.pop(public_id, None)
            raise Unauthenticated(KeyFlaw.UNKNOWN)
        _check(stored, secret)
        if stored.is_revoked:
            self._known.pop(public_id, None)
            raise Unauthenticated(KeyFlaw.REVOKED)
        known = self._known.get(public_id)
        if known is None:
            known = self._known[public_id] = _Known(stored, began, began)
            if len(self._known) > self._max_keys:
                self._known.popitem(last=False)
            self._knows_any.set()
        known.seen_at = max(known.seen_at, began)
        return known

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Look for revoked keys and note uses until the exit."""
        tasks = [
            asyncio.create_task(self._look_again_and_again()),
            asyncio.create_task(self._note_again_and_again()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PARTING_SECONDS):
                    await self._note()

    async def _look_again_and_again(self) -> None:
        while True:
            await self._knows_any.wait()
            began = time.monotonic()
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - requests ask for themselves meanwhile
                if not self._looks_fail:
                    log.warning("keys_not_looked_at", reason=type(error).__name__)
                self._looks_fail = True
            else:
                self._looks_fail = False
            await asyncio.sleep(LOOK_SECONDS - (time.monotonic() - began))

    async def _look(self) -> None:
        began = time.monotonic()
        while self._known and next(iter(self._known.values())).used_at < began - IDLE_SECONDS:
            self._known.popitem(last=False)
        if not self._known:
            self._knows_any.clear()
            return
        looked_at = list(self._known)
        gone = await self._database.read_one(lambda session: service.gone_keys(session, looked_at))
        for public_id in gone:
            self._known.pop(public_id, None)
        for public_id in looked_at:
            known = self._known.get(public_id)
            if known is not None:
                known.seen_at = max(known.seen_at, began)

    async def _note_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            await self._note()

    async def _note(self) -> None:
        used, self._used = self._used, set()
        if not used:
            return
        noted = False
        try:
            await self._database.transaction(lambda session: service.note_uses(session, used))
            noted = True
        except Exception as error:  # noqa: BLE001 - they are noted the next time
            log.warning("key_uses_not_noted", reason=type(error).__name__)
        finally:
            if not noted:
                self._used |= used


def _check(stored: StoredKey, secret: bytes) -> None:
    if not hmac.compare_digest(hash_of(secret), stored.secret_hash):
        raise Unauthenticated(KeyFlaw.WRONG_SECRET)
