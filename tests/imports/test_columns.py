"""Delimiter, header and column of a list, as the first row shows them."""

import time

import pytest

from segmentql.imports.file_format import Delimiter, HeaderMode, Identity, ListFormat
from segmentql.tables import RowOutcome
from tests.imports.reading import IDS, KEYS, read, refusal, summary, users

HEADER, BLANK, MALFORMED = RowOutcome.HEADER, RowOutcome.BLANK, RowOutcome.MALFORMED
PRESENT, ABSENT = HeaderMode.PRESENT, HeaderMode.ABSENT
KEY = Identity.KEY
SECOND_COLUMN = ListFormat(column_number=2)


def quoted(rows: list[list[str]], delimiter: str) -> bytes:
    return "\n".join(
        delimiter.join('"' + field.replace('"', '""') + '"' for field in row) for row in rows
    ).encode()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("list_format", [IDS, SECOND_COLUMN, ListFormat(column="user_id")])
def test_delimiter_is_found(delimiter: str, list_format: ListFormat) -> None:
    rows = [["a,b;c\td", "user_id"], ['a "quoted" name', "7"], ["b,;\tc", "8"]]
    data = quoted(rows, delimiter)
    assert summary(read(data, list_format)) == [(1, HEADER), (2, 7), (3, 8)]


@pytest.mark.parametrize(
    ("data", "list_format", "expected"),
    [
        (b"1;3,50\n", ListFormat(column_number=1), [1]),  # a decimal comma
        (b"1\tx,y;z\n", ListFormat(column_number=1), [1]),
        (b"user_id,a;b;c\n1,2\n", IDS, [1]),  # the name of the column decides
        (b"a,b,c,x;user_id\n2;1\n", IDS, [1]),
        (b"a,b,c,x;vip\n2;1\n", ListFormat(column="vip"), [1]),
        (b"a;b;c,d\n", ListFormat(identity=KEY, column_number=2), ["b"]),
        (b"user_key\nb;c\nd,e\n", KEYS, ["b;c"]),
        (b"a\nb;c\nd,e\n", KEYS, ["a", "b;c"]),  # one column: the delimiter is a comma
    ],
)
def test_delimiter_is_chosen_by_the_column_name_then_by_the_fields(
    data: bytes, list_format: ListFormat, expected: list[int | str]
) -> None:
    assert users(data, list_format) == expected


@pytest.mark.parametrize(
    ("delimiter", "expected"),
    [(Delimiter.COMMA, "a;b\tc"), (Delimiter.SEMICOLON, "a"), (Delimiter.TAB, "a;b")],
)
def test_given_delimiter_is_used(delimiter: Delimiter, expected: str) -> None:
    list_format = ListFormat(column_number=1, delimiter=delimiter)
    [row] = read(b"a;b\tc", list_format)
    assert (row.value, row.outcome) == (expected, HEADER)


def test_one_column_of_keys_with_delimiters_is_read_with_another_delimiter() -> None:
    data = b"Smith, John\nDoe, Jane\n"
    assert "set `delimiter` to a character that does not occur" in refusal(data, KEYS)
    tab = ListFormat(identity=KEY, delimiter=Delimiter.TAB)
    assert users(data, tab) == ["Smith, John", "Doe, Jane"]


@pytest.mark.parametrize("name", ["user_id", "User ID", "id", "#id", "_id", "номер"])
def test_name_in_the_first_row_of_ids_is_a_header(name: str) -> None:
    assert summary(read(f"{name}\n2\n".encode())) == [(1, HEADER), (2, 2)]


@pytest.mark.parametrize(
    "text",
    ["1.23E+12", "-1", "+1e5", ".5e3", "12a", "0", "007", "%", "\u0661", "99999999999999999999"],
)
def test_first_row_that_is_no_name_is_a_bad_row_and_no_header(text: str) -> None:
    rows = read(f"{text}\n2\n".encode())
    assert rows[0].outcome in {MALFORMED, RowOutcome.OUT_OF_RANGE}
    assert rows[1].user_id == 2


def test_field_of_the_chosen_column_decides_about_the_header() -> None:
    assert summary(read(b"alice,1\nbob,2\n", SECOND_COLUMN)) == [(1, 1), (2, 2)]
    assert summary(read(b"1,id\n2,2\n", SECOND_COLUMN)) == [(1, HEADER), (2, 2)]
    assert summary(read(b"user_id,9\n1,2\n", SECOND_COLUMN)) == [(1, HEADER), (2, 2)]
    assert read(b"alice,\nbob,2\n", SECOND_COLUMN)[0].outcome is MALFORMED


@pytest.mark.parametrize("name", ["user_key", "user_id", " user_key "])
def test_first_row_of_keys_is_a_header_if_it_has_a_default_name(name: str) -> None:
    assert summary(read(f"{name}\na\n".encode(), KEYS)) == [(1, HEADER), (2, "a")]


@pytest.mark.parametrize("name", ["email", "User_Key", "key", "1"])
def test_first_row_of_keys_is_a_key_otherwise(name: str) -> None:
    assert summary(read(f"{name}\na\n".encode(), KEYS)) == [(1, name), (2, "a")]
    present = ListFormat(identity=KEY, header=PRESENT)
    assert summary(read(f"{name}\na\n".encode(), present)) == [(1, HEADER), (2, "a")]


@pytest.mark.parametrize("identity", Identity)
def test_named_column_is_read(identity: Identity) -> None:
    data = b"user_id,user_key, vip \n1,2,3\n"
    for mode in (HeaderMode.AUTO, PRESENT):
        list_format = ListFormat(identity, column="vip", header=mode)
        assert [row.value for row in read(data, list_format)] == [" vip ", "3"]


def test_default_column_is_read_without_a_name() -> None:
    data = b"name,user_key,user_id\nx,k,7\n"
    assert users(data) == [7]
    assert users(data, KEYS) == ["k"]
    assert users(data, ListFormat(header=PRESENT)) == [7]


def test_present_header_is_no_data() -> None:
    assert summary(read(b"\n1\n2\n", ListFormat(header=PRESENT))) == [
        (1, BLANK),
        (2, HEADER),
        (3, 2),
    ]


def test_absent_header_is_data() -> None:
    rows = read(b"user_id\n2\n", ListFormat(header=ABSENT))
    assert [(row.value, row.outcome) for row in rows] == [("user_id", MALFORMED), ("2", None)]
    keys = ListFormat(identity=KEY, header=ABSENT)
    assert users(b"user_key\na\n", keys) == ["user_key", "a"]


HINT = (
    "The file has several columns, and it is not known which one has the users. Set `column` to "
    "its name or `columnNumber` to its number. The first row, split by {}, has {}. If the file has "
    "one column, set `delimiter` to a character that does not occur in it."
)


@pytest.mark.parametrize(
    ("data", "list_format", "message"),
    [
        (b"id;name\n1;a\n", IDS, HINT.format("SEMICOLON", '2 columns: 1 "id", 2 "name"')),
        (b"1,a\n", IDS, HINT.format("COMMA", '2 columns: 1 "1", 2 "a"')),
        (
            b"user_id,user_id2\n1,2\n",
            ListFormat(header=ABSENT),
            HINT.format("COMMA", '2 columns: 1 "user_id", 2 "user_id2"'),
        ),
        (
            b"user_id\tmail\n1\ta@b.c\n",
            KEYS,
            HINT.format("TAB", '2 columns: 1 "user_id", 2 "mail"'),
        ),
        (
            b"User_ID,name\n1,a\n",
            ListFormat(column="user_id"),
            'The header has no column "user_id". Names of columns are case-sensitive. The first '
            'row, split by COMMA, has 2 columns: 1 "User_ID", 2 "name".',
        ),
        (
            b"1\n2\n",
            ListFormat(column="id"),
            'The header has no column "id". Names of columns are case-sensitive. The first row, '
            'split by COMMA, has 1 column: 1 "1".',
        ),
        (
            b"user_id,user_id\n1,2\n",
            IDS,
            'The header has 2 columns "user_id". Set `columnNumber` to the number of one. The '
            'first row, split by COMMA, has 2 columns: 1 "user_id", 2 "user_id".',
        ),
        (
            b"a,b\n1,2\n",
            ListFormat(column_number=3),
            'The file has no column 3. The first row, split by COMMA, has 2 columns: 1 "a", 2 "b".',
        ),
        (
            b"a,b\n1,2\n",
            ListFormat(column_number=0),
            'The file has no column 0. The first row, split by COMMA, has 2 columns: 1 "a", 2 "b".',
        ),
        (
            b"a,b\n1,2\n",
            ListFormat(column="a", header=ABSENT),
            "A column is named, but the file has no header. Set `columnNumber` instead of "
            '`column`. The first row, split by COMMA, has 2 columns: 1 "a", 2 "b".',
        ),
    ],
)
def test_unknown_column_refuses_the_file_and_lists_the_columns(
    data: bytes, list_format: ListFormat, message: str
) -> None:
    assert refusal(data, list_format) == message


def test_list_of_columns_is_short_and_printable() -> None:
    names = ['"x\n\x07y"', "z" * 100, *(f"c{number}" for number in range(3, 31))]
    message = refusal(",".join(names).encode())
    assert f'has 30 columns: 1 "x  y", 2 "{"z" * 40}...", 3 "c3", ' in message
    assert '20 "c20" and 10 more.' in message


@pytest.mark.parametrize("line", [b" \n", b'"",""\n', b",,\n", b"\t\n", b'"  "\n'])
def test_many_blank_rows_before_the_first_row_need_linear_time(line: bytes) -> None:
    count = 50_000
    started = time.process_time()
    rows = read(line * count + b"7\n")
    # About 0.1 s.
    assert time.process_time() - started < 2
    assert summary(rows[-2:]) == [(count, BLANK), (count + 1, 7)]


@pytest.mark.parametrize("delimiter", Delimiter)
def test_long_blank_line_needs_linear_time(delimiter: Delimiter) -> None:
    started = time.process_time()
    list_format = ListFormat(delimiter=delimiter, column_number=1)
    assert "has no line ends" in refusal(b"\t " * 300_000 + b"x", list_format)
    assert time.process_time() - started < 5
