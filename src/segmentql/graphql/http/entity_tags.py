"""Entity tags of responses: a client that has the same body gets 304 instead of it.

The tag is a hash of the body without its encoding. The tag of a compressed body is weak, because
the same tag stands for other bytes in another encoding.

Source: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from segmentql.graphql.http.responses import NOT_MODIFIED, HeaderList, PreparedResponse

_WEAK: Final = b"W/"


def entity_tag(chunks: Iterable[bytes]) -> bytes:
    """Return the `ETag` of a body in chunks."""
    digest = hashlib.blake2b(digest_size=16)
    for chunk in chunks:
        digest.update(chunk)
    return b'"%b"' % digest.hexdigest().encode()


def weaken(headers: HeaderList) -> HeaderList:
    """Return headers with a weak `ETag`, if they have one."""
    return [
        (name, _WEAK + value if name == b"etag" and not value.startswith(_WEAK) else value)
        for name, value in headers
    ]


def with_entity_tag(
    response: PreparedResponse,
    tag: bytes,
    *,
    if_none_match: bytes,
    headers: HeaderList = (),
) -> PreparedResponse:
    """Return a response with its entity tag, or the response 304 if the client has its body.

    Args:
        response: The response.
        tag: The entity tag of its body.
        if_none_match: The header `If-None-Match` of the request; empty if it has none.
        headers: Other headers of both responses.
    """
    matching = _matching_tag(if_none_match, tag)
    if matching is not None:
        response = PreparedResponse(b"", NOT_MODIFIED, response.media_type)
    response.headers = [(b"etag", matching or tag), *headers]
    return response


def _matching_tag(if_none_match: bytes, tag: bytes) -> bytes | None:
    """Return the tag in `If-None-Match` that names a body, by the weak comparison; None if none.

    It is weak if the client has the compressed body, so that it is the tag of that response.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2
    """
    tags = [part.strip() for part in if_none_match.split(b",")]
    weak = _WEAK + tag
    if weak in tags:
        return weak
    return tag if tag in tags or tags == [b"*"] else None
