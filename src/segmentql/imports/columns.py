"""The delimiter, the header and the column of the users: found in the first row of a list.

The first row is the first one that is not blank. A row is blank if all its fields are empty or
consist of spaces and tabs.

The delimiter `AUTO` is one of tab, semicolon and comma:

1. A delimiter that separates a field with the column's name (`user_id` or `user_key` if the client
   names none) from other fields, unless the header is `ABSENT`.
2. Otherwise the one that makes the most fields. If two make the same number, tab precedes
   semicolon, and semicolon precedes comma (which may be a decimal comma).
3. If none occurs, the file has one column, and the delimiter is a comma.

The first row is a header in the mode `AUTO`:

- if the client names a column, always;
- if a field is exactly `user_id` or `user_key`;
- for ids also if the field of the users' column is a name: it contains a letter, and does not begin
  with a digit, a sign, a point or a comma. So `User ID` is a name, and `1.23E+12` is not.

For keys, another header is not recognised, because any name could be a key.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from segmentql.imports.file_format import Delimiter, FileRefused, HeaderMode, Identity, ListFormat
from segmentql.imports.user_values import TRIMMED

_CHARACTERS: Final = {Delimiter.TAB: "\t", Delimiter.SEMICOLON: ";", Delimiter.COMMA: ","}
_DELIMITER_NAMES: Final = {"\t": "TAB", ";": "SEMICOLON", ",": "COMMA"}
_DEFAULT_COLUMNS: Final = ("user_id", "user_key")
_NOT_BEFORE_A_NAME: Final = tuple("0123456789+-.,")

# Each pattern reads a row in one way only, so that it needs linear time. Spaces and tabs are blank,
# but a tab that is the delimiter is not a part of a field.
_BLANK_ROW: Final = {
    delimiter: rf"{field}(?:{delimiter}{field})*(?:\n|\Z)"
    for delimiter, field in (
        ("\t", r'(?:"[ \t]*"|[ ]*)'),
        (";", r'(?:"[ \t]*"|[ \t]*)'),
        (",", r'(?:"[ \t]*"|[ \t]*)'),
    )
}

MAX_LISTED_COLUMNS: Final = 20
MAX_LISTED_NAME_CHARACTERS: Final = 40


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the users are in the rows."""

    delimiter: str
    index: int
    """The position of the users' column in a row, from 0."""
    width: int
    """The number of fields of the first row."""
    has_header: bool


@dataclass(frozen=True, slots=True)
class FirstRow:
    """A row at the beginning of a text, split with one delimiter."""

    delimiter: str
    fields: list[str]
    lines: int
    """The number of physical lines. A quoted field may contain line ends."""


def is_blank(fields: Sequence[str]) -> bool:
    """Return whether all fields of a row are empty or consist of spaces and tabs."""
    return not any(field.strip(TRIMMED) for field in fields)


def blank_row(delimiter: Delimiter) -> re.Pattern[str]:
    """Return a pattern of one blank row with its line end, in a text with LF line ends."""
    if delimiter is not Delimiter.AUTO:
        return re.compile(_BLANK_ROW[_CHARACTERS[delimiter]])
    return re.compile("|".join(_BLANK_ROW.values()))


def read_first_row(text: str, list_format: ListFormat) -> FirstRow | None:
    """Split the row at the beginning of a text with the delimiter of the file.

    Args:
        text: One row at least, which is not blank. Line ends are LF.

    Returns:
        None if the row does not end in the text, or is not valid CSV.
    """
    delimiters = (
        list(_CHARACTERS.values())
        if list_format.delimiter is Delimiter.AUTO
        else [_CHARACTERS[list_format.delimiter]]
    )
    rows = [row for delimiter in delimiters for row in _split(text, delimiter)]
    column = list_format.column or list_format.default_column
    if list_format.header is not HeaderMode.ABSENT:
        for row in rows:
            if len(row.fields) > 1 and column in _column_names(row.fields):
                return row
    # Comma comes last, but it is the delimiter if the row has one field.
    widest = max(rows, key=lambda row: len(row.fields), default=None)
    return rows[-1] if widest and len(widest.fields) <= 1 else widest


def _split(text: str, delimiter: str) -> Iterator[FirstRow]:
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)
    try:
        fields = next(reader)
    except (csv.Error, StopIteration):
        return
    yield FirstRow(delimiter, fields, reader.line_num)


def choose_layout(row: FirstRow, list_format: ListFormat) -> Layout:
    """Find the header and the column of the users in the first row that is not blank.

    Raises:
        FileRefused: The column is not in the file, or is not named and cannot be guessed.
    """
    names = _column_names(row.fields)
    if list_format.column is not None and list_format.header is HeaderMode.ABSENT:
        raise FileRefused(
            "A column is named, but the file has no header. Set `columnNumber` instead of "
            f"`column`. {_columns_found(row)}"
        )
    if list_format.column is not None:
        index = _index_of(list_format.column, row)
    elif list_format.column_number is not None:
        index = list_format.column_number - 1
        if not 0 <= index < len(names):
            raise FileRefused(
                f"The file has no column {list_format.column_number}. {_columns_found(row)}"
            )
    elif list_format.header is not HeaderMode.ABSENT and list_format.default_column in names:
        index = _index_of(list_format.default_column, row)
    elif len(names) == 1:
        index = 0
    else:
        raise FileRefused(
            "The file has several columns, and it is not known which one has the users. Set "
            f"`column` to its name or `columnNumber` to its number. {_columns_found(row)} If the "
            "file has one column, set `delimiter` to a character that does not occur in it."
        )
    return Layout(row.delimiter, index, len(names), _is_header(names, index, list_format))


def _is_header(names: list[str], index: int, list_format: ListFormat) -> bool:
    if list_format.header is not HeaderMode.AUTO:
        return list_format.header is HeaderMode.PRESENT
    if list_format.column is not None or any(name in names for name in _DEFAULT_COLUMNS):
        return True
    return list_format.identity is Identity.ID and _is_name(names[index])


def _is_name(text: str) -> bool:
    return any(map(str.isalpha, text)) and not text.startswith(_NOT_BEFORE_A_NAME)


def _index_of(column: str, row: FirstRow) -> int:
    found = _column_names(row.fields).count(column)
    if found == 1:
        return _column_names(row.fields).index(column)
    problem = (
        f'The header has no column "{column}". Names of columns are case-sensitive.'
        if found == 0
        else f'The header has {found} columns "{column}". Set `columnNumber` to the number of one.'
    )
    raise FileRefused(f"{problem} {_columns_found(row)}")


def _column_names(fields: Sequence[str]) -> list[str]:
    return [field.strip(TRIMMED) for field in fields]


def _columns_found(row: FirstRow) -> str:
    """Return a sentence that lists the columns."""
    listed = ", ".join(
        f'{number} "{_shortened(name)}"'
        for number, name in enumerate(_column_names(row.fields)[:MAX_LISTED_COLUMNS], start=1)
    )
    more = len(row.fields) - MAX_LISTED_COLUMNS
    return (
        f"The first row, split by {_DELIMITER_NAMES[row.delimiter]}, has {len(row.fields):,} "
        f"{'column' if len(row.fields) == 1 else 'columns'}: {listed}"
        f"{f' and {more:,} more' if more > 0 else ''}."
    )


def _shortened(name: str) -> str:
    if len(name) > MAX_LISTED_NAME_CHARACTERS:
        name = name[:MAX_LISTED_NAME_CHARACTERS] + "..."
    return "".join(character if character.isprintable() else " " for character in name)
