"""The checks of the `Host` and `Origin` headers, which protect a server on this machine from pages.

A page in a browser can reach a server on the same machine. If its name resolves to a loopback
address (DNS rebinding), the browser even takes the server for the page's own. If no API key is
required, the `Host` header must therefore name this machine. Browsers do not apply CORS to
WebSockets, so the server compares their `Origin` itself.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from segmentql.graphql.http.http_errors import HttpRequestError
from segmentql.graphql.types.errors import Code
from segmentql.settings import is_loopback

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@lru_cache(maxsize=64)  # a client sends the same header in every request
def is_loopback_host(host: bytes) -> bool:
    """Return whether a `Host` header names this machine: localhost, or a loopback address."""
    try:
        url = urlsplit(f"//{host.decode('ascii')}")
        return (
            url.hostname is not None
            and url.username is None
            and not (url.path or url.query or url.fragment)
            and (url.port is None or url.port > 0)  # reading it also validates it
            and is_loopback(url.hostname)
        )
    except ValueError:
        return False


def check_host(host: bytes | None) -> None:
    """Check the `Host` header of a request to a server without API keys.

    Raises:
        HttpRequestError: The header does not name this machine (403).
    """
    if host is None or not is_loopback_host(host):
        raise HttpRequestError(
            403,
            "Without API keys, the Host header must name this machine:"
            " localhost, 127.0.0.1 or [::1].",
            Code.FORBIDDEN,
            allowed="localhost, 127.0.0.1, [::1]",
        )


def check_origin(origin: bytes | None, host: bytes | None, allowed: Collection[str]) -> None:
    """Check the `Origin` header of a WebSocket handshake. Only browsers send one.

    Args:
        origin: The header `Origin`; None if the client sent none.
        host: The header `Host`.
        allowed: The allowed origins, in addition to pages of the same host.

    Raises:
        HttpRequestError: The origin is not allowed (403).
    """
    if origin is None:
        return
    text = origin.decode("latin-1").lower()
    if text in allowed or (host is not None and _has_host(text, host.decode("latin-1").lower())):
        return
    raise HttpRequestError(
        403,
        "Pages of this origin may not open a WebSocket."
        " SEGMENTQL_CORS_ORIGINS lists the allowed origins.",
        Code.FORBIDDEN,
    )


def _has_host(origin: str, host: str) -> bool:
    """Return whether an origin is `http://HOST` or `https://HOST`, with or without a default port.

    The scheme is not compared, because a proxy may end TLS.
    """
    scheme, separator, origin_host = origin.partition("://")
    port = DEFAULT_PORTS.get(scheme)
    if not separator or not origin_host or port is None:
        return False
    return host in {origin_host, f"{origin_host}:{port}"}
