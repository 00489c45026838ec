"""Read a list of users in a test, in one call."""

from collections.abc import Iterable

import pytest

from segmentql.imports.file_format import FileRefused, Identity, ListFormat
from segmentql.imports.parsing import read_rows
from segmentql.imports.row_parser import Row
from segmentql.tables import RowOutcome

IDS = ListFormat()
KEYS = ListFormat(identity=Identity.KEY)


def read(data: bytes | Iterable[bytes], list_format: ListFormat = IDS) -> list[Row]:
    chunks = [data] if isinstance(data, bytes) else data
    return [row for batch in read_rows(chunks, list_format) for row in batch]


def summary(rows: Iterable[Row]) -> list[tuple[int, int | str]]:
    """Return the line of each row with its user, or with its outcome."""
    return [(row.line, row.outcome or row.user_id or row.user_key or "") for row in rows]


def users(data: bytes, list_format: ListFormat = IDS) -> list[int | str]:
    """Return the users of all valid rows."""
    return [user for row in read(data, list_format) if (user := row.user_id or row.user_key)]


def refusal(data: bytes | Iterable[bytes], list_format: ListFormat = IDS) -> str:
    """Return why a file is refused."""
    with pytest.raises(FileRefused) as raised:
        read(data, list_format)
    return str(raised.value)


def only_row(data: bytes, list_format: ListFormat = IDS) -> Row:
    [row] = read(data, list_format)
    return row


def bad_row(value: str, outcome: RowOutcome, detail: str, *, line: int = 1) -> Row:
    return Row(line, value, None, None, outcome, detail)
