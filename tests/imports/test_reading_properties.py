"""Rows of random files, compared with an independent count and with what was written."""

import csv
import gzip
import io
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segmentql.imports.file_format import (
    Delimiter,
    FileRefused,
    HeaderMode,
    Identity,
    ListFormat,
)
from segmentql.imports.row_parser import Row
from segmentql.imports.unpacking import BLOCK_BYTES
from segmentql.tables import RowOutcome
from tests.imports.reading import IDS, KEYS, read

DELIMITERS = {Delimiter.COMMA: ",", Delimiter.SEMICOLON: ";", Delimiter.TAB: "\t"}

CASES: Final = {
    "ids": (b"1\r\n22\r333\n\n 4 \r\r\nx\r\n5", IDS),
    "csv": (
        'user_id,é\r\n1,"a\r\nb"\n"2","x ""y"" \U0001f600"\r3,"\n\n"\r\n\r\n'.encode()
        + b'"4"x\n5,\xe2\x82\xac,z\n6',
        IDS,
    ),
    "keys": ('user_key;x\n\U0001f600é;"\r\n"\r\n"a;""b";\n"a\nb";\n;\n'.encode(), KEYS),
    "invalid UTF-8": (b"1\n2\n3\xe2\x82\n4", IDS),
    "NUL": (b"1\r\n2\r\n3\x00\r\n", IDS),
    "open quote": (b'1\n2\n"3\r\n4\r\n', IDS),
}


def result(chunks: list[bytes], list_format: ListFormat) -> list[Row] | str:
    try:
        return read(chunks, list_format)
    except FileRefused as refusal:
        return str(refusal)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_chunks_of_a_file_do_not_matter(case: str, pack: Callable[[bytes], bytes]) -> None:
    data, list_format = CASES[case]
    packed = pack(data)
    expected = result([packed], list_format)
    assert result([packed[i : i + 1] for i in range(len(packed))], list_format) == expected
    for cut in range(len(packed) + 1):
        assert result([packed[:cut], b"", packed[cut:]], list_format) == expected, cut


def moved(expected: list[Row] | str, first: int, lines: int) -> list[Row] | str:
    """Return what is expected if lines are added before the row at the position `first`."""
    if isinstance(expected, str):
        return re.sub(
            "[Ll]ine ([0-9]+)", lambda found: f"{found[0][:5]}{int(found[1]) + lines}", expected
        )
    return expected[:first] + [row._replace(line=row.line + lines) for row in expected[first:]]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("first", [0, 1])
def test_blocks_within_a_file_do_not_matter(case: str, first: int) -> None:
    """The parser reads blocks of one size. Blank rows move each byte of the file to their border.

    They are before the first row, or after it, when the layout is known.
    """
    data, list_format = CASES[case]
    first_line = re.match(b"[^\r\n]*(?:\r\n|\r|\n)", data) if first else None
    head = first_line[0] if first_line else b""
    for position in range(len(head), len(data) + 1):
        length = BLOCK_BYTES - position
        padding = b" " * 99_999 + b"\n" + b" " * 99_999 + b"\n" + b" " * (length - 200_001) + b"\n"
        found = result([head + padding + data[len(head) :]], list_format)
        if isinstance(found, list):
            blank, found[first : first + 3] = found[first : first + 3], []
            assert [row.outcome for row in blank] == [RowOutcome.BLANK] * 3
        assert found == moved(result([data], list_format), first, 3), position


def split(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | None]]:
    """Yield the line and the fields of each row, None if it is malformed.

    This is an independent parser, character by character.

    Raises:
        ValueError: A quote is not closed.
    """
    lines = re.split(r"\r\n|\r|\n", text)
    if not lines[-1]:
        lines.pop()
    number = 0
    while number < len(lines):
        begin, rest, malformed = number, lines[number], False
        fields, is_open, is_closed = [""], False, False
        while (rest or is_open) and not malformed:
            if not rest:
                number += 1
                if number == len(lines):
                    raise ValueError
                rest = "\n" + lines[number]
            character, rest = rest[0], rest[1:]
            if is_open and character == '"' and rest[:1] == '"':
                fields[-1], rest = fields[-1] + '"', rest[1:]
            elif is_open and character == '"':
                is_open, is_closed = False, True
            elif character == delimiter and not is_open:
                fields.append("")
                is_closed = False
            elif is_closed:
                malformed = True
            elif character == '"' and not fields[-1]:
                is_open = True
            else:
                fields[-1] += character
        yield begin + 1, None if malformed else fields
        number += 1


@given(st.text(alphabet='1a ,\t"\r\n', max_size=40), st.sampled_from([",", "\t"]))
@settings(max_examples=500)
@example('1,"a', ",")
@example('"a"b"\n1', ",")
@example('\n1\n"a\r\n"b\n"', ",")
def test_rows_of_any_text_are_those_of_an_independent_parser(text: str, delimiter: str) -> None:
    list_format = ListFormat(
        column_number=1,
        header=HeaderMode.ABSENT,
        delimiter=Delimiter.COMMA if delimiter == "," else Delimiter.TAB,
    )
    found = result([text.encode()], list_format)
    try:
        rows = [*split(text, delimiter)]
    except ValueError:
        assert "quote" in found
        return
    first = next(
        (fields for _, fields in rows if fields is None or "".join(fields).strip(" \t")), []
    )
    if first is None:
        assert "text after a closing quote" in found
        return
    assert isinstance(found, list)
    assert [row.line for row in found] == [line for line, _ in rows]
    for row, (_, fields) in zip(found, rows, strict=True):
        if fields is None:
            assert row.outcome is RowOutcome.MALFORMED
        elif not "".join(fields).strip(" \t"):
            assert row.outcome is RowOutcome.BLANK
        elif len(fields) <= len(first) or not "".join(fields[len(first) :]).strip(" \t"):
            assert row.value == fields[0]
            assert (row.outcome is None) == bool(re.fullmatch(r"[ \t]*1+[ \t]*", fields[0]))


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")
    | st.sampled_from('1,;\t"\r\n '),
    max_size=8,
)
IDS_AND_TEXTS = st.integers(-2, 2**63 + 1).map(str) | TEXTS


@given(st.data())
@settings(max_examples=200)
def test_rows_that_csv_writer_wrote_are_read_back(data: st.DataObject) -> None:
    delimiter = data.draw(st.sampled_from([*DELIMITERS]))
    line_end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoting: Literal[0, 1] = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    identity = data.draw(st.sampled_from(Identity))
    width = data.draw(st.integers(1, 4))
    index = data.draw(st.integers(0, width - 1))
    name = f"user_{identity.lower()}"
    header = [f"c{n}" for n in range(index)] + [name] + [f"d{n}" for n in range(width - index - 1)]
    fields = IDS_AND_TEXTS if identity is Identity.ID else TEXTS
    row = st.tuples(*(fields if n == index else TEXTS for n in range(width))).map(list)
    records = [header, *data.draw(st.lists(row | st.just([]), max_size=8))]

    parts: list[str] = []
    expected: list[tuple[int, object]] = []
    for record in records:
        line = 1 + len(re.findall(r"\r\n|\r|\n", "".join(parts)))
        expected.append((line, expected_outcome(record, index, identity)))
        file = io.StringIO(newline="")
        # The writer quotes CR and LF in a field only if they are in its line end.
        csv.writer(
            file, delimiter=DELIMITERS[delimiter], quoting=quoting, lineterminator="\r\n"
        ).writerow(record)
        parts.append(file.getvalue().removesuffix("\r\n") + line_end)
    expected[0] = (1, RowOutcome.HEADER)
    text = "".join(parts)
    has_end = data.draw(st.booleans()) or not records[-1]
    file_bytes = (text if has_end else text.removesuffix(line_end)).encode()

    auto = delimiter if width == 1 else data.draw(st.sampled_from([delimiter, Delimiter.AUTO]))
    found = read(file_bytes, ListFormat(identity, delimiter=auto))
    assert [(row.line, row.outcome or row.user_id or row.user_key) for row in found] == expected
    independent = csv.reader(
        io.StringIO(text, newline=""), delimiter=DELIMITERS[delimiter], strict=True
    )
    assert len(found) == sum(1 for _ in independent)


def expected_outcome(record: list[str], index: int, identity: Identity) -> object:
    if not any(field.strip(" \t") for field in record):
        return RowOutcome.BLANK
    field = record[index]
    if not field.strip(" \t"):
        return RowOutcome.MALFORMED
    if identity is Identity.KEY:
        is_key = not any(unicodedata.category(character) == "Cc" for character in field)
        return field if is_key else RowOutcome.MALFORMED
    number = field.strip(" \t")
    if not re.fullmatch("[1-9][0-9]*", number):
        return RowOutcome.MALFORMED
    return int(number) if int(number) < 2**63 else RowOutcome.OUT_OF_RANGE
