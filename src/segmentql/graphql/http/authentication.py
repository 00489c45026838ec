"""The principal of a request: the API key, its rate limit, and the `Host` header without keys."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.errors import Unauthenticated
from segmentql.graphql.http.http_errors import rate_limited, unauthenticated
from segmentql.graphql.http.origins import check_host
from segmentql.graphql.http.request_parsing import Headers
from segmentql.principal import ANONYMOUS_ADMIN, Principal

Authenticate: TypeAlias = Callable[[bytes | None], Awaitable[Principal]]
"""A function that returns the principal of an `Authorization` header."""


class RequestAuthenticator:
    """The authentication of HTTP requests, including those that open streams."""

    def __init__(
        self, authenticate: Authenticate | None, rate_limiter: RateLimiter, *, checks_host: bool
    ) -> None:
        """Create the authenticator.

        Args:
            authenticate: The function that authenticates requests; None if no API key is required.
            rate_limiter: The rate limiter of API keys.
            checks_host: Whether the `Host` header must name this machine if no API key is required.
        """
        self.authenticate_key = authenticate
        """The function that authenticates requests, without their rate limit."""

        self._rate_limiter = rate_limiter
        self._checks_host = checks_host

    async def authenticate(self, headers: Headers) -> Principal:
        """Return the principal of a request, and take a token of its rate limit.

        Raises:
            HttpRequestError: The request has no valid API key, or comes from a page of another
                host, or the key exceeds its rate.
        """
        if self.authenticate_key is None:
            self.check_host(headers)
            return ANONYMOUS_ADMIN
        try:
            principal = await self.authenticate_key(headers.get(b"authorization"))
        except Unauthenticated as error:
            raise unauthenticated(error.failure) from None
        if principal.key_id and not self._rate_limiter.try_acquire(principal.key_id):
            raise rate_limited(self._rate_limiter.per_second)
        return principal

    def check_host(self, headers: Headers) -> None:
        """Check that the `Host` header names this machine, unless an API key is required.

        Raises:
            HttpRequestError: It names another host.
        """
        if self._checks_host and self.authenticate_key is None:
            check_host(headers.get(b"host"))
