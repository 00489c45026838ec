"""The bytes of a file, unpacked within limits of size and ratio.

The input is cut into blocks of one size first. So what is read, and what is refused, does not
depend on the chunks in which the file arrives.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from segmentql.imports.file_format import FileRefused, check_text, is_gzip

PACKED_BLOCK_BYTES: Final = 65_536
BLOCK_BYTES: Final = 262_144
MAX_GZIP_MEMBERS: Final = 100_000
"""The maximum number of gzip files, joined to one. Each costs time even if it is empty."""

_GZIP_FORMAT: Final = 31
"""The argument `wbits` of zlib for the gzip format with the largest window."""

_DAMAGED: Final = "Pack it again with gzip, or upload it unpacked."


def read_text_blocks(
    chunks: Iterable[bytes], *, max_unpacked_bytes: int, max_ratio: int
) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file without its byte order mark, in blocks of `BLOCK_BYTES`.

    The last block may be shorter. The memory does not depend on the size of the file.

    Raises:
        FileRefused: The file is not text; it is damaged; it has more than `max_unpacked_bytes`
            bytes unpacked; or it, or its beginning, has more than `max_ratio` times as many bytes
            unpacked as packed.
    """
    packed = _cut(chunks, PACKED_BLOCK_BYTES)
    first = next(packed, b"")
    blocks = _with_first(first, packed)
    if is_gzip(first):
        blocks = _gunzip(blocks, max_ratio)
    unpacked_bytes = 0
    for block in _cut(blocks, BLOCK_BYTES):
        is_first = not unpacked_bytes
        unpacked_bytes += len(block)
        if unpacked_bytes > max_unpacked_bytes:
            raise FileRefused(
                f"The file has more than {max_unpacked_bytes:,} bytes unpacked. Split it into "
                "smaller files."
            )
        yield check_text(block) if is_first else block


def _with_first(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


def _cut(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in blocks of `size` bytes; the last block may be shorter."""
    parts: list[bytes] = []
    length = 0
    for chunk in chunks:
        view = memoryview(chunk)
        while length + len(view) >= size:
            missing = size - length
            yield b"".join([*parts, view[:missing]])
            view = view[missing:]
            parts.clear()
            length = 0
        if view:
            parts.append(bytes(view))
            length += len(view)
            if len(parts) > size // 64:  # many tiny chunks need more memory than their bytes
                parts[:] = [b"".join(parts)]
    if length:
        yield b"".join(parts)


def _gunzip(blocks: Iterator[bytes], max_ratio: int) -> Iterator[bytes]:
    """Yield the unpacked bytes of one or more gzip files, joined to one."""
    packed_bytes = unpacked_bytes = 0
    members = 0
    member: zlib._Decompress | None = None
    for block in blocks:
        packed_bytes += len(block)
        rest = block
        while rest:
            if member is None:
                rest = rest.lstrip(b"\0")  # gzip allows padding after a member
                if not rest:
                    break
                members += 1
                if members > MAX_GZIP_MEMBERS:
                    raise FileRefused(
                        f"The file consists of more than {MAX_GZIP_MEMBERS:,} gzip files. "
                        f"{_DAMAGED}"
                    )
                member = zlib.decompressobj(_GZIP_FORMAT)
            try:
                unpacked = member.decompress(rest, BLOCK_BYTES)
            except zlib.error as error:
                raise FileRefused(f"The gzip file is damaged. {_DAMAGED}") from error
            unpacked_bytes += len(unpacked)
            if unpacked_bytes > max_ratio * packed_bytes:
                raise FileRefused(
                    f"The file has more than {max_ratio:,} times as many bytes unpacked as packed. "
                    "Upload it unpacked, or check what it contains."
                )
            yield unpacked
            rest = member.unconsumed_tail
            if member.eof:
                rest = member.unused_data
                member = None
    if member is not None:
        raise FileRefused(f"The gzip file ends too early: a part of it is missing. {_DAMAGED}")
