"""A list of users, read from the bytes of a file as a stream.

A row begins in a physical line, counted from 1. LF, CRLF and CR end a line, also mixed. A line end
within quotes belongs to the field, where it is read as LF. A line end at the end of the file adds
no row. Every line belongs to exactly one row, so no row is dropped, unless the whole file is
refused.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from segmentql.imports.file_format import FileRefused, ListFormat, invalid_utf_8, nul_byte
from segmentql.imports.row_parser import MAX_ROW_CHARACTERS, Row, RowParser, row_too_long
from segmentql.imports.unpacking import read_text_blocks

DEFAULT_MAX_UNPACKED_BYTES: Final = 2**30
DEFAULT_MAX_RATIO: Final = 200
MAX_LINES: Final = 50_000_000
"""The maximum number of lines. A gzip file of 5 MB can have a billion, which would fill disks."""

DEFAULT_BATCH_ROWS: Final = 10_000

_MAX_BYTES_PER_CHARACTER: Final = 4


def read_rows(
    chunks: Iterable[bytes],
    list_format: ListFormat,
    *,
    max_unpacked_bytes: int = DEFAULT_MAX_UNPACKED_BYTES,
    max_ratio: int = DEFAULT_MAX_RATIO,
    batch_rows: int = DEFAULT_BATCH_ROWS,
) -> Iterator[list[Row]]:
    """Yield the rows of a file in order, in lists of `batch_rows` rows.

    The last list may be shorter; no list is empty. The memory does not depend on the size of the
    file. The result does not depend on how the file is cut into chunks.

    Args:
        chunks: The bytes of the file, as they are or packed with gzip.
        list_format: The format that the client describes.
        max_unpacked_bytes: The maximum size of the file, unpacked.
        max_ratio: The maximum of the unpacked bytes for each packed byte of a gzip file, at its end
            and at any earlier point.
        batch_rows: The number of rows in a list, at least 1.

    Raises:
        FileRefused: The file cannot be read as a list. Rows may have been yielded before.
    """
    blocks = read_text_blocks(chunks, max_unpacked_bytes=max_unpacked_bytes, max_ratio=max_ratio)
    parser = RowParser(list_format)
    batch: list[Row] = []
    for text in _read_lines(blocks):
        batch += parser.parse(text)
        yield from _full_batches(batch, batch_rows)
    batch += parser.finish()
    yield from _full_batches(batch, batch_rows)
    if batch:
        yield batch


def _full_batches(batch: list[Row], batch_rows: int) -> Iterator[list[Row]]:
    """Remove full lists of rows from the beginning of a batch, and yield them."""
    full = len(batch) // batch_rows * batch_rows
    for start in range(0, full, batch_rows):
        yield batch[start : start + batch_rows]
    del batch[:full]


def _read_lines(blocks: Iterable[bytes]) -> Iterator[str]:
    """Yield texts of whole lines that end with LF; only the end of the last text may have none."""
    rest = b""
    line = 1
    for block in blocks:
        data = rest + block
        # The LF after a CR may be in the next block.
        carriage_return = b"\r" if data.endswith(b"\r") else b""
        data = _with_line_feeds(data.removesuffix(b"\r"))
        end = data.rfind(b"\n") + 1
        rest = data[end:] + carriage_return
        if end:
            yield _decode(data[:end], line)
            line += data.count(b"\n")
        if line > MAX_LINES:
            raise FileRefused(
                f"The file has more than {MAX_LINES:,} lines. Split it into several files."
            )
        if len(rest) > MAX_ROW_CHARACTERS * _MAX_BYTES_PER_CHARACTER + 1:
            raise row_too_long(line)
    if rest:
        yield _decode(_with_line_feeds(rest), line)


def _with_line_feeds(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _decode(data: bytes, line: int) -> str:
    """Return the text of bytes whose first line has the given number."""
    if (position := data.find(b"\0")) >= 0:
        raise nul_byte(line + data.count(b"\n", 0, position))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise invalid_utf_8(line + data.count(b"\n", 0, error.start)) from None
