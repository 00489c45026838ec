"""The rows of a list of users, split and checked.

A row with text after a closing quote is malformed, and the next row begins in the next line. A
quote that is never closed refuses the file, because all rows after it would be lost.

If a row has more fields than the first one, it is malformed, unless the additional fields are
blank: such a row is usually a number with thousands separators, or a text with an unquoted
delimiter, so the field of the users' column may be wrong. A row with fewer fields is valid, if it
has the users' column.
"""

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from segmentql.imports.columns import Layout, blank_row, choose_layout, is_blank, read_first_row
from segmentql.imports.file_format import FileRefused, Identity, ListFormat
from segmentql.imports.user_values import TRIMMED, are_keys, parse_id, parse_ids, parse_key
from segmentql.tables import RowOutcome

MAX_VALUE_CHARACTERS: Final = 255
"""A longer value of a row is cut to this length."""

MAX_ROW_CHARACTERS: Final = 131_072
"""The maximum length of a row without its last line end. It is the maximum length of a field in the
csv module, so that a field never exceeds that."""

SLICE_ROWS: Final = 500
"""The number of rows that are checked together. Only if one of them may be bad, Python code checks
each of them."""

_HOW_TO_QUOTE: Final = (
    "A field that begins with a quote must end with one, and quotes in it are doubled."
)


class Row(NamedTuple):
    """One row of a list."""

    line: int
    """The physical line in which the row begins, from 1."""
    value: str
    """The field of the users' column as the file holds it, or the text of a row that cannot be
    split correctly. It has at most `MAX_VALUE_CHARACTERS` characters."""
    user_id: int | None
    user_key: str | None
    outcome: RowOutcome | None
    """None for a valid row; otherwise `HEADER`, `BLANK`, `MALFORMED` or `OUT_OF_RANGE`."""
    detail: str | None
    """Why the row is malformed or out of range."""


# Calling `Row` runs Python code for each row; this does not.
_make_row = partial(tuple.__new__, Row)


def _other_row(line: int, value: str, outcome: RowOutcome, detail: str | None = None) -> Row:
    return Row(line, value[:MAX_VALUE_CHARACTERS], None, None, outcome, detail)


def _bad_row(line: int, value: str, detail: str) -> Row:
    return _other_row(line, value, RowOutcome.MALFORMED, detail)


class RowParser:
    """Splits texts of whole lines into rows, and keeps the row that is not complete yet."""

    def __init__(self, list_format: ListFormat) -> None:
        self._format = list_format
        self._blank_row = blank_row(list_format.delimiter)
        self._layout: Layout | None = None
        self._line = 1
        """The number of the first line that is not in a complete row."""
        self._rest = ""
        """The text from that line on."""

    def parse(self, text: str) -> list[Row]:
        """Return the rows that are complete after the next lines of the file.

        Args:
            text: Whole lines with LF line ends. Only the last line of the file may have none.
        """
        return self._parse(self._rest + text, is_last=False)

    def finish(self) -> list[Row]:
        """Return the remaining rows of the file."""
        return self._parse(self._rest, is_last=True)

    def _parse(self, text: str, *, is_last: bool) -> list[Row]:
        self._rest = ""
        rows: list[Row] = []
        layout = self._layout
        if layout is None:
            text = self._skip_blank_rows(text, rows)
            # The first row is complete if the text is longer than a row may be.
            if not text or (len(text) <= MAX_ROW_CHARACTERS and not is_last):
                self._rest = text
                return rows
            layout, text = self._read_first_row(text, rows)
            self._layout = layout
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        if lines:
            self._check_lengths(lines)
            rows += self._parse_lines(layout, text, lines, is_last=is_last)
        return rows

    def _skip_blank_rows(self, text: str, rows: list[Row]) -> str:
        """Append the blank rows at the beginning of a text to `rows`, and return its rest."""
        end = 0
        while end < len(text) and (blank := self._blank_row.match(text, end)):
            rows.append(_other_row(self._line, "", RowOutcome.BLANK))
            self._line += 1
            end = blank.end()
        return text[end:]

    def _read_first_row(self, text: str, rows: list[Row]) -> tuple[Layout, str]:
        """Return the layout and the text of the data. Append the header to `rows`, if any."""
        self._check_lengths(text.split("\n"))
        first = read_first_row(text, self._format)
        if first is None:
            raise FileRefused(
                f"The row that begins in line {self._line:,} has a quote that is not closed, or "
                f"text after a closing quote. {_HOW_TO_QUOTE}"
            )
        layout = choose_layout(first, self._format)
        if layout.has_header:
            rows.append(_other_row(self._line, first.fields[layout.index], RowOutcome.HEADER))
            self._line += first.lines
            text = "".join(text.split("\n", first.lines)[first.lines :])
        return layout, text

    def _parse_lines(
        self, layout: Layout, text: str, lines: list[str], *, is_last: bool
    ) -> list[Row]:
        if '"' in text:
            return self._parse_quoted(layout, text, lines, is_last=is_last)
        first_line = self._line
        self._line += len(lines)
        rows: list[Row] = []
        is_one_column = layout.width == 1 and layout.delimiter not in text
        for start in range(0, len(lines), SLICE_ROWS):
            part = lines[start : start + SLICE_ROWS]
            numbers = range(first_line + start, first_line + start + len(part))
            good = self._good_rows(numbers, part) if is_one_column else None
            # Without quotes, a line is a row.
            rows += good or self._rows(
                layout, numbers, list(csv.reader(part, delimiter=layout.delimiter, strict=True))
            )
        return rows

    def _parse_quoted(
        self, layout: Layout, text: str, lines: list[str], *, is_last: bool
    ) -> list[Row]:
        first_line = self._line
        records, numbers, malformed = self._split_quoted(layout, text, lines, is_last=is_last)
        rows: list[Row] = []
        start = 0
        for end in [*malformed, len(records)]:
            for part in range(start, end, SLICE_ROWS):
                part_end = min(part + SLICE_ROWS, end)
                rows += self._rows(layout, numbers[part:part_end], records[part:part_end])
            if end < len(records):
                line = numbers[end]
                detail = f"The row has text after a closing quote. {_HOW_TO_QUOTE}"
                rows.append(_bad_row(line, lines[line - first_line], detail))
            start = end + 1
        return rows

    def _split_quoted(
        self, layout: Layout, text: str, lines: list[str], *, is_last: bool
    ) -> tuple[list[list[str]], list[int], list[int]]:
        """Return the rows, the lines in which they begin, and the positions of malformed rows."""
        at_end = False

        def note_end() -> Iterator[str]:
            nonlocal at_end
            at_end = True
            yield from ()

        reader = csv.reader(
            itertools.chain(io.StringIO(text, newline="\n"), note_end()),
            delimiter=layout.delimiter,
            strict=True,
        )
        records: list[list[str]] = []
        bounds = [0]
        malformed: list[int] = []
        while not at_end:
            try:
                for fields in reader:
                    records.append(fields)
                    bounds.append(reader.line_num)
            except csv.Error:
                if not at_end:
                    malformed.append(len(records))
                    records.append([])
                    bounds.append(reader.line_num)
        first_line = self._line
        self._line += bounds[-1]
        incomplete = lines[bounds[-1] :]
        if incomplete:
            self._check_row(self._line, incomplete)
            if is_last:
                raise FileRefused(
                    f"A quote in the row that begins in line {self._line:,} is not closed before "
                    f"the end of the file. {_HOW_TO_QUOTE}"
                )
            self._rest = "\n".join(incomplete) + "\n"
        if len(records) < bounds[-1]:
            for start, end in pairwise(bounds):
                if end - start > 1:
                    self._check_row(first_line + start, lines[start:end])
        return records, [first_line + start for start in bounds[:-1]], malformed

    def _rows(self, layout: Layout, numbers: Sequence[int], records: list[list[str]]) -> list[Row]:
        index = layout.index
        if set(map(len, records)) == {layout.width}:
            good = self._good_rows(numbers, [fields[index] for fields in records])
            if good:
                return good
        return [
            self._row(layout, line, fields) for line, fields in zip(numbers, records, strict=True)
        ]

    def _good_rows(self, numbers: Sequence[int], values: list[str]) -> list[Row] | None:
        """Return the rows of several values, or None if at least one row may be bad."""
        nothing = [None] * len(values)
        if self._format.identity is Identity.KEY:
            if not are_keys(values):
                return None
            return list(
                map(_make_row, zip(numbers, values, nothing, values, nothing, nothing, strict=True))
            )
        ids = parse_ids(values)
        if ids is None:
            return None
        return list(
            map(_make_row, zip(numbers, values, ids, nothing, nothing, nothing, strict=True))
        )

    def _row(self, layout: Layout, line: int, fields: list[str]) -> Row:
        value = fields[layout.index] if layout.index < len(fields) else ""
        is_empty = not value.strip(TRIMMED)
        if is_empty and is_blank(fields):
            return _other_row(line, "", RowOutcome.BLANK)
        if len(fields) <= layout.index:
            return _bad_row(
                line,
                layout.delimiter.join(fields),
                f"The row has no column {layout.index + 1}. It has {_fields(len(fields))}.",
            )
        if len(fields) > layout.width and not is_blank(fields[layout.width :]):
            return _bad_row(
                line,
                layout.delimiter.join(fields),
                f"The row has {_fields(len(fields))}, but the first row has {layout.width:,}. Put "
                "a field that contains the delimiter in quotes.",
            )
        if is_empty:
            return _bad_row(line, value, "The field of the users' column is empty.")
        if self._format.identity is Identity.KEY:
            key = parse_key(value)
            if isinstance(key, str):
                return Row(line, value, None, key, None, None)
            return _other_row(line, value, *key)
        user_id = parse_id(value)
        if isinstance(user_id, int):
            return Row(line, value[:MAX_VALUE_CHARACTERS], user_id, None, None, None)
        return _other_row(line, value, *user_id)

    def _check_lengths(self, lines: Sequence[str]) -> None:
        """Refuse the file if a line is too long. The first line is `self._line`."""
        if max(map(len, lines)) > MAX_ROW_CHARACTERS:
            for line, text in enumerate(lines, start=self._line):
                self._check_row(line, [text])

    def _check_row(self, line: int, lines: Sequence[str]) -> None:
        """Refuse the file if the lines of a row that begins in `line` are too long together."""
        if sum(map(len, lines)) + len(lines) - 1 > MAX_ROW_CHARACTERS:
            raise row_too_long(line)


def row_too_long(line: int) -> FileRefused:
    """Return the refusal of a file because of the row that begins in `line`, from 1."""
    return FileRefused(
        f"The row that begins in line {line:,} has more than {MAX_ROW_CHARACTERS:,} characters. "
        "Perhaps a quote in it is not closed, or the file has no line ends. Put one user in each "
        "line."
    )


def _fields(number: int) -> str:
    return f"{number:,} {'field' if number == 1 else 'fields'}"
