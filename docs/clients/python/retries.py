"""An httpx transport that repeats failed requests if a repetition is safe."""

import asyncio
import itertools
import random
import time
from typing import Any

import httpx

RETRYABLE_STATUS = {429, 502, 503, 504}
RETRYABLE_CODES = {"UNAVAILABLE", "TIMEOUT"}


class RetryTransport(httpx.AsyncBaseTransport):
    """Sends a failed request again: queries, and mutations with an `Idempotency-Key`.

    The time limit of each attempt is the `timeout` of the httpx client or of the call.
    """

    def __init__(self, *, total_seconds: float = 30) -> None:
        """Create the transport.

        Args:
            total_seconds: The time after which no other attempt begins.
        """
        self._transport = httpx.AsyncHTTPTransport()
        self._total_seconds = total_seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + self._total_seconds
        is_safe = "idempotency-key" in request.headers or b"mutation" not in request.content
        for attempt in itertools.count():
            pause = random.uniform(0.5, 1) * min(0.1 * 2**attempt, 5)
            try:
                response = await self._transport.handle_async_request(request)
                await response.aread()
            except httpx.TransportError:  # no connection, a dropped connection, a time-out
                if not is_safe or time.monotonic() + pause > deadline:
                    raise
            else:
                pause = max(pause, _retry_after(response))
                is_final = not is_safe or time.monotonic() + pause > deadline
                if is_final or not _is_retryable(response):
                    return response
            await asyncio.sleep(pause)
        raise AssertionError("itertools.count is infinite")

    async def aclose(self) -> None:
        await self._transport.aclose()


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds of the header `Retry-After`, or 0."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else 0


def _is_retryable(response: httpx.Response) -> bool:
    if response.status_code in RETRYABLE_STATUS:
        return True
    is_json = "json" in response.headers.get("content-type", "")
    if not is_json or b'"errors"' not in response.content:
        return False
    errors: list[dict[str, Any]] = response.json().get("errors") or []
    return any(error.get("extensions", {}).get("code") in RETRYABLE_CODES for error in errors)
