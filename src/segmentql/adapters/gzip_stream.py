"""A stream of bytes as a gzip file."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

COMPRESSION_LEVEL: Final = 3
"""For CSV of ids and times, higher levels take several times as long for a few percent."""

_GZIP_FORMAT: Final = zlib.MAX_WBITS + 16


async def gzip_chunks(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Yield the gzip file of a stream, in bounded memory.

    A thread compresses, so that the event loop is not blocked.
    """
    compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    async for chunk in chunks:
        if compressed := await asyncio.to_thread(compressor.compress, chunk):
            yield compressed
    yield compressor.flush()
