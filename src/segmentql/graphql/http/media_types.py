"""The media type of a response, which the request's `Accept` header determines."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import mimeparse

JSON: Final = "application/json"
GRAPHQL_JSON: Final = "application/graphql-response+json"
HTML: Final = "text/html"
EVENT_STREAM: Final = "text/event-stream"

MAX_ACCEPT_BYTES: Final = 2_000
"""The maximum length of an `Accept` header. A longer one is ignored, because parsing takes time.

Browsers send about 150 bytes."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The media types that a client accepts."""

    json: str | None
    """The preferred media type of GraphQL responses; None if the client accepts none."""
    html: bool
    """Whether the header names HTML."""
    event_stream: bool = False
    """Whether the header names event streams and does not name a JSON type as well.

    urql names both in the requests of queries, and only event streams in those of subscriptions."""


def negotiate(accept: bytes) -> Accepted:
    """Return the media types that an `Accept` header accepts."""
    return _negotiate(accept if len(accept) <= MAX_ACCEPT_BYTES else b"")


@lru_cache(maxsize=256)  # a client sends the same header in every request
def _negotiate(header: bytes) -> Accepted:
    accept = header.decode("latin-1")
    ranges = []
    for part in accept.lower().split(","):
        try:
            if part.strip():
                ranges.append(mimeparse.parse_media_range(part))
        except mimeparse.MimeTypeParseException:
            continue
    if not accept.strip():
        return Accepted(JSON, html=False)
    named = {f"{kind}/{subtype}" for kind, subtype, _ in ranges}
    json, graphql_json, html, event_stream = (
        mimeparse.quality_parsed(name, ranges) for name in (JSON, GRAPHQL_JSON, HTML, EVENT_STREAM)
    )
    chosen: str | None = None
    if max(json, graphql_json) > 0:
        prefers_new = graphql_json > json or (graphql_json == json and GRAPHQL_JSON in named)
        chosen = GRAPHQL_JSON if prefers_new else JSON
    names_json = bool(named & {JSON, GRAPHQL_JSON}) and chosen is not None
    return Accepted(
        chosen,
        html=html > 0 and HTML in named,
        event_stream=event_stream > 0 and EVENT_STREAM in named and not names_json,
    )
