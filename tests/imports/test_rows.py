"""Rows of a list: every line is in one row, and each bad row has its reason."""

import pytest

from segmentql.imports.file_format import Delimiter, HeaderMode, Identity, ListFormat
from segmentql.imports.parsing import read_rows
from segmentql.imports.row_parser import MAX_VALUE_CHARACTERS, Row
from segmentql.tables import RowOutcome
from tests.imports.reading import IDS, KEYS, bad_row, only_row, read, refusal, summary, users

HEADER, BLANK = RowOutcome.HEADER, RowOutcome.BLANK
MALFORMED, OUT_OF_RANGE = RowOutcome.MALFORMED, RowOutcome.OUT_OF_RANGE

NO_HEADER = ListFormat(header=HeaderMode.ABSENT)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("final_ends", [0, 1])
def test_each_line_end_separates_rows_and_a_final_one_adds_none(end: str, final_ends: int) -> None:
    data = end.join(["7", "9223372036854775807", "8"]) + end * final_ends
    assert summary(read(data.encode())) == [(1, 7), (2, 2**63 - 1), (3, 8)]


def test_line_ends_may_be_mixed() -> None:
    assert summary(read(b"1\r2\r\n3\n\r4\n\n5\r\r\n6")) == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, BLANK),
        (5, 4),
        (6, BLANK),
        (7, 5),
        (8, BLANK),
        (9, 6),
    ]


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_empty_file_has_no_rows(data: bytes) -> None:
    assert list(read_rows([data], IDS)) == []
    assert list(read_rows([], IDS)) == []


def test_other_line_separators_of_unicode_end_no_line() -> None:
    rows = read("1\u2028\n2\x85\n3\x0c\n4\x0b5\x1c\n".encode())
    assert [(row.line, row.value, row.outcome) for row in rows] == [
        (1, "1\u2028", MALFORMED),
        (2, "2\x85", MALFORMED),
        (3, "3\x0c", MALFORMED),
        (4, "4\x0b5\x1c", MALFORMED),
    ]


def test_blank_rows_are_rows_before_the_header_and_after_it() -> None:
    data = b'\n \t \n,\n"",""\nuser_id,x\n\n1,2\n , \n"",\n\n'
    assert summary(read(data)) == [
        (1, BLANK),
        (2, BLANK),
        (3, BLANK),
        (4, BLANK),
        (5, HEADER),
        (6, BLANK),
        (7, 1),
        (8, BLANK),
        (9, BLANK),
        (10, BLANK),
    ]


@pytest.mark.parametrize("list_format", [IDS, KEYS])
def test_file_of_blank_rows_only_has_no_user(list_format: ListFormat) -> None:
    assert summary(read(b" \n\n\t\n ", list_format)) == [(line, BLANK) for line in (1, 2, 3, 4)]


def test_row_begins_in_the_first_line_of_its_quoted_fields() -> None:
    data = b'user_id,note\n1,"a\r\nb\n\n"\n\n"2","x"\r"3",""""\n"4\n","y"\n5,z'
    assert summary(read(data)) == [
        (1, HEADER),
        (2, 1),
        (6, BLANK),
        (7, 2),
        (8, 3),
        (9, MALFORMED),
        (11, 5),
    ]


def test_header_may_span_lines() -> None:
    data = b'"a\nb",user_id\n1,2\n'
    assert summary(read(data)) == [(1, HEADER), (3, 2)]
    assert summary(read(data, ListFormat(column="a\nb"))) == [(1, HEADER), (3, 1)]
    crlf = data.replace(b"\n", b"\r\n")
    assert summary(read(crlf, ListFormat(column="a\nb"))) == [(1, HEADER), (3, 1)]


def test_text_after_a_closing_quote_makes_one_row_malformed() -> None:
    rows = read(b'user_id,note\n1,"a"b\n2,c\n3,"d\ne" \n4,f\n"5"')
    assert summary(rows) == [(1, HEADER), (2, MALFORMED), (3, 2), (4, MALFORMED), (6, 4), (7, 5)]
    assert rows[1].value == '1,"a"b'
    assert rows[1].detail == (
        "The row has text after a closing quote. A field that begins with a quote must end with "
        "one, and quotes in it are doubled."
    )


def test_quote_within_an_unquoted_field_is_a_character() -> None:
    assert users(b'a"b"\nc"\n"d"""\n', KEYS) == ['a"b"', 'c"', 'd"']


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'1\n2\n"3\n4\n5\n', 3),
        (b'1\n2\n"3', 3),
        (b'user_id,x\n1,"a"\n2,"b\n3,c\n', 3),
        (b'1\n"', 2),
    ],
)
def test_quote_that_is_never_closed_refuses_the_file(data: bytes, line: int) -> None:
    assert refusal(data) == (
        f"A quote in the row that begins in line {line} is not closed before the end of the file. "
        "A field that begins with a quote must end with one, and quotes in it are doubled."
    )


@pytest.mark.parametrize("data", [b'\n"1\n2\n', b'\n"user_id"x\n1\n', b'\n"a",user_id,"b'])
def test_invalid_quotes_in_the_first_row_refuse_the_file(data: bytes) -> None:
    assert refusal(data) == (
        "The row that begins in line 2 has a quote that is not closed, or text after a closing "
        "quote. A field that begins with a quote must end with one, and quotes in it are doubled."
    )


@pytest.mark.parametrize(
    ("text", "outcome", "detail"),
    [
        ("0", MALFORMED, "Zero is not a user id. Ids begin at 1."),
        ("000", MALFORMED, "Zero is not a user id. Ids begin at 1."),
        ("00123", MALFORMED, "A user id has no leading zeros."),
        ("-5", MALFORMED, "A user id is not negative."),
        ("+5", MALFORMED, "A user id has no sign."),
        ("9223372036854775808", OUT_OF_RANGE, "The largest user id is 9223372036854775807."),
        ("1" * 20, OUT_OF_RANGE, "The largest user id is 9223372036854775807."),
        ("123.0", MALFORMED, "A user id has no decimal point and no decimals."),
        ("123.", MALFORMED, "A user id has no decimal point and no decimals."),
        (".5", MALFORMED, "A user id has no decimal point and no decimals."),
        ('"12,5"', MALFORMED, "A user id has no decimal point and no decimals."),
        ('"1,234,567"', MALFORMED, "A user id has no thousands separators."),
        ("1.234.567", MALFORMED, "A user id has no thousands separators."),
        ("1 234", MALFORMED, "A user id has no thousands separators."),
        ("1\u00a0234", MALFORMED, "A user id has no thousands separators."),
        ("1_000", MALFORMED, None),
        ("0x1F", MALFORMED, None),
        ("12a", MALFORMED, None),
        ("1 2", MALFORMED, None),
        ("\u00b2", MALFORMED, None),
        ("\uff11", MALFORMED, "A user id has the digits 0 to 9 only, not those of other scripts."),
        ("\u0661", MALFORMED, "A user id has the digits 0 to 9 only, not those of other scripts."),
        ("12\u00a0", MALFORMED, "The text contains the invisible character U+00A0. Remove it."),
        ("1\ufeff2", MALFORMED, "The text contains the invisible character U+FEFF. Remove it."),
        ("1\u200b2", MALFORMED, "The text contains the invisible character U+200B. Remove it."),
        (
            "1\x072",
            MALFORMED,
            "The text contains a control character, such as a line end or a tab.",
        ),
        (
            '"12\n34"',
            MALFORMED,
            "The text contains a control character, such as a line end or a tab.",
        ),
        ("x" * 256, MALFORMED, "The text is too long for a user id: 256 characters."),
    ],
)
def test_text_that_is_no_user_id_has_its_own_reason(
    text: str, outcome: RowOutcome, detail: str | None
) -> None:
    value = text.removeprefix('"').removesuffix('"')[:MAX_VALUE_CHARACTERS]
    other = (
        "The text is not a user id: a decimal number from 1 to 9223372036854775807, without sign "
        "or leading zeros."
    )
    list_format = ListFormat(header=HeaderMode.ABSENT, delimiter=Delimiter.TAB)
    row = only_row(text.encode(), list_format)
    assert row == bad_row(value, outcome, detail or other)
    # The result is the same in the company of good rows.
    assert read(f"1\n{text}\n2\n".encode(), list_format)[1] == row._replace(line=2)


@pytest.mark.parametrize("text", ["1.23E+12", "1,23E+12", "1e5", "-1.5E-3", "1.E+12"])
def test_scientific_notation_is_malformed_and_named(text: str) -> None:
    assert only_row(f'"{text}"'.encode()) == bad_row(
        text,
        MALFORMED,
        "The number is in scientific notation, which loses digits of the id. Format the column as "
        "text in the spreadsheet program, and export it again.",
    )


def test_number_of_many_digits_is_out_of_range_and_its_value_is_cut() -> None:
    row = only_row(b"9" * 10_000)
    assert (row.outcome, row.value) == (OUT_OF_RANGE, "9" * MAX_VALUE_CHARACTERS)


def test_spaces_and_tabs_around_an_id_are_ignored_and_stored() -> None:
    assert read(b'user_id,x\n 7 , 1\n\t8,2\n" 9",3\n')[1:] == [
        Row(2, " 7 ", 7, None, None, None),
        Row(3, "\t8", 8, None, None, None),
        Row(4, " 9", 9, None, None, None),
    ]


def test_key_is_used_exactly_as_the_file_holds_it() -> None:
    keys = [" a", "a ", "A", "é", "e\u0301", "a\u00a0b", "\u200b", "0", "1.23E+12", "x" * 255]
    rows = read("\n".join(keys).encode(), KEYS)
    assert rows == [Row(line, key, None, key, None, None) for line, key in enumerate(keys, 1)]
    assert users(b'user_key,x\n" a", b\n c ,d\n', KEYS) == [" a", " c "]


@pytest.mark.parametrize("key", ["a\tb", "a\x7fb", "\x01", "a\nb", "a\u0085b"])
def test_key_with_a_control_character_is_malformed(key: str) -> None:
    detail = "The key contains a control character, such as a line end or a tab."
    expected = bad_row(key, MALFORMED, detail)
    assert only_row(f'"{key}"'.encode(), KEYS) == expected
    assert read(f'a\n"{key}"\nb'.encode(), KEYS)[1] == expected._replace(line=2)


def test_key_of_more_than_255_characters_is_malformed() -> None:
    detail = "The key has 1,256 characters. At most 255 are allowed."
    assert only_row(b"x" * 1256, KEYS) == bad_row("x" * 255, MALFORMED, detail)
    assert users("é".encode() * 255, KEYS) == ["é" * 255]
    assert users("é".encode() * 256, KEYS) == []


@pytest.mark.parametrize("field", ["", " ", '""'])
def test_empty_field_in_a_row_with_other_fields_is_malformed(field: str) -> None:
    row = read(f"name,user_id\nx,{field}\n".encode())[1]
    value = field.replace('"', "")
    assert row == bad_row(value, MALFORMED, "The field of the users' column is empty.", line=2)


def test_row_without_the_column_is_malformed_and_shows_its_text() -> None:
    rows = read(b"a,b,user_id\nx\ny,z\n1,2,3\n")
    assert rows[1:] == [
        bad_row("x", MALFORMED, "The row has no column 3. It has 1 field.", line=2),
        bad_row("y,z", MALFORMED, "The row has no column 3. It has 2 fields.", line=3),
        Row(4, "3", 3, None, None, None),
    ]


def test_row_with_fewer_fields_is_valid_if_it_has_the_column() -> None:
    assert users(b"user_id,a,b\n1\n2,x\n3,x,y\n") == [1, 2, 3]


def test_row_with_more_fields_than_the_first_is_malformed() -> None:
    rows = read(b'user_id,name\n1,a,b\n2,c,\n3,d, ,""\n')
    assert rows[1] == bad_row(
        "1,a,b",
        MALFORMED,
        "The row has 3 fields, but the first row has 2. Put a field that contains the delimiter in "
        "quotes.",
        line=2,
    )
    assert summary(rows[2:]) == [(3, 2), (4, 3)]


def test_thousands_separators_do_not_make_an_id_of_the_first_digits() -> None:
    rows = read(b"user_id\n1,234,567\n")
    assert rows[1].outcome is MALFORMED
    assert rows[1].value == "1,234,567"


def test_byte_order_mark_later_in_the_file_makes_a_row_malformed() -> None:
    rows = read("1\n\ufeff2\n".encode())
    detail = "The text contains the invisible character U+FEFF. Remove it."
    assert rows[1] == bad_row("\ufeff2", MALFORMED, detail, line=2)


def test_identity_decides_between_id_and_key() -> None:
    data = b"user_id,user_key\n1,a\n2,b\n"
    assert users(data) == [1, 2]
    assert users(data, ListFormat(identity=Identity.KEY)) == ["a", "b"]
