"""The content encoding of a response, which the request's `Accept-Encoding` header determines.

Source: https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3
"""

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final

MAX_ACCEPT_ENCODING_BYTES: Final = 1_000
"""The maximum length of an `Accept-Encoding` header. A longer one is ignored, because parsing takes
time. Browsers send about 25 bytes."""

_WEIGHT: Final = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


class ContentEncoding(StrEnum):
    """The encoding of a body."""

    ZSTD = "zstd"
    GZIP = "gzip"
    IDENTITY = "identity"


def negotiate_encoding(accept_encoding: bytes, *, has_zstd: bool = True) -> ContentEncoding:
    """Return the encoding that a client prefers.

    Of two encodings with the same weight, zstd takes the least time, and any encoding is preferred
    to none. `*` stands for gzip only, which every client can decode. A client that accepts no
    encoding at all (`identity;q=0`) gets a body without one.

    Args:
        accept_encoding: The value of the header. The values of several lines are joined by commas.
        has_zstd: Whether the body can be sent in zstd. It can always be sent in gzip.
    """
    if len(accept_encoding) > MAX_ACCEPT_ENCODING_BYTES:
        return ContentEncoding.IDENTITY
    return _negotiate(accept_encoding, has_zstd=has_zstd)


@lru_cache(maxsize=256)  # a client sends the same header in every request
def _negotiate(header: bytes, *, has_zstd: bool) -> ContentEncoding:
    weights = _weights(header.decode("latin-1"))
    zstd = weights.get("zstd", 0.0) if has_zstd else 0.0
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    best = max(zstd, gzip)
    if best == 0 or best < weights.get("identity", 0.0):
        return ContentEncoding.IDENTITY
    return ContentEncoding.ZSTD if zstd == best else ContentEncoding.GZIP


def _weights(header: str) -> dict[str, float]:
    """Return the weights of the encodings in a header. An item with an invalid one is ignored."""
    weights = {}
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        values = [part[2:] for part in parameters if part.startswith("q=")]
        weight = values[0] if values else "1"
        if name and _WEIGHT.fullmatch(weight):
            weights[name] = float(weight)
    return weights
