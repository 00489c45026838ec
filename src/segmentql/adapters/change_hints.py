"""Hints that history has changed, from each process to all others, through Redis.

A process that waits for changes polls the database as well. So a lost hint only delays it, and if
Redis is unavailable, nothing else happens. No caller waits for Redis.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog
from redis.exceptions import RedisError

from segmentql.adapters.redis_client import redis_client

log = structlog.get_logger(__name__)

CHANNEL: Final = "segmentql:changes"

PUBLISH_INTERVAL_SECONDS: Final = 0.02
"""The minimum time between two hints of a process. Commits in between share the next hint."""

RETRY_SECONDS: Final = 1.0
"""The pause after Redis was unavailable."""

TIMEOUT_SECONDS: Final = 0.3
LISTEN_SECONDS: Final = 0.5
"""How long the thread waits for a hint before it checks whether it is still needed."""


class ChangeHints:
    """The hints of one process, for use on one event loop."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis_client(redis_url, seconds=TIMEOUT_SECONDS)
        self._publisher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hints")
        self._is_scheduled = False
        self._is_closed = False
        self._next_publish_at = 0.0
        self._lock = threading.Lock()
        self._listener: threading.Thread | None = None
        self._callback: Callable[[], None] | None = None
        self._wake = threading.Event()
        """It ends a pause of the listener's thread."""

    def publish(self) -> None:
        """Publish a hint soon, unless one is about to be published."""
        if self._is_scheduled:
            return
        self._is_scheduled = True
        delay = max(0.0, self._next_publish_at - time.monotonic())
        asyncio.get_running_loop().call_later(delay, self._submit)

    def _submit(self) -> None:
        if self._is_closed:
            return
        # From here on, a commit needs another hint: this one may be received before the commit.
        self._is_scheduled = False
        self._next_publish_at = time.monotonic() + PUBLISH_INTERVAL_SECONDS
        self._publisher.submit(self._publish)

    def _publish(self) -> None:
        try:
            self._redis.publish(CHANNEL, b"")
        except (RedisError, OSError):
            self._next_publish_at = time.monotonic() + RETRY_SECONDS

    def listen(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop for each hint, until `stop_listening`."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._callback = lambda: _call_on_loop(loop, callback)
            if self._listener is None:
                self._wake.clear()
                self._listener = threading.Thread(
                    target=self._listen, name="hints listener", daemon=True
                )
                self._listener.start()

    def stop_listening(self) -> None:
        """Stop listening. The thread ends within `LISTEN_SECONDS`, unless `listen` is called."""
        with self._lock:
            self._callback = None

    def close(self) -> None:
        """End the threads and close the connections."""
        self._is_closed = True
        self.stop_listening()
        self._wake.set()
        listener = self._listener
        if listener is not None:
            listener.join(LISTEN_SECONDS + 2 * TIMEOUT_SECONDS)
        self._publisher.shutdown(wait=False, cancel_futures=True)
        self._redis.close()

    def _listen(self) -> None:
        while self._is_needed():
            try:
                with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
                    pubsub.subscribe(CHANNEL)
                    while self._is_needed():
                        message = pubsub.get_message(timeout=LISTEN_SECONDS)
                        callback = self._callback
                        if message is not None and callback is not None:
                            callback()
            except (RedisError, OSError) as error:
                log.debug("hints_not_received", reason=type(error).__name__)
                self._wake.wait(RETRY_SECONDS)

    def _is_needed(self) -> bool:
        with self._lock:
            if self._callback is None:
                self._listener = None
                return False
            return True


def _call_on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
