"""The compression of responses with zstd or gzip. Events of streams are never compressed.

Bodies of up to `INLINE_BYTES` are compressed on the event loop, because a thread would take as long
to start the work as the compression takes. Larger bodies are compressed in threads, so that other
requests are not delayed.

`docs/benchmarks.md` has the measurements from which the encodings and their levels were chosen.
"""

import asyncio
import sys
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from segmentql.adapters.content_encoding import ContentEncoding, negotiate_encoding
from segmentql.graphql.execution.response_size import CHUNK_BYTES
from segmentql.graphql.http.entity_tags import weaken
from segmentql.graphql.http.responses import HeaderList, PreparedResponse

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIN_BYTES: Final = 1_024
"""The size of the smallest body that is compressed."""

INLINE_BYTES: Final = CHUNK_BYTES
"""The size of the largest body that is compressed on the event loop."""

THREADS: Final = 2
"""The maximum number of bodies of one process that are compressed in threads at the same time."""

ZSTD_LEVEL: Final = 3
GZIP_LEVEL: Final = 3

_GZIP_FORMAT: Final = zlib.MAX_WBITS + 16


class ResponseCompressor:
    """A compressor of the responses of one process."""

    def __init__(self) -> None:
        # The threads end when the compressor is deleted.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="compression")
        # A new compressor takes longer than the compression of a small body. This one is used on
        # the event loop only.
        self._zstd = zstd.ZstdCompressor(level=ZSTD_LEVEL)

    async def compress(
        self, response: PreparedResponse, request_headers: HeaderList
    ) -> PreparedResponse:
        """Return a response in the encoding that the client prefers, if that is smaller.

        Args:
            response: The response, with a body of at least `MIN_BYTES`. It may be changed.
            request_headers: The headers of the request.
        """
        response.content_encoding = ContentEncoding.IDENTITY
        encoding = negotiate_encoding(_accept_encoding(request_headers))
        if encoding is ContentEncoding.IDENTITY:
            return response
        if response.chunks or len(response.body) > INLINE_BYTES:
            chunks = response.chunks or [response.body]
            compressed = await asyncio.get_running_loop().run_in_executor(
                self._threads, _compress_chunks, chunks, encoding
            )
        elif encoding is ContentEncoding.ZSTD:
            compressed = [self._zstd.compress(response.body, mode=self._zstd.FLUSH_FRAME)]
        else:
            compressed = _compress_chunks([response.body], encoding)
        return _encoded(response, compressed, encoding)


def _encoded(
    response: PreparedResponse, compressed: Sequence[bytes], encoding: ContentEncoding
) -> PreparedResponse:
    """Return a response with a compressed body, or the response itself if that is not larger."""
    size = sum(map(len, compressed))
    if size >= response.size:
        return response
    is_small = size <= CHUNK_BYTES
    encoded = PreparedResponse(
        b"".join(compressed) if is_small else b"",
        response.status,
        response.media_type,
        chunks=() if is_small else compressed,
    )
    encoded.headers = weaken(response.headers)
    encoded.content_encoding = encoding
    return encoded


def _compress_chunks(chunks: Iterable[bytes], encoding: ContentEncoding) -> list[bytes]:
    """Compress the chunks of a body, and return the compressed body in chunks."""
    compressor: Any = (
        zstd.ZstdCompressor(level=ZSTD_LEVEL)
        if encoding is ContentEncoding.ZSTD
        else zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    )
    compressed = [part for chunk in chunks if (part := compressor.compress(chunk))]
    compressed.append(compressor.flush())
    return compressed


def _accept_encoding(request_headers: HeaderList) -> bytes:
    """Return the value of `Accept-Encoding`; several lines are joined into one list."""
    return b",".join(value for name, value in request_headers if name == b"accept-encoding")
